"""Checks for arguments that are overwritten, memory layouts that are misread, and returned arrays still in use."""

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.dtypes import as_double, effective_unit, is_float_dtype, unit_roundoff
from jaxnet.crosscheck.inspect.checkable import Array, Instance, Leaves
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.inspect.global_state import other_random_numbers
from jaxnet.crosscheck.measure.base_call import ROUNDING_SAFETY, BaseCall, Call, apart, distance, largest
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level

OVERWRITING_VALUE = 7.0  # written to an output that may still be in use


class Layout(Enum):
    """The memory layout of an array."""

    NOT_CONTIGUOUS = "not contiguous"
    FORTRAN = "Fortran"
    NEGATIVE_STRIDE = "negative stride"
    STRIDE_0 = "stride 0"
    READ_ONLY = "read-only"
    AS_PASSED = "as passed"


DOUT_BEHAVIOURS: dict[Layout, Behaviour] = {
    layout: Behaviour[f"{layout.name}_DOUT"] for layout in Layout if layout is not Layout.AS_PASSED
}
INPUT_BEHAVIOURS = {layout: Behaviour[f"{layout.name}_INPUT"] for layout in DOUT_BEHAVIOURS}
INPUT_BEHAVIOURS[Layout.AS_PASSED] = Behaviour.INPUT_AS_PASSED
NON_TORCH_LAYOUTS = (Layout.NEGATIVE_STRIDE, Layout.READ_ONLY)


def overwriting(base: BaseCall) -> list[Finding]:
    """Finds the arrays of the caller that forward and backward write to, and parameters that backward replaces."""
    opened = base.open(base.checkable.leaves)
    before = {name: array.copy() for name, array in opened.arrays.items()}
    opened.forward()
    after_forward = {name: array.copy() for name, array in opened.arrays.items()}
    dout = base.dout.copy()
    opened.backward_as_given(*opened.outputs.unpack(dout))
    findings = [Finding(Behaviour.FORWARD_OVERWRITES, Level.FAULT, n) for n in _changed(before, after_forward)]
    if distance(dout, base.dout) > 0:
        findings.append(Finding(Behaviour.OVERWRITES_DOUT, Level.FAULT))
    known = {finding.leaf for finding in findings}
    by_backward = [name for name in _changed(after_forward, opened.arrays) if name not in known]
    findings += [Finding(Behaviour.BACKWARD_OVERWRITES, Level.FAULT, name) for name in by_backward]
    if (replaced := opened.replaced()) and not base.same_output(np.array(opened.forward())):
        findings.append(Finding(Behaviour.REPLACES_PARAMETER, Level.WARNING, " and ".join(replaced)))
    return findings


def dout_layouts(base: BaseCall) -> list[Finding]:
    """Passes the same `dout` in other memory layouts: the gradient must be the same up to rounding."""
    findings: list[Finding] = []
    values_of = {layout: [base.dout] for layout in DOUT_BEHAVIOURS} | {Layout.STRIDE_0: _expandable(base.dout)}
    skipped = NON_TORCH_LAYOUTS if base.by_torch else ()
    for layout, values in [(key, each) for key, several in values_of.items() for each in several if key not in skipped]:
        kind = DOUT_BEHAVIOURS[layout]
        expected = base.gradient
        if layout is Layout.STRIDE_0:
            expected = base.call(base.open(), values).gradient
        opened = base.open()
        opened.forward()
        douts = [_laid_out_alike(np.asarray(part), layout) for part in opened.outputs.unpack(values)]
        if all(part is None for part in douts):
            continue
        arguments = tuple(
            part if laid is None else laid for part, laid in zip(opened.outputs.unpack(values), douts, strict=True)
        )

        def run(opened: Instance = opened, arguments: tuple[Array, ...] = arguments) -> dict[str, Array]:
            return base.copied(opened.backward_as_given(*arguments))

        findings += _compared(base, kind, run, expected)
    return findings


def input_layouts(base: BaseCall, rng: np.random.Generator) -> list[Finding]:
    """Passes the same inputs in other memory layouts: output and gradient must be the same up to rounding."""
    findings: list[Finding] = []
    if not base.inputs or (base.by_torch and _draws_numbers(base)):
        return findings  # PyTorch fills an array with random numbers in the order of its memory
    for layout, kind in INPUT_BEHAVIOURS.items():
        if base.by_torch and layout in NON_TORCH_LAYOUTS:
            continue
        point = CallPoint(base.leaves, Call(base.output, base.gradient), {})
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

        def run(leaves: Leaves = copies | changed, expected: Array = point.call.output) -> dict[str, Array]:
            call = base.call(base.checkable.open(leaves))
            gap, spread = distance(call.output, expected), ROUNDING_SAFETY * base.output_spread
            if gap > _min_misread_error(base, expected) * largest(expected) + spread:
                raise _OtherOutput(gap)
            return call.gradient

        findings += _compared(base, kind, run, point.call.gradient, point.moved)
    return findings


def _draws_numbers(base: BaseCall) -> bool:
    """Returns whether the output depends on random numbers of the global generators."""
    with other_random_numbers():
        return not base.same_output(base.call(base.open()).output)


