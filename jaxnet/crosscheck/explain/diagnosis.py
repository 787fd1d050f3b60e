"""The commonest slips, recognised: what the wrong gradient is, seen from the true one.

A diagnosis is a formula that turns the true gradient into the claimed one to all digits, and is one that people really
write. Several readings of one number are all named; where no formula fits, nothing is said.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect import Array, Leaves

DIGITS = 1e-6  # the true gradient may come from differences, good to some 1e-9
SHOWN = 5  # rows named one by one
# The cosine that still passes for orthogonal: an eps under the root leaves eps / (var + eps) over, a hundredth where
# the variance is 100 eps. It only says which terms there may be to miss; whether one is missing is told to six digits.
NEARLY = 0.01
REST = "the rest is right to six digits"


class DiagnosisInput(NamedTuple):
    """One leaf's gradient, claimed and true, and what a wrong formula may have made it from."""

    name: str
    claimed: Array
    true: Array
    leaves: Leaves
    dout: Array
    constants: dict[str, float]  # the layer's own numbers: a dropout rate, a stride, an eps
    integers: dict[str, Array]  # ids and labels
    batch: dict[str, Array]  # a network's samples


def diagnose(scene: DiagnosisInput) -> str:
    """What was probably written, in a clause; empty where no slip explains the whole error."""
    claimed, true = scene.claimed, scene.true
    if not (np.isfinite(true).all() and np.abs(true).max(initial=0) > 0) or _equal(claimed, true):
        return ""
    for clause in _slips(scene):
        return clause
    wrong = np.abs(claimed - true) > DIGITS * np.abs(true).max()
    if 0 < wrong.sum() <= true.size // 2:
        return f"{_where(wrong)} wrong, and {REST}"
    return ""


def _slips(scene: DiagnosisInput) -> Iterator[str]:
    claimed, true = scene.claimed, scene.true
    if not np.abs(claimed).max(initial=0) > 0:
        yield "it is zero everywhere"
    ratio = float(np.vdot(claimed, true) / np.vdot(true, true))
    if _equal(claimed, ratio * true):
        meanings = list(_meanings(ratio, scene))
        yield f"it equals the true gradient times {ratio:.7g}" + (f": {' or '.join(meanings)}" if meanings else "")
    if claimed.ndim >= 2:
        yield from _misplaced(claimed, true)
    yield from _wrong_reduction(scene)
    yield from _overwritten(scene)
    yield from _wrong_part(claimed, true)
    yield from _missing_factor(scene)
    if claimed.shape == scene.dout.shape and _equal(claimed, scene.dout):
        yield "it is dout itself: the derivative of the layer is missing"
    if scene.name in scene.leaves and claimed.ndim >= 2:
        yield from _missing_statistics(claimed, true, scene.leaves[scene.name])


def _meanings(ratio: float, scene: DiagnosisInput) -> Iterator[str]:
    """What a factor may be."""
    for number, meaning in {
        -1.0: "the sign is wrong",
        2.0: "a factor 2 too many, as of a square's derivative",
        0.5: "a factor 2 is missing, as of a square's derivative",
    }.items():
        if _is(ratio, number):
            yield meaning
    for name, number in scene.constants.items():
        probability = 0 < number < 1
        for value, text in {
            number: f"{name}, once too often",
            1 / number if number else 0.0: f"1 over {name}: {name} is missing",
            1 - number if probability else 0.0: f"1 - {name}, the keep probability, once too often or not divided by",
            1 / (1 - number) if probability else 0.0: f"1 over (1 - {name}), the keep probability",
        }.items():
            if value not in (0.0, 1.0, -1.0) and _is(ratio, value):
                yield text
    for n, what in _sizes(scene).items():
        for value, text in {
            float(n): f"{what}: a missing 1/N, a sum for a mean",
            1.0 / n: f"1 over {what}: a 1/N too many, a mean for a sum",
            math.sqrt(n): f"the square root of {what}: a missing 1/sqrt(d)",
            1 / math.sqrt(n): f"1 over the square root of {what}: a 1/sqrt(d) too many",
        }.items():
            if _is(ratio, value):
                yield text


def _sizes(scene: DiagnosisInput) -> dict[int, str]:
    """The sizes that a wrong mean may be over, and what they are called."""
    sizes: dict[int, list[str]] = {}
    for name, array in {**scene.leaves, **scene.batch, "dout": scene.dout}.items():
        for i in range(array.ndim):
            for j in range(i + 1, array.ndim + 1):
                batch = (i, j) == (0, 1) and array.ndim >= 2 and (name == "dout" or name[:1] == "x")
                what = "the batch size" if batch else f"the size of {name} along {_axes(tuple(range(i, j)))}"
                sizes.setdefault(math.prod(array.shape[i:j]), []).append(what)
    return {n: f"{n}, {_first(names)}" for n, names in sizes.items() if n > 1}


