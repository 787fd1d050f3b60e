"""Memory: arrays that are overwritten, memory layouts that are misread, arrays that are handed out and still in use."""

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array, Instance, Leaves
from jaxnet.crosscheck.measure.base_call import SAFETY, BaseCall, Call, apart, distance, largest
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.form import as_double, effective_unit, is_floating, unit_roundoff

ELSE = 7.0  # what is written to an output that may still be in use


class Layout(Enum):
    """How an array lies in memory."""

    NOT_CONTIGUOUS = "not contiguous"
    FORTRAN = "Fortran"
    NEGATIVE_STRIDE = "negative stride"
    STRIDE_0 = "stride 0"
    READ_ONLY = "read-only"
    AS_BROUGHT = "as brought"


OF_DOUT = {
    Layout.NOT_CONTIGUOUS: Behaviour.NOT_CONTIGUOUS_DOUT,
    Layout.FORTRAN: Behaviour.FORTRAN_DOUT,
    Layout.NEGATIVE_STRIDE: Behaviour.NEGATIVE_STRIDE_DOUT,
    Layout.STRIDE_0: Behaviour.STRIDE_0_DOUT,
    Layout.READ_ONLY: Behaviour.READ_ONLY_DOUT,
}
OF_INPUTS = {
    Layout.NOT_CONTIGUOUS: Behaviour.NOT_CONTIGUOUS_INPUT,
    Layout.FORTRAN: Behaviour.FORTRAN_INPUT,
    Layout.NEGATIVE_STRIDE: Behaviour.NEGATIVE_STRIDE_INPUT,
    Layout.STRIDE_0: Behaviour.STRIDE_0_INPUT,
    Layout.READ_ONLY: Behaviour.READ_ONLY_INPUT,
    Layout.AS_BROUGHT: Behaviour.INPUT_AS_BROUGHT,
}
NOT_IN_TORCH = (Layout.NEGATIVE_STRIDE, Layout.READ_ONLY)


def overwriting(base: BaseCall) -> list[Finding]:
    """Finds the arrays of the caller that forward and backward write to: inputs, parameters, `dout`."""
    opened = base.open(base.checkable.leaves)
    before = {name: array.copy() for name, array in opened.arrays.items()}
    opened.forward()
    after_forward = {name: array.copy() for name, array in opened.arrays.items()}
    given = base.dout.copy()
    opened.backward_as_given(*opened.outputs.unpack(given))
    found = [Finding(Behaviour.FORWARD_OVERWRITES, Level.FAULT, n) for n in _changed(before, after_forward)]
    if distance(given, base.dout) > 0:
        found.append(Finding(Behaviour.OVERWRITES_DOUT, Level.FAULT))
    known = {finding.leaf for finding in found}
    by_backward = [name for name in _changed(after_forward, opened.arrays) if name not in known]
    return found + [Finding(Behaviour.BACKWARD_OVERWRITES, Level.FAULT, name) for name in by_backward]


def dout_layouts(base: BaseCall) -> list[Finding]:
    """Hands over the same `dout` in other memory layouts: the gradient must be the same up to rounding."""
    found = []
    values_of = {layout: [base.dout] for layout in OF_DOUT} | {Layout.STRIDE_0: _expandable(base.dout)}
    skipped = NOT_IN_TORCH if base.by_torch else ()
    for layout, values in [(key, each) for key, several in values_of.items() for each in several if key not in skipped]:
        kind = OF_DOUT[layout]
        expected = base.gradient
        if layout is Layout.STRIDE_0:
            expected = base.call(base.open(), values).gradient
        opened = base.open()
        opened.forward()
        douts = [laid_out(np.asarray(part), layout) for part in opened.outputs.unpack(values)]
        if all(part is None for part in douts):
            continue
        handed = tuple(
            part if laid is None else laid for part, laid in zip(opened.outputs.unpack(values), douts, strict=True)
        )

        def run(opened: Instance = opened, handed: tuple[Array, ...] = handed) -> dict[str, Array]:
            return base.copied(opened.backward_as_given(*handed))

        found += _compared(base, kind, run, expected)
    return found


