"""A factor that is an array: gamma, x, the output, the derivative of an activation."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Slip

ROOT = math.sqrt(2 / math.pi)
Function = Callable[[Array], Array]
Factor = tuple[str, Array, Callable[[], Array]]  # its name, at the compared elements, and what makes the whole


def sigmoid(x: Array) -> Array:
    """Returns 1 / (1 + exp(-x))."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def _normal(x: Array) -> Array:
    """Returns the normal distribution function."""
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
    """Yields the array that is missing as a factor, or there once too often, or the derivative that is another."""
    with np.errstate(all="ignore"):
        for find in (_plain_factor, _of_dout, _any_factor):
            found = next(find(evidence), None)
            if found is not None:
                yield found
                return


def factors(evidence: Evidence) -> Iterator[Factor]:
    """Yields the arrays that a gradient may be multiplied by, and functions of them."""
    if evidence.output.shape == evidence.shape:
        yield from _functions("y", evidence.output, OF_OUTPUT, evidence)
    for name, array in evidence.leaves.items():
        functions = OF_INPUT if array.shape == evidence.shape else OF_OTHER
        for fitted in fitted_to(array, evidence.shape):
            yield from _functions(name, fitted, functions, evidence)


def _functions(name: str, array: Array, functions: dict[str, Function], evidence: Evidence) -> Iterator[Factor]:
    compared = array[evidence.index]
    for form, function in functions.items():
        values = function(compared)
        if np.isfinite(values).all() and np.ptp(values) > 0:
            yield form.replace("{}", name), values, partial(function, array)


def fitted_to(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yields an array broadcast to a shape: from its last axis, or as one number a channel."""
    forms = [array]
    if array.ndim == 1 and len(shape) > 1:
        forms += [array.reshape(-1, *[1] * k) for k in range(1, len(shape))]
    for form in forms:
        try:
            yield np.broadcast_to(form, shape)
        except ValueError:
            continue


def _plain_factor(evidence: Evidence) -> Iterator[Diagnosis]:
    """A leaf is missing as a factor, or there once too often."""
    plain = {name for name in evidence.leaves if name != "output"}
    yield from _factor(evidence, (factor for factor in factors(evidence) if factor[0] in plain))


def _any_factor(evidence: Evidence) -> Iterator[Diagnosis]:
    """A function of a leaf or of the output is missing as a factor, or there once too often."""
    yield from _factor(evidence, factors(evidence))


def _factor(evidence: Evidence, tried: Iterator[Factor]) -> Iterator[Diagnosis]:
    """The true gradient is the claimed one times an array, or over it."""
    itself = evidence.dout.shape == evidence.shape and evidence.matches_claimed(evidence.dout[evidence.index])
    prefix = "it is dout itself: " if itself else ""
    largest = np.abs(evidence.claimed).max()
    for name, values, make in tried:
        found = evidence.found(
            Slip.MISSING_FACTOR,
            f"{prefix}the factor {name} is missing",
            evidence.claimed * values,
            partial(lambda make: evidence.whole * make(), make),
        )
        if found is not None:
            yield found
        if not np.abs(evidence.true * values - evidence.claimed).max() <= evidence.relative * largest:
            continue
        usable = values != 0
        if (usable & evidence.wrong).sum() < 2:
            continue
        found = evidence.found(
            Slip.EXTRA_FACTOR,
            f"the factor {name} is there once too often",
            np.where(usable, evidence.claimed / np.where(usable, values, 1), evidence.true),
            (partial(lambda make: evidence.whole / make(), make)) if usable.all() else None,
        )
        if found is not None:
            yield found


def _of_dout(evidence: Evidence) -> Iterator[Diagnosis]:
    """It is `dout` times one array, where `dout` times another belongs."""
    dout = evidence.dout
    if dout.shape != evidence.shape and dout.size != 1:
        return
    whole = np.broadcast_to(dout.reshape(()) if dout.size == 1 else dout, evidence.shape)
    values = whole[evidence.index]
    itself = dout.shape == evidence.shape and evidence.matches_claimed(values)
    right = list(itertools.islice(_right(evidence, whole, values), 1))
    if itself:
        sentence = "it is dout itself: the derivative of the layer is missing"
        for name, found in right:
            yield Diagnosis(Slip.DOUT_ITSELF, (f"dout times {name} is right",), f"{sentence}, {name}", found.whole)
            return
        if evidence.strong():
            yield Diagnosis(Slip.DOUT_ITSELF, (), sentence, evidence.full or bool(evidence.given.probes))
        return
    if not right:
        return
    for name, made, _ in factors(evidence):
        for sign, prefix in ((1, ""), (-1, "-")):
            if evidence.matches_claimed(sign * values * made):
                for true_name, found in right:
                    sentence = f"it is dout times {prefix}{name}, where dout times {true_name} belongs"
                    yield Diagnosis(Slip.DERIVATIVE, (), sentence, found.whole)
                return


def _right(evidence: Evidence, whole: Array, values: Array) -> Iterator[tuple[str, Diagnosis]]:
    """Yields the factors that `dout` is right with."""
    for name, made, make in factors(evidence):
        found = evidence.found(Slip.DERIVATIVE, "", values * made, partial(lambda make: whole * make(), make))
        if found is not None:
            yield name, found
