"""Complex arrays that several tests bring to the checker, and what they read in its reports."""

import numpy as np

from jaxnet.crosscheck import Verdict

PYTORCH, JAX = "complex gradients follow PyTorch's convention", "complex gradients follow JAX's convention"


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


Z, W, X = draw(4, 3), draw(3, 2, seed=1), draw(7, seed=2).real


def verdicts(report):
    return {leaf.name: leaf.verdict.value for leaf in report.leaves}


def slips(report):
    return {leaf.name: leaf.slip for leaf in report.leaves if leaf.verdict is Verdict.FAIL}
