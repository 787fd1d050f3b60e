"""Recognizes a factor that is an array and is missing, extra or wrong: gamma, x, the derivative of an activation."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence, Make
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

ROOT = math.sqrt(2 / math.pi)
Function = Callable[[Array], Array]
Factor = tuple[str, Array, Make]  # name, values at the compared elements, a function that returns all values


def sigmoid(x: Array) -> Array:
    """Returns 1 / (1 + exp(-x))."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def _normal(x: Array) -> Array:
    """Returns the standard normal distribution function."""
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


def _gelu(x: Array) -> Array:
    u, inner = np.tanh(ROOT * (x + 0.044715 * x**3)), ROOT * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + u) + 0.5 * x * (1 - u**2) * inner


def _gelu_without_cube(x: Array) -> Array:
    u = np.tanh(ROOT * (x + 0.044715 * x**3))
    return 0.5 * (1 + u) + 0.5 * x * (1 - u**2) * ROOT


OF_OUTPUT: dict[str, Function] = {
    "{}": lambda y: y,
    "1 - {}": lambda y: 1 - y,
    "{} (1 - {})": lambda y: y * (1 - y),
    "(1 - {}**2)": lambda y: 1 - y**2,
    "(1 + {})": lambda y: 1 + y,
    "(1 + {}**2)": lambda y: 1 + y**2,
    "{} (1 - {}**2)": lambda y: y * (1 - y**2),
    "{}**2": lambda y: y**2,
    "exp({})": np.exp,
    "1 / {}": lambda y: 1 / y,
    "sigmoid({})": sigmoid,
    "sigmoid({}) (1 - sigmoid({}))": lambda y: sigmoid(y) * (1 - sigmoid(y)),
    "(1 - tanh({})**2)": lambda y: 1 - np.tanh(y) ** 2,
    "cos({})": np.cos,
}
OF_INPUT: dict[str, Function] = {
    **OF_OUTPUT,
    "({} > 0)": lambda x: (x > 0).astype(float),
    "sign({})": np.sign,
    "|{}|": np.abs,
    "sin({})": np.sin,
    "log({})": np.log,
    "(1 - sigmoid({}))": lambda x: 1 - sigmoid(x),
    "tanh({})": np.tanh,
    "(1 - tanh({}))": lambda x: 1 - np.tanh(x),
    "sqrt({})": np.sqrt,
    "{}**3": lambda x: x**3,
    "2 {}": lambda x: 2 * x,
    "3 {}**2": lambda x: 3 * x**2,
    "3 {}": lambda x: 3 * x,
    "1 / (2 sqrt({}))": lambda x: 0.5 / np.sqrt(x),
    "-1 / {}**2": lambda x: -1 / x**2,
    "1 / (1 + {}**2)": lambda x: 1 / (1 + x**2),
    "exp(-{})": lambda x: np.exp(-x),
    "gelu'({})": _gelu,
    "silu'({})": lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "sigmoid({}) + {} sigmoid({})": lambda x: sigmoid(x) * (1 + x),
    "Phi({})": _normal,
    "(Phi({}) + {} phi({}))": lambda x: _normal(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
    "gelu'({}) without 3 a {}**2 in its inner derivative": _gelu_without_cube,
    "the first term of gelu'({})": lambda x: 0.5 * (1 + np.tanh(ROOT * (x + 0.044715 * x**3))),
    "elu'({})": lambda x: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0))),
    "(elu'({}) - 1 where {} < 0)": lambda x: np.where(x > 0, 1.0, np.expm1(np.minimum(x, 0))),
    "softsign'({})": lambda x: 1 / (1 + np.abs(x)) ** 2,
}
OF_OTHER: dict[str, Function] = {"{}": lambda a: a, "{}**2": lambda a: a**2, "sqrt({})": np.sqrt, "exp({})": np.exp}


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields an array that is missing as a factor, or is extra, or a derivative that is another one's."""
    leaves = set(evidence.leaves) - {"output"}
    yield from _missing_or_extra(evidence, (factor for factor in factors(evidence) if factor[0] in leaves))
    yield from _times_dout(evidence)
    yield from _missing_or_extra(evidence, factors(evidence))


