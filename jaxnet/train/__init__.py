"""Training: the compiled training loop, checkpoints, the folder of a run, and sweeps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "checkpoints",
        "compiled_steps",
        "device_data",
        "divergence",
        "fit",
        "learned_nothing",
        "matmul_layout",
        "run_folder",
        "sharding",
        "step",
        "step_config",
        "sweep",
        "trained_run",
    ],
)
