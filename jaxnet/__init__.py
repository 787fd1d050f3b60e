"""Layers and networks as pure functions in JAX, their gradients cross-checked, their training one compiled program.

Names are loaded when they are first used, so that checking a NumPy layer does not import JAX.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
