"""Puts numbers, places, axes and sizes into words for diagnoses."""

import math

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.slips import Array
from jaxnet.crosscheck.inspect.errors import counted

SHOWN = 5  # the most indices listed in a sentence


def number(value: float, evidence: Evidence, slack: float | None = None) -> str:
    """Formats a fitted number with as few digits as the accuracy of the comparison supports.

    Args:
        value: The number.
        evidence: The measurements that it was fitted to.
        slack: The largest rounding error, absolute. Defaults to the relative tolerance of the comparison.
    """
    slack = evidence.relative * abs(value) if slack is None else slack
    for digits in range(1, 8):
        text = f"{value:.{digits}g}"
        if abs(float(text) - value) <= slack:
            return f"{float(text):.7g}"
    return f"{value:.7g}"


def rest_is_right(evidence: Evidence) -> str:
    """Returns a clause on the accuracy of all other elements, and on how many were compared."""
    compared = "" if evidence.full else f" at the {counted(evidence.places.size, 'element')} compared"
    power = math.ceil(math.log10(evidence.relative) - 1e-9)
    return f"the rest is right to 1e{power}{compared}"


def axes_in_words(axes: tuple[int, ...]) -> str:
    """Returns "axis 0" or "axes 0, 1"."""
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def listed(indices: Array) -> str:
    """Returns "0, 1, 2", cut short after a few indices."""
    return ", ".join(map(str, indices[:SHOWN])) + (", ..." if len(indices) > SHOWN else "")


def is_batched(evidence: Evidence) -> bool:
    """Returns whether the first axis of the leaf is the batch axis."""
    shape, dout = evidence.shape, evidence.dout.shape
    if evidence.inputs.leaf.rpartition(".")[2][:1].isupper():
        return False
    return len(shape) > 1 and len(dout) > 0 and shape[0] == dout[0]


def line_of(axis: int, evidence: Evidence) -> str:
    """Returns the name of one index along an axis, such as "row"."""
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
    """Returns the places of some measured elements, followed by "is" or "are".

    Args:
        wrong: The flat indices of the elements, some of `evidence.places`.
        evidence: The measurements.
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
    """Returns whether some measured elements are whole rows or the like, or are consecutive in memory."""
    index = np.unravel_index(wrong, evidence.shape)
    if any(_lines(axis, index[axis], wrong.size, evidence) is not None for axis in range(len(evidence.shape))):
        return True
    return bool(((evidence.places >= wrong[0]) & (evidence.places <= wrong[-1])).sum() == wrong.size)


def _lines(axis: int, index: Array, count: int, evidence: Evidence) -> Array | None:
    """Returns the indices along an axis where all measured elements are wrong, or None if others are wrong too."""
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
    name = line_of(axis, evidence)
    if lines.size == 1:
        return f"{name} {lines[0]} is"
    plural = name if name.endswith(":") else "channels or heads" if "head" in name else f"{name}s"
    end = _end(lines, evidence.shape[axis])
    return f"{plural} {listed(lines)}, the {end} {lines.size}, are" if end else f"{plural} {listed(lines)} are"


def _end(lines: Array, length: int) -> str:
    """Returns "first" or "last" for consecutive indices at one end of an axis, otherwise ""."""
    if lines.size < 2 or lines[-1] - lines[0] != lines.size - 1:
        return ""
    return "first" if lines[0] == 0 else "last" if lines[-1] == length - 1 else ""


def sizes(evidence: Evidence) -> dict[int, str]:
    """Returns the sizes that a wrong mean may divide by, each with its name."""
    names: dict[int, list[str]] = {}
    dout = evidence.dout[..., 0] if evidence.inputs.has_complex_output else evidence.dout
    for name, array in {**evidence.leaves, "dout": dout}.items():
        for i in range(array.ndim):
            for j in range(i + 1, array.ndim + 1):
                is_batch = (i, j) == (0, 1) and array.ndim >= 2 and (name == "dout" or name[:1] == "x")
                along = axes_in_words(tuple(range(i, j)))
                text = "the batch size" if is_batch else f"the size of {name} along {along}"
                names.setdefault(math.prod(array.shape[i:j]), []).append(text)
    for name, array in evidence.inputs.integers.items():
        if np.ndim(array) == 1:
            names.setdefault(len(array), []).append(f"the number of {name}")
    return {n: f"{n} ({_first(texts)})" for n, texts in names.items() if n > 1}


def _first(names: list[str]) -> str:
    """Returns at most two names of a size, the batch size first."""
    ordered = sorted(dict.fromkeys(names), key=lambda name: name != "the batch size")
    return " or ".join(ordered[:2])
