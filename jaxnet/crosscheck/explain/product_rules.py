"""Recognizes slips in the product rule: a term or a factor that is missing in the gradient of y = x f(c x).

    dy/dx = f(c x) + c x f'(c x)

Swish is the best-known of these, with the sigmoid as f and beta as c.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.explain.array_factors import Function, sigmoid
from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

# f, with its derivative.
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda z: -np.sin(z)),
    "log": (np.log, lambda z: 1 / z),
}


class Scaling(NamedTuple):
    """The factor c of x within f.

    Attributes:
        name: Its name; empty for 1.
        value: A number, or an array of the leaf's shape.
    """

    name: str
    value: Array


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the term or the factor that is missing in the gradient of y = x f(c x)."""
    dout = evidence.dout
    if evidence.own is None or (dout.shape != evidence.shape and dout.size != 1):
        return
    whole = np.broadcast_to(dout.reshape(()) if dout.size == 1 else dout, evidence.shape)
    for scaling in _scalings(evidence):
        for name in FUNCTIONS:
            yield from _missing_in(evidence, whole, scaling, name)


def _scalings(evidence: Evidence) -> Iterator[Scaling]:
    """Yields 1, the layer's numbers, and its other leaves that are broadcast to this one."""
    yield Scaling("", np.ones(()))
    for name, number in evidence.inputs.numbers.items():
        if number and math.isfinite(number):
            yield Scaling(name, np.asarray(float(number)))
    for name, array in evidence.leaves.items():
        if name != evidence.inputs.leaf and array.size < evidence.whole.size and array.ndim <= len(evidence.shape):
            fits = all(n in (1, m) for n, m in zip(array.shape[::-1], evidence.shape[::-1], strict=False))
            yield from [Scaling(name, np.broadcast_to(array, evidence.shape))] if fits else []


def _missing_in(evidence: Evidence, dout: Array, scaling: Scaling, name: str) -> Iterator[Diagnosis]:
    """Yields what is missing if the true gradient is that of y = x f(c x), and the claimed one a part of it."""
    assert evidence.own is not None
    function, derivative = FUNCTIONS[name]

    def terms(x: Array, c: Array) -> tuple[Array, Array]:
        """Returns f(c x) and f'(c x)."""
        return function(c * x), derivative(c * x)

    def make(x: Array) -> Array:
        first, slope = terms(x, scaling.value)
        return dout * (first + scaling.value * x * slope)

    x, c, above = evidence.own[evidence.index], evidence.at(scaling.value), dout[evidence.index]
    first, slope = terms(x, c)
    right = above * (first + c * x * slope)
    if not evidence.fits(right):
        return
    leaf = evidence.inputs.leaf
    of = f"({scaling.name} {leaf})" if scaling.name else f"({leaf})"
    second = f"{scaling.name} {leaf} {name}'{of}".strip()
    slips_of_rule = (
        (Slip.TERM_MISSING, f"the term {second} of the product rule is missing", first),
        (Slip.TERM_MISSING, f"the term {name}{of} of the product rule is missing", c * x * slope),
        (Slip.MISSING_FACTOR, f"the factor {scaling.name} is missing in the term {second} of the product rule",
         first + x * slope),
        (Slip.MISSING_FACTOR, f"the factor {leaf} is missing in the term {second} of the product rule",
         first + c * slope),
    )  # fmt: skip
    for slip, sentence, claimed in slips_of_rule:
        if evidence.matches_claimed(above * claimed):
            yield from evidence.test(slip, sentence, right, partial(make, evidence.own))
