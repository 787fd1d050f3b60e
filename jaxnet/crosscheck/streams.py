"""Draws random numbers for a check, independent of those of its user.

A user's inputs often come from `np.random.default_rng(0)`. If `dout` came from the same generator, it would equal the
inputs, and a gradient that is wrong only orthogonal to its input would pass. These streams use a bit generator other
than that of `default_rng` (Philox, not PCG64), and a spawn key, which generators with a user's seed do not have.
"""

from enum import Enum

import numpy as np

SPAWN_KEY = 0x6A61786E  # "jaxn"


class Stream(Enum):
    """The purposes of random numbers; each has its own stream."""

    INPUTS = 1
    DOUT = 2
    DIRECTIONS = 3
    ROUNDING = 4
    POINTS = 5
    SAMPLES = 6
    BEHAVIOUR = 7
    OTHER_WAYS = 8
    HALF = 9


def stream(purpose: Stream, seed: int) -> np.random.Generator:
    """Returns the generator for one purpose.

    Args:
        purpose: The purpose of the numbers.
        seed: The seed of the check, 0 or more.

    Examples:
        >>> a, b = stream(Stream.DOUT, 0).standard_normal(2), stream(Stream.DOUT, 0).standard_normal(2)
        >>> bool((a == b).all())
        True
        >>> bool((a == np.random.default_rng(0).standard_normal(2)).any())
        False
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(SPAWN_KEY, purpose.value))))