def input_layouts(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Hands over the same inputs in other memory layouts: output and gradient must be the same up to rounding."""
    found: list[Finding] = []
    if not base.inputs:
        return found
    for layout, kind in OF_INPUTS.items():
        if base.by_torch and layout in NOT_IN_TORCH:
            continue
        point = Point(base.leaves, Call(base.output, base.gradient), {})
        if layout is Layout.STRIDE_0:
            constant = _constant_point(base, rng)
            if constant is None:
                continue
            point = constant
        laid = {n: laid_out(point.leaves[n], layout, base.checkable.leaves[n]) for n in base.inputs}
        changed = {name: array for name, array in laid.items() if array is not None}
        if not changed:
            continue
        copies = {name: array.copy() for name, array in point.leaves.items() if name not in changed}

        def run(handed: Leaves = copies | changed, expected: Array = point.call.output) -> dict[str, Array]:
            call = base.call(base.checkable.open(handed))
            if (gap := distance(call.output, expected)) > _coarse(base, expected) * largest(
                expected
            ) + SAFETY * base.output_spread:
                raise _OtherOutput(gap)
            return call.gradient

        found += _compared(base, kind, run, point.call.gradient, point.moved)
    return found


class Point(NamedTuple):
    """Leaves, what a call gives there, and how far each gradient moves with the last places of the leaves."""

    leaves: Leaves
    call: Call
    moved: dict[str, float]


def _constant_point(base: BaseCall, rng: np.random.Generator) -> Point | None:
    """Inputs whose elements are all the same; None where there the last places of the leaves decide on the output.

    So it is for a variance of constant inputs, or a matrix of them that is inverted.
    """
    inputs = {n: _constant(base.leaves[n]) for n in base.inputs if base.leaves[n].size > 1}
    nudged = {n: a * (1 + 2 * unit_roundoff(a.dtype) * rng.choice([-1, 1], a.shape)) for n, a in inputs.items()}
    try:
        call = base.call(base.open(base.leaves | inputs))
        other = base.call(base.open(base.leaves | {n: a.astype(inputs[n].dtype) for n, a in nudged.items()}))
    except Exception:
        return None
    if not np.isfinite(as_double(call.output)).all():
        return None
    if distance(call.output, other.output) > _coarse(base, call.output) * largest(call.output):
        return None
    moved = {name: distance(call.gradient.get(name), other.gradient.get(name)) for name in base.names}
    return Point(base.leaves | inputs, call, moved)


def _coarse(base: BaseCall, values: Array) -> float:
    """A relative difference that rounding does not make: what is read from the wrong place is off by more."""
    return math.sqrt(max(base.unit, effective_unit(values)))


def lends_its_cache(base: BaseCall) -> list[Finding]:
    """Finds an output that backward still reads, so that writing to it changes the gradient: right, and a risk."""
    opened = base.open()
    y = opened.forward()
    arrays = getattr(opened.outputs, "arrays", None) or [y]
    own = [
        array
        for array in arrays
        if isinstance(array, np.ndarray) and is_floating(array.dtype) and array.ndim and array.flags.writeable
    ]
    if not own or any(np.shares_memory(array, other) for array in own for other in opened.arrays.values()):
        return []
    for array in own:
        array[...] = ELSE
    try:
        changed = bool(base.differing(base.copied(opened.backward(base.dout))))
    except Exception:
        changed = True
    return [Finding(Behaviour.LENDS_CACHE, Level.WARNING)] if changed else []


def laid_out(array: Array, layout: Layout, brought: Array | None = None) -> Array | None:
    """Returns an equal array in a memory layout, or None where the layout is no other than a contiguous one.

    Args:
        array: The values. For STRIDE_0 all must be equal, or all rows.
        layout: The memory layout.
        brought: An array whose order of axes AS_BROUGHT takes over.
    """
    if array.size < 2:
        return None
    if layout is Layout.NOT_CONTIGUOUS:
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), _gap(array.dtype), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout is Layout.FORTRAN:
        laid = np.array(array.T, order="C").T
        return None if laid.flags.c_contiguous else laid
    if layout is Layout.NEGATIVE_STRIDE:
        return np.flip(np.flip(array).copy())
    if layout is Layout.STRIDE_0:
        alike = array.ndim > 1 and not (array == array.reshape(-1)[0]).all()
        first = np.array(array[:1] if alike else array.reshape(-1)[:1])  # one row, or one number, for all
        strides = (0, *first.strides[1:]) if alike else (0,) * array.ndim
        return np.ndarray(array.shape, array.dtype, first, strides=strides)
    if layout is Layout.READ_ONLY:
        laid = array.copy()
        laid.flags.writeable = False
        return laid
    if brought is None or brought.flags.c_contiguous:
        return None
    laid = np.empty_like(brought, dtype=array.dtype, order="K", subok=False)
    laid[...] = array
    return laid


def _expandable(dout: Array) -> list[Array]:
    """Returns values of `dout` as they come of broadcasting: all ones, and, where it has rows, all rows the same."""
    rows = [np.broadcast_to(dout[:1], dout.shape).copy()] if dout.ndim > 1 and len(dout) > 1 else []
    return [np.ones_like(dout), *rows]


class _OtherOutput(Exception):
    """The output is another in another memory layout."""

    def __init__(self, gap: float) -> None:
        self.gap = gap


def _compared(
    base: BaseCall,
    kind: Behaviour,
    run: Callable[[], dict[str, Array]],
    expected: Mapping[str, Array],
    moved: Mapping[str, float] | None = None,
) -> list[Finding]:
    """A fault where the gradient is another, a warning where the layout is refused with an exception.

    Code that reads the wrong elements is far off. NumPy's power and exponential round otherwise where an array is not
    contiguous, and a steep function makes more of it than rounding alone.
    """
    try:
        gradient = run()
    except _OtherOutput as other:
        return [Finding(kind, Level.FAULT, size=other.gap, detail="forward")]
    except Exception as error:
        return [Finding(kind, Level.WARNING, detail=f"{type(error).__name__}: {error}")]
    slack = moved or {}
    differing = [
        (name, gap)
        for name, gap in base.differing(gradient, expected).items()
        if not gap <= SAFETY * slack.get(name, 0.0) and apart(gradient.get(name), expected.get(name))
    ]
    return [Finding(kind, Level.FAULT, name, gap, "backward") for name, gap in differing[:1]]


def _changed(before: Leaves, after: Leaves) -> list[str]:
    return [name for name, array in after.items() if _differs(array, before[name])]


def _differs(array: Array, before: Array) -> bool:
    return not np.array_equal(array, before, equal_nan=array.dtype.kind in "fc")


def _gap(dtype: np.dtype[Any]) -> Any:
    """What stands between the elements, so that a gradient that reads it is wrong: nan."""
    return np.nan if is_floating(dtype) else 0


def _constant(array: Array) -> Array:
    """All elements equal to the first that is not 0."""
    values = array.reshape(-1)
    return np.full_like(array, values[int(np.argmax(values != 0))])