def factors(evidence: Evidence) -> Iterator[Factor]:
    """Yields the arrays that a gradient may be multiplied by: the leaves, the output, and functions of them."""
    if evidence.output.shape == evidence.shape:
        yield from _functions("y", evidence.output, OF_OUTPUT, evidence)
    for name, array in evidence.leaves.items():
        functions = OF_INPUT if array.shape == evidence.shape else OF_OTHER
        for fitted in _broadcasts(array, evidence.shape):
            yield from _functions(name, fitted, functions, evidence)


def _functions(name: str, array: Array, functions: dict[str, Function], evidence: Evidence) -> Iterator[Factor]:
    compared = array[evidence.index]
    for form, function in functions.items():
        values = function(compared)
        if np.isfinite(values).all() and np.ptp(values) > 0:
            yield form.replace("{}", name), values, partial(function, array)


def _broadcasts(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yields an array broadcast to a shape along its last axis, and a vector also along every other axis."""
    forms = [array]
    if array.ndim == 1 and len(shape) > 1:
        forms += [array.reshape(-1, *[1] * k) for k in range(1, len(shape))]
    for form in forms:
        try:
            yield np.broadcast_to(form, shape)
        except ValueError:
            continue


def _missing_or_extra(evidence: Evidence, tried: Iterator[Factor]) -> Iterator[Diagnosis]:
    """Yields the factor by which the claimed gradient has to be multiplied or divided."""
    is_dout = evidence.dout.shape == evidence.shape and evidence.matches_claimed(evidence.dout[evidence.index])
    prefix = "it is dout itself: " if is_dout else ""
    largest = np.abs(evidence.claimed).max()
    for name, values, make in tried:
        yield from evidence.test(
            Slip.MISSING_FACTOR,
            f"{prefix}the factor {name} is missing",
            evidence.claimed * values,
            partial(lambda make: evidence.whole * make(), make),
        )
        if not np.abs(evidence.true * values - evidence.claimed).max() <= evidence.relative * largest:
            continue
        usable = values != 0
        if (usable & evidence.wrong).sum() < 2:
            continue
        yield from evidence.test(
            Slip.EXTRA_FACTOR,
            f"the factor {name} is applied once too often",
            np.where(usable, evidence.claimed / np.where(usable, values, 1), evidence.true),
            (partial(lambda make: evidence.whole / make(), make)) if usable.all() else None,
        )


def _times_dout(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields `dout` times one array, where the true gradient is `dout` times another one."""
    dout = evidence.dout
    if dout.shape != evidence.shape and dout.size != 1:
        return
    whole = np.broadcast_to(dout.reshape(()) if dout.size == 1 else dout, evidence.shape)
    values = whole[evidence.index]
    right = next(_right_factors(evidence, whole, values), None)
    if dout.shape == evidence.shape and evidence.matches_claimed(values):
        sentence = "it is dout itself: the derivative of the layer"
        if right is not None:
            name, verified = right
            yield Diagnosis(
                Slip.DOUT_ITSELF, (f"dout times {name} is right",), f"{sentence}, {name}, is missing", verified
            )
        elif evidence.strong():
            yield Diagnosis(
                Slip.DOUT_ITSELF, (), f"{sentence} is missing", evidence.full or bool(evidence.inputs.probes)
            )
    elif right is not None:
        name, verified = right
        for other, factor, _ in factors(evidence):
            for sign, prefix in ((1, ""), (-1, "-")):
                if evidence.matches_claimed(sign * values * factor):
                    sentence = f"it is dout times {prefix}{other}, but should be dout times {name}"
                    yield Diagnosis(Slip.DERIVATIVE, (), sentence, verified)


def _right_factors(evidence: Evidence, whole: Array, values: Array) -> Iterator[tuple[str, bool]]:
    """Yields the factors by which `dout` has to be multiplied, and whether each was verified for all elements."""
    for name, factor, make in factors(evidence):
        for diagnosis in evidence.test(
            Slip.DERIVATIVE, "", values * factor, partial(lambda make: whole * make(), make)
        ):
            yield name, diagnosis.whole
