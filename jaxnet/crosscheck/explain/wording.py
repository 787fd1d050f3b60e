"""Names for places and sizes: rows, samples, the batch size."""

import math

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Evidence

SHOWN = 5  # lines named one by one


def number(value: float, evidence: Evidence, slack: float | None = None) -> str:
    """Returns a fitted number with as few digits as say it to the accuracy of the comparison.

    Args:
        value: The number.
        evidence: What it was fitted to.
        slack: How far it may be rounded, absolute; the relative tolerance of the comparison by default.
    """
    slack = evidence.relative * abs(value) if slack is None else slack
    for digits in range(1, 8):
        text = f"{value:.{digits}g}"
        if abs(float(text) - value) <= slack:
            return f"{float(text):.7g}"
    return f"{value:.7g}"


def rest_is_right(evidence: Evidence) -> str:
    """Returns how right what is not named is, and how much of it was compared."""
    some = "" if evidence.full else f" at the {evidence.places.size} elements compared"
    return f"the rest is right to {_power(evidence.relative)}{some}"


def _power(value: float) -> str:
    return f"1e{math.ceil(math.log10(value) - 1e-9)}"


def axes_in_words(axes: tuple[int, ...]) -> str:
    """Returns "axis 0" or "axes 0, 1"."""
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def is_batched(evidence: Evidence) -> bool:
    """Returns whether the first axis of the leaf is that of the samples."""
    shape, dout = evidence.shape, evidence.dout.shape
    if evidence.given.leaf.rpartition(".")[2][:1].isupper():
        return False
    return len(shape) > 1 and len(dout) > 0 and shape[0] == dout[0]


def line_of(axis: int, evidence: Evidence) -> str:
    """Returns what one index along an axis is called."""
    ndim = len(evidence.shape)
    if ndim == 2:
        return ("row", "column")[axis]
    if is_batched(evidence) and ndim > 2:
        if axis == 0:
            return "sample"
        if ndim == 4 and axis == 1:
            return "channel or head"
    return f"index along axis {axis}:" if ndim > 1 else "element"


def where(wrong: Array, evidence: Evidence) -> str:
    """Returns which of the measured elements some are, with the verb.

    Args:
        wrong: Their flat places, some of `evidence.places`.
        evidence: What was measured.
    """
    index = np.unravel_index(wrong, evidence.shape)
    for axis in range(len(evidence.shape) if len(evidence.shape) > 1 else 0):
        lines = _lines(axis, index[axis], wrong.size, evidence)
        if lines is not None:
            return _named(lines, axis, evidence)
    if wrong.size == 1:
        return f"element {[int(i[0]) for i in index]} is"
    if len(evidence.shape) == 1 and (end := _end(wrong, evidence.shape[0])) and evidence.full:
        return f"the {end} {wrong.size} elements are"
    measured = f"{evidence.places.size:,}" + ("" if evidence.full else " compared")
    return f"{wrong.size:,} of {measured} elements are"


def in_a_block(wrong: Array, evidence: Evidence) -> bool:
    """Returns whether some measured elements are whole lines of the leaf, or one stretch of its memory."""
    index = np.unravel_index(wrong, evidence.shape)
    if any(_lines(axis, index[axis], wrong.size, evidence) is not None for axis in range(len(evidence.shape))):
        return True
    return bool(((evidence.places >= wrong[0]) & (evidence.places <= wrong[-1])).sum() == wrong.size)


def _lines(axis: int, index: Array, count: int, evidence: Evidence) -> Array | None:
    """Returns the indices along an axis whose measured elements are all wrong, if these are all that is wrong."""
    length = evidence.shape[axis]
    if math.prod(evidence.shape) == length:
        return None
    lines = np.unique(index)
    along = np.unravel_index(evidence.places, evidence.shape)[axis]
    if lines.size == np.unique(along).size or np.isin(along, lines).sum() != count:
        return None
    if not evidence.full and min(np.bincount(index, minlength=length)[lines]) < 2:
        return None
    return lines


def _named(lines: Array, axis: int, evidence: Evidence) -> str:
    what = line_of(axis, evidence)
    which = ", ".join(map(str, lines[:SHOWN])) + (", ..." if lines.size > SHOWN else "")
    if lines.size == 1:
        return f"{what} {which} is"
    plural = what if what.endswith(":") else "channels or heads" if "head" in what else f"{what}s"
    end = _end(lines, evidence.shape[axis])
    return f"{plural} {which}, the {end} {lines.size}, are" if end else f"{plural} {which} are"


def _end(lines: Array, length: int) -> str:
    """Returns at which end of an axis the indices lie, if they are consecutive and at one."""
    if lines.size < 2 or lines[-1] - lines[0] != lines.size - 1:
        return ""
    return "first" if lines[0] == 0 else "last" if lines[-1] == length - 1 else ""


def sizes(evidence: Evidence) -> dict[int, str]:
    """Returns the sizes that a wrong mean may be over, and what they are called."""
    found: dict[int, list[str]] = {}
    for name, array in {**evidence.leaves, "dout": evidence.dout}.items():
        for i in range(array.ndim):
            for j in range(i + 1, array.ndim + 1):
                batch = (i, j) == (0, 1) and array.ndim >= 2 and (name == "dout" or name[:1] == "x")
                what = "the batch size" if batch else f"the size of {name} along {axes_in_words(tuple(range(i, j)))}"
                found.setdefault(math.prod(array.shape[i:j]), []).append(what)
    for name, array in evidence.given.integers.items():
        if np.ndim(array) == 1:
            found.setdefault(len(array), []).append(f"the number of {name}")
    return {n: f"{n}, {_first(names)}" for n, names in found.items() if n > 1}


def _first(names: list[str]) -> str:
    """Returns the batch size where it is one of several sizes that are alike, and one other at most."""
    ordered = sorted(dict.fromkeys(names), key=lambda name: name != "the batch size")
    return " or ".join(ordered[:2])
