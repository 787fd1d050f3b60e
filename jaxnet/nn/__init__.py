"""Layers, losses and networks as pure functions: a layer is a pair of functions, `init` and `apply`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "attention",
        "convolution",
        "inference",
        "layers",
        "losses",
        "networks",
        "normalization",
        "tree_paths",
    ],
)