class CallPoint(NamedTuple):
    """Leaves, the call at them, and the change of each gradient if the leaves change in their last places."""

    leaves: Leaves
    call: Call
    moved: dict[str, float]


def _constant_point(base: BaseCall, rng: np.random.Generator) -> CallPoint | None:
    """Returns a point with constant inputs, or None if the output there is dominated by rounding.

    Examples are the variance of constant inputs, and the inverse of a constant matrix.
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
    if distance(call.output, other.output) > _min_misread_error(base, call.output) * largest(call.output):
        return None
    moved = {name: distance(call.gradient.get(name), other.gradient.get(name)) for name in base.names}
    return CallPoint(base.leaves | inputs, call, moved)


def _min_misread_error(base: BaseCall, values: Array) -> float:
    """Returns the smallest relative error of elements read from the wrong place; rounding errors are smaller."""
    return math.sqrt(max(base.unit, effective_unit(values)))


def lends_its_cache(base: BaseCall) -> list[Finding]:
    """Finds an output that backward still reads: correct, but a caller that writes to it changes the gradient."""
    opened = base.open()
    opened.forward()
    own = [array for array in opened.outputs.arrays if array.ndim and array.flags.writeable]
    if not own or any(np.shares_memory(array, other) for array in own for other in opened.arrays.values()):
        return []
    for array in own:
        array[...] = OVERWRITING_VALUE
    try:
        changed = bool(base.differing(base.copied(opened.backward(base.dout))))
    except Exception:
        changed = True
    return [Finding(Behaviour.LENDS_CACHE, Level.WARNING)] if changed else []


def laid_out(array: Array, layout: Layout, passed: Array | None = None) -> Array | None:
    """Returns an equal array in a memory layout, or None if that is the contiguous layout.

    Args:
        array: The values. For STRIDE_0, all elements or all rows must be equal.
        layout: The memory layout.
        passed: The array whose memory order AS_PASSED copies.
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
        first = np.array(array[:1] if alike else array.reshape(-1)[:1])  # the only row or number in memory
        strides = (0, *first.strides[1:]) if alike else (0,) * array.ndim
        return np.ndarray(array.shape, array.dtype, first, strides=strides)
    if layout is Layout.READ_ONLY:
        laid = array.copy()
        laid.flags.writeable = False
        return laid
    if passed is None or passed.flags.c_contiguous:
        return None
    laid = np.empty_like(passed, dtype=array.dtype, order="K", subok=False)
    laid[...] = array
    return laid


def _laid_out_alike(dout: Array, layout: Layout) -> Array | None:
    """Returns `dout` in another layout; None if that has other values, as if only rows of its real part are equal."""
    laid = laid_out(dout, layout)
    return laid if laid is None or np.array_equal(laid, dout, equal_nan=True) else None


def _expandable(dout: Array) -> list[Array]:
    """Returns values of `dout` that broadcasting produces: all ones, and, if it has several rows, equal rows."""
    rows = [np.broadcast_to(dout[:1], dout.shape).copy()] if dout.ndim > 1 and len(dout) > 1 else []
    return [np.ones_like(dout), *rows]


class _OtherOutput(Exception):
    """Raised if the output differs in another memory layout."""

    def __init__(self, gap: float) -> None:
        self.gap = gap


def _compared(
    base: BaseCall,
    kind: Behaviour,
    run: Callable[[], dict[str, Array]],
    expected: Mapping[str, Array],
    moved: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Returns a fault if the gradient differs, or a warning if the layout is rejected with an exception.

    Only large differences count. NumPy's power and exponential round differently if an array is not contiguous, and a
    steep function amplifies that.
    """
    try:
        gradient = run()
    except _OtherOutput as other:
        return [Finding(kind, Level.FAULT, size=other.gap, detail="forward")]
    except Exception as error:
        # y.sum().backward() passes such a dout, so every caller of PyTorch code may
        is_usual = base.by_torch and kind is Behaviour.STRIDE_0_DOUT
        return [Finding(kind, Level.FAULT if is_usual else Level.WARNING, detail=describe(error))]
    slack = moved or {}
    differing = [
        (name, gap)
        for name, gap in base.differing(gradient, expected).items()
        if not gap <= ROUNDING_SAFETY * slack.get(name, 0.0) and apart(gradient.get(name), expected.get(name))
    ]
    return [Finding(kind, Level.FAULT, name, gap, "backward") for name, gap in differing[:1]]


def _changed(before: Leaves, after: Leaves) -> list[str]:
    return [name for name, array in after.items() if _differs(array, before[name])]


def _differs(array: Array, before: Array) -> bool:
    return not np.array_equal(array, before, equal_nan=array.dtype.kind in "fc")


def _gap(dtype: np.dtype[Any]) -> Any:
    """Returns the value between the elements: nan, so that a gradient that reads it is wrong."""
    return np.nan if is_float_dtype(dtype) or dtype.kind == "c" else 0


def _constant(array: Array) -> Array:
    """Returns an array with all elements equal to the first one that is not 0."""
    values = array.reshape(-1)
    return np.full_like(array, values[int(np.argmax(values != 0))])
