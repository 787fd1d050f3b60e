"""Measures a gradient along the parts of a structure alone, such as the diagonal of a symmetric matrix."""

from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation
from jaxnet.crosscheck.measure.structures import Structure

SLOPES_PER_PART = 3
FINEST = 1e-10  # the relative error of a quotient at which no further step is tried
LEAST_SIGNAL = 1e3  # slopes over their errors from which three equal ratios are no accident


class PartSlopes(NamedTuple):
    """The slopes along random directions in which one part of a leaf moves.

    Attributes:
        name: The part.
        claimed: The slopes by the gradient that is checked.
        true: The difference quotients.
        errors: The errors of the difference quotients, and of rounding.
    """

    name: str
    claimed: Array
    true: Array
    errors: Array

    @property
    def is_right(self) -> bool:
        """Whether the gradient is right along the part."""
        return bool((np.abs(self.claimed - self.true) <= self.errors).all())

    @property
    def factor(self) -> float | None:
        """The factor by which all slopes of the part are wrong; None if they differ by several."""
        if not (np.abs(self.true) > LEAST_SIGNAL * self.errors).all():
            return None
        ratios, blur = self.claimed / self.true, np.abs(self.errors / self.true) * np.abs(self.claimed / self.true)
        return float(ratios[0]) if np.ptp(ratios) <= 2 * blur.max() else None


def slopes_of_parts(
    analytic: Derivation, leaf: str, structure: Structure, rng: np.random.Generator
) -> list[PartSlopes]:
    """Returns the slopes of each part of a leaf, in the unit of its scaled gradient; none if it has no parts.

    Args:
        analytic: The derivation.
        leaf: The leaf.
        structure: The structure that the leaf keeps as it moves.
        rng: Draws directions.
    """
    x = in_float64(analytic.at[leaf])
    target = analytic.target(leaf, np.ones(x.shape), FINEST)
    slopes = []
    for name, mask in structure.parts(x).items():
        directions = [structure.project(x, rng.standard_normal(x.shape) * mask) for _ in range(SLOPES_PER_PART)]
        probes = [analytic.probe_unrounded(leaf, direction, target, analytic.first_step) for direction in directions]
        slopes.append(
            PartSlopes(
                name,
                np.array([probe.claimed for probe in probes]),
                np.array([probe.numerical.value for probe in probes]),
                np.array([SAFETY * (probe.numerical.error + probe.rounding) for probe in probes]),
            )
        )
    return slopes
