"""What tests of many styles of code share: a register of the styles, and arrays."""

from collections.abc import Callable

import numpy as np


class Styles(dict):
    """Functions or classes that make code in some style, by name; all take the factor by which a gradient is wrong."""

    def add(self, make: Callable) -> Callable:
        """Registers a function or a class under its name; a decorator."""
        self[make.__name__] = make
        return make


def draw(*shape: int) -> np.ndarray:
    """Returns normal numbers, the same for each shape."""
    return np.random.default_rng(shape).standard_normal(shape)
