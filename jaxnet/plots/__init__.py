"""Figures of runs and gradients, and the parts of what a notebook shows. Each function returns and shows nothing.

Names are loaded when they are first used: only figures import matplotlib.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