def _first(names: list[str]) -> str:
    """The batch size where it is one of several sizes that are alike, and one other at most."""
    ordered = sorted(dict.fromkeys(names), key=lambda name: name != "the batch size")
    return " or ".join(ordered[:2])


def _misplaced(claimed: Array, true: Array) -> Iterator[str]:
    """The right numbers in the wrong places."""
    swapped = true.swapaxes(-1, -2)
    if claimed.shape == swapped.shape and _equal(claimed, swapped):
        yield "it equals the true gradient transposed"
    if _equal(claimed, swapped.reshape(claimed.shape)) or _equal(swapped, claimed.reshape(swapped.shape)):
        yield "it holds the true gradient's numbers in the order of its transpose: a reshape where a transpose belongs"
    for axis in range(claimed.ndim):
        for other in range(axis + 1, claimed.ndim):
            exchanged = true.swapaxes(axis, other)
            if exchanged.shape == claimed.shape and _equal(claimed, exchanged):
                yield f"it equals the true gradient with axes {axis} and {other} exchanged: transposed"
        if _equal(claimed, np.flip(true, axis)):
            yield f"it equals the true gradient in reverse along axis {axis}"
    if claimed.ndim >= 3 and _equal(claimed, np.flip(true, (-1, -2))):
        yield "it equals the true gradient in reverse along its last two axes: a kernel that is not flipped"


def _wrong_reduction(scene: DiagnosisInput) -> Iterator[str]:
    """A gradient of what was broadcast is a sum over the axes that it was broadcast along, and over no others."""
    claimed, true, dout = scene.claimed, scene.true, scene.dout
    for axis in range(dout.ndim if claimed.ndim == 1 else 0):
        rest = tuple(a for a in range(dout.ndim) if a != axis)
        if rest and dout.shape[axis] == claimed.size and _equal(claimed, dout.sum(axis=rest)):
            others = [tuple(a for a in range(dout.ndim) if a != b) for b in range(dout.ndim) if b != axis]
            if any(dout.sum(axis=o).shape == true.shape and _equal(true, dout.sum(axis=o)) for o in others):
                yield f"it is dout summed over the wrong axis: over {_axes(rest)}"
            else:
                yield f"it is dout summed over {_axes(rest)}: what dout is to be multiplied by is missing"
    for axes in {*((a,) for a in range(claimed.ndim)), tuple(range(claimed.ndim))}:
        for what, reduced in {
            "sum": true.sum(axis=axes, keepdims=True),
            "mean": true.mean(axis=axes, keepdims=True),
        }.items():
            if true.size > reduced.size and _equal(claimed, np.broadcast_to(reduced, true.shape)):
                yield f"it is the true gradient's {what} over {_axes(axes)}, broadcast: summed over an axis too many"


def _overwritten(scene: DiagnosisInput) -> Iterator[str]:
    """A row that several ids share gets the sum of their gradients; assigning keeps the last one."""
    dout, claimed = scene.dout, scene.claimed
    for name, ids in scene.integers.items():
        if dout.shape[: ids.ndim] != ids.shape or claimed.shape[1:] != dout.shape[ids.ndim :]:
            continue
        if ids.size and ids.min() >= 0 and ids.max() < len(claimed):
            last = np.zeros_like(claimed)
            last[ids.ravel()] = dout.reshape(ids.size, *claimed.shape[1:])
            if _equal(claimed, last):
                yield f"duplicates are overwritten: rows that {name} names more than once keep the last gradient only"


def _wrong_part(claimed: Array, true: Array) -> Iterator[str]:
    """A mask, a row, a tap forgotten, or a factor in one part alone."""
    missing, extra = (claimed == 0) & (np.abs(true) > DIGITS * np.abs(true).max()), (claimed != 0) & (true == 0)
    if missing.any() and _equal(claimed[~missing], true[~missing], true):
        yield f"a part is missing: {_where(missing)} zero, and {REST}"
    tiny = (claimed != 0) & (np.abs(true) <= DIGITS * np.abs(true).max())
    if (extra.any() or tiny.any()) and _equal(claimed[~(extra | tiny)], true[~(extra | tiny)], true):
        where = _where(extra | tiny)
        should = "it should" if where.endswith(" is") else "they should"
        yield f"a mask is missing: {where} not zero as {should} be, and {REST}"
    wrong = np.abs(claimed - true) > DIGITS * np.abs(true).max()
    if 1 < wrong.sum() < true.size and np.vdot(true[wrong], true[wrong]) > 0:
        ratio = float(np.vdot(claimed[wrong], true[wrong]) / np.vdot(true[wrong], true[wrong]))
        if _equal(claimed[wrong], ratio * true[wrong], true):
            yield f"{_where(wrong)} the true gradient times {ratio:.7g}, and {REST}"


