"""Checks that a second derivative is symmetric: <u, H v> = <v, H u>, exact up to rounding."""

import math

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Leaves
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.leaf_steps import copies, scale_of

MIN_RELATIVE_GAP = 1e-9  # relative to the terms; less is rounding within the gradient's own derivative


def check_symmetry(gradient: Derivation, leaves: list[str], rng: np.random.Generator) -> list[Finding]:
    """Returns HESSIAN_NOT_SYMMETRIC if the derivative of a gradient is not symmetric.

    Args:
        gradient: The derivation of a gradient as a function, whose output is the gradients of the leaves in a row.
        leaves: The leaves of the function of which it is the gradient.
        rng: Draws directions.
    """
    at = gradient.at
    first, second = ({n: scale_of(at[n]) * rng.standard_normal(at[n].shape) for n in leaves} for _ in range(2))
    along = [_pulled(gradient, first, second), _pulled(gradient, second, first)]
    gap, size = abs(sum(along[0]) - sum(along[1])), max(math.hypot(*terms) for terms in along)
    unit_roundoff = max(gradient.unit_roundoff, gradient.noise.relative / 4)
    terms = math.sqrt(sum(leaf.size for leaf in at.values()))
    if gap <= max(MIN_RELATIVE_GAP, SAFETY * terms * unit_roundoff) * size:
        return []
    return [Finding(Behaviour.HESSIAN_NOT_SYMMETRIC, Level.FAULT, size=gap / size)]


def _pulled(gradient: Derivation, u: Leaves, v: Leaves) -> Array:
    """Returns the terms of <v, H u>."""
    above = np.concatenate([u[name].ravel() for name in u]).astype(gradient.cast_dout.dtype)
    above = above.reshape(gradient.output.shape)
    pulled = gradient.checkable.backward(copies(gradient.at), above)
    return np.concatenate([(in_float64(pulled[name]) * v[name]).ravel() for name in v])
