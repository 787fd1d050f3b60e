"""Compares the gradient with the same derivative computed in other ways, where the code's framework has them."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxnet.crosscheck.measure.derivation import Derivation, Measured
from jaxnet.crosscheck.measure.findings import Finding
from jaxnet.crosscheck.measure.forward_mode import compare_modes
from jaxnet.crosscheck.measure.hessian_symmetry import check_symmetry
from jaxnet.crosscheck.measure.partial_douts import compare_partial_douts
from jaxnet.crosscheck.measure.partial_gradients import compare_partial_gradients
from jaxnet.crosscheck.measure.transforms import compare_transforms


def compare_other_ways(
    analytic: Derivation,
    gradient: Mapping[str, Measured],
    transforms: Sequence[str] | None,
    rng: np.random.Generator,
    accuracy: float,
) -> list[Finding]:
    """Returns the findings of forward mode, of single leaves and outputs, of transformations, and of symmetry.

    Args:
        analytic: The derivation that is checked.
        gradient: Its gradients.
        transforms: The transformations under which the code must run; None for the cheap ones, where it runs.
        rng: Draws directions and points.
        accuracy: The relative error that is allowed by design.
    """
    checkable, at, dout = analytic.checkable, analytic.at, analytic.cast_dout
    findings = compare_modes(analytic, rng, accuracy)
    findings += compare_partial_gradients(checkable, at, dout, gradient, accuracy)
    findings += compare_partial_douts(checkable, at, dout, gradient, accuracy)
    findings += compare_transforms(analytic, gradient, transforms, rng, accuracy)
    if checkable.gradient_of:
        findings += check_symmetry(analytic, list(checkable.gradient_of), rng)
    return findings