def _missing_factor(scene: DiagnosisInput) -> Iterator[str]:
    """A factor that is one of the arrays: gamma forgotten on the way to dx."""
    claimed, true = scene.claimed, scene.true
    for name, array in scene.leaves.items():
        for factor in _fitted(array, true.shape):
            if np.ptp(factor) > 0:
                if _equal(true, claimed * factor):
                    yield f"the factor {name} is missing"
                elif _equal(claimed, true * factor):
                    yield f"the factor {name} is there once too often"


def _fitted(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """An array broadcast to a shape: from its last axis, or as one number a channel."""
    columns = array.reshape(-1, *[1] * (len(shape) - 2)) if array.ndim == 1 and len(shape) > 2 else array
    for one in (array, columns):
        try:
            yield np.broadcast_to(one, shape)
        except ValueError:
            continue


def _missing_statistics(claimed: Array, true: Array, x: Array) -> Iterator[str]:
    """Normalisation: the terms that go through mean and variance are constant, and proportional to x - mean.

    They make the gradient orthogonal to a constant and (up to eps) to x - mean, so where the true one is not, there
    were no such terms to miss.
    """
    error, every = true - claimed, tuple(range(x.ndim))
    for axes in {(0,): 1, (x.ndim - 1,): 1, every[1:]: 1, (0, *every[2:]): 1}:
        if math.prod(x.shape[a] for a in axes) < 4 or x.size < 6:
            continue
        constant = error.mean(axis=axes, keepdims=True)
        centred = x - x.mean(axis=axes, keepdims=True)
        if not _orthogonal(true, centred, axes):
            if _orthogonal(true, x, axes) and _equal(error, _slope(error, x, axes) * x):
                yield f"the term through the mean square is missing or wrong: the error is as x along {_axes(axes)}"
        elif _orthogonal(true, np.ones_like(x), axes):
            if _equal(error, np.broadcast_to(constant, error.shape)):
                yield f"the term through the mean is missing or wrong: the error is constant along {_axes(axes)}"
            elif _equal(error, _slope(error, centred, axes) * centred):
                yield f"the term through the variance is missing or wrong: the error is as x - mean along {_axes(axes)}"
            elif _equal(error, constant + _slope(error, centred, axes) * centred):
                yield f"the terms through mean and variance are missing or wrong, along {_axes(axes)}"


def _slope(error: Array, centred: Array, axes: tuple[int, ...]) -> Array:
    squares = (centred**2).sum(axis=axes, keepdims=True)
    return (error * centred).sum(axis=axes, keepdims=True) / np.where(squares > 0, squares, 1.0)


def _orthogonal(true: Array, to: Array, axes: tuple[int, ...]) -> bool:
    """Up to what an eps under the root leaves over."""
    product = np.abs((true * to).sum(axis=axes))
    norms = np.sqrt((true**2).sum(axis=axes) * (to**2).sum(axis=axes))
    return bool((product <= NEARLY * norms).all())


def _where(mask: Array) -> str:
    """The rows or columns that a mask is made of, or how many elements; with the verb."""
    for axis, what in ((0, "row"), (1, "column")):
        if mask.ndim == 2 and mask.shape[1 - axis] > 1:
            lines = mask.all(axis=1 - axis)
            if lines.any() and np.array_equal(mask, np.broadcast_to(np.expand_dims(lines, 1 - axis), mask.shape)):
                which = ", ".join(map(str, np.flatnonzero(lines)[:SHOWN])) + (", ..." if lines.sum() > SHOWN else "")
                return f"{what} {which} is" if lines.sum() == 1 else f"{what}s {which} are"
    count = int(mask.sum())
    if count == 1:
        return f"element {[int(i) for i in np.argwhere(mask)[0]]} is"
    return f"{count:,} of {mask.size:,} elements are"


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def _is(ratio: float, value: float) -> bool:
    return math.isclose(ratio, value, rel_tol=DIGITS)


def _equal(one: Array, other: Array, scale: Any = None) -> bool:
    size = np.abs(other if scale is None else scale).max(initial=0)
    return bool(size > 0 and np.abs(one - other).max(initial=0) <= DIGITS * size)
