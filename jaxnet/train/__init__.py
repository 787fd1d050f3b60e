"""Training: one compiled program for all steps of a run, what it saves, and many runs at once."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "checkpoints",
        "compiled_steps",
        "device_data",
        "divergence",
        "fit",
        "matmul_layout",
        "run_folder",
        "sharding",
        "step",
        "step_config",
        "sweep",
    ],
)
