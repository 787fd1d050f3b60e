"""Checks one layer, network or function after it has been inspected: measures, decides, and explains.

The forward pass is computed in float64 if the code supports it, because difference quotients need the digits;
otherwise in the arrays' own dtype. Tolerances are not fixed: they come from the measured noise, the error of the
quotients, and rounding.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.clipped_gradients import clipped
from jaxnet.crosscheck.conjugates import name_conjugates
from jaxnet.crosscheck.context import Context, Options, draw_dout
from jaxnet.crosscheck.decide import WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.dtypes import in_float64, is_float_dtype
from jaxnet.crosscheck.explain import half_sentences, report_lines
from jaxnet.crosscheck.explain.behaviour_sentences import sentence
from jaxnet.crosscheck.inspect.checkable import Array, Checkable
from jaxnet.crosscheck.inspect.errors import SubjectError, as_subject_error, describe
from jaxnet.crosscheck.inspect.inputs import clearly_moved
from jaxnet.crosscheck.inspect.labels import either_sign, of_labels
from jaxnet.crosscheck.leaf_verdict import check_leaf, name_exchanged, wrong_in_later_call
from jaxnet.crosscheck.measure.behaviour import check_behaviour
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.gradient_form import misshapen, other_dtype
from jaxnet.crosscheck.measure.half_range import Escape, RangeError, forward_range, gradient_range, vanished_output
from jaxnet.crosscheck.measure.input_warnings import input_warnings
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.other_ways import compare_other_ways
from jaxnet.crosscheck.meter import OutOfTime, metered, name_leaf
from jaxnet.crosscheck.piecewise_constant import name_piecewise_constant
from jaxnet.crosscheck.report import Leaf, Report
from jaxnet.crosscheck.shape_mends import explain_shapes, in_shapes_of_parameters
from jaxnet.crosscheck.small_constants import explain_small_errors
from jaxnet.crosscheck.step_curves import StepCurves
from jaxnet.crosscheck.streams import Stream, stream
from jaxnet.crosscheck.zero_gradients import NEGLIGIBLE, examine_zeros


def examine(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    """Checks every leaf of a checkable, and its behaviour.

    Args:
        title: Its name in the report.
        checkable: The code that is checked.
        reference: The same function in JAX, as a third derivation, or None.
        options: How the check is made.

    Raises:
        SubjectError: If the code cannot be run; the message says why.
    """
    with metered(title, options.max_seconds) as meter:
        report = _by_convention(title, checkable, reference, options)
        if options.order > 1 and report.verdict is Verdict.PASS:
            report = replace(report, derivatives=(_next_order(title, checkable, options),))
        elif options.order > 1:
            report = replace(report, notes=(*report.notes, "its own derivative was not checked, as it does not pass"))
        elif checkable.second_derivative is not None:
            report = replace(report, notes=(*report.notes, "its second derivative is checked with order=2 alone"))
        return replace(report, calls=meter.calls, seconds=meter.seconds, seed=options.seed)


def _by_convention(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    """Returns the report under the convention for complex gradients that passes or else fits best.

    A gradient fails only if it fails by all of them.
    """
    report = _in_any_reading(title, checkable, reference, options)
    conventions = list(checkable.conventions())
    if not conventions or not report.leaves:
        return report
    reports = [(report, checkable.convention)]
    is_decided = all(leaf.verdict is Verdict.PASS for leaf in report.leaves)
    for other in () if is_decided else conventions:
        reports.append((_in_any_reading(title, other, reference, options), other.convention))
    report, convention = min(reports, key=lambda each: _badness(each[0]))
    others = [name for each, name in reports if each is not report]
    return replace(report, notes=(*report.notes, report_lines.convention(report.leaves, convention, others)))


def _badness(report: Report) -> tuple[int, int, int]:
    """Returns a sort key that puts the report that explains the gradients best first."""
    wrong = [leaf for leaf in report.leaves if leaf.verdict is not Verdict.PASS]
    order = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
    return order.index(report.verdict), len(wrong), sum(not leaf.diagnosis for leaf in wrong)


def _in_any_reading(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    """Returns the report of the code, or of another reading of what its backward pass returns if that passes."""
    report = _report(title, checkable, reference, options)
    other = None
    if any(leaf.cause in {*WRONG_CAUSES, Cause.WRONG_FORM} for leaf in report.leaves):
        other = _other_reading(title, checkable, reference, options)  # a report is false unless it is a PASS
    if Behaviour.NOT_LINEAR in report.faults:
        other = other or _without_clipping(title, checkable, reference, options)
    return report if other is None else other


def _next_order(title: str, checkable: Checkable, options: Options) -> Report:
    """Returns the report of the gradient as a function of the leaves and of dout, whose own derivative is checked."""
    output = checkable.open(copies(checkable.leaves)).forward()
    dout = draw_dout(checkable, output, stream(Stream.DOUT, options.seed))
    gradient = checkable.gradient_checkable(dout)
    if gradient is None:
        is_written = checkable.derived_by == "analytic"
        source = "written by hand in NumPy" if is_written else f"by {checkable.derived_by}"
        raise SubjectError(
            f"order: {checkable.name} has a gradient {source}, which the check does not differentiate; write "
            "it in JAX or PyTorch, or check a second derivative of your own: check_function(gradient, x, gradient=...)"
        )
    transforms = (
        None if options.transforms is None else tuple(t for t in options.transforms if t in gradient.transforms)
    )
    deeper = replace(options, order=options.order - 1, dout=None, transforms=transforms)
    return examine(f"the gradient of {title}", gradient, None, deeper)


def _other_reading(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report | None:
    """Returns the report of another reading of what the backward pass returns, if one passes."""
    for reading in checkable.readings():
        if of_labels(checkable, reading):
            continue
        report = _report(title, reading, reference, options)
        if report.verdict is Verdict.PASS:
            if doubt := either_sign(checkable, reading) or reading.doubt:
                return Report(title, report.forward, (), undecided=(doubt,))
            names = " and ".join(reading.leaves)
            return replace(
                report, notes=(*report.notes, f"the gradient that backward returns is read as the one for {names}")
            )
    return None


def _without_clipping(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report | None:
    """Returns that nothing is decided, if backward clips gradients that are right where they are not clipped."""
    if checkable.derived_by != "analytic" or options.dout is not None:
        return None
    try:
        output = checkable.open(copies(checkable.leaves)).forward()
        found = clipped(checkable, draw_dout(checkable, output, stream(Stream.DOUT, options.seed)))
    except Exception:  # the first report says what the user's code raises
        return None
    if found is None:
        return None
    report = _report(title, found.smaller, reference, options)
    is_right = all(leaf.verdict is Verdict.PASS for leaf in report.leaves)
    if not is_right or set(report.faults) - {Behaviour.NOT_LINEAR}:
        return None
    return replace(report, behaviour=(), faults=(), undecided=(found.reason, *report.undecided))


def _report(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    try:
        return _run(title, checkable, reference, options)
    except OutOfTime:
        return Report(title, None, tuple(_leaf_out_of_time(checkable, name) for name in checkable.leaves))


def _run(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    """Runs the forward and the backward pass as given, and then the whole check."""
    if checkable.fault:
        return Report(title, None, (), (checkable.fault,))
    with as_subject_error(checkable.name):
        output = checkable.open(copies(checkable.leaves)).forward()
    if not is_float_dtype(output.dtype) or output.size == 0:
        raise SubjectError(
            f"{checkable.name}: forward returns {output.dtype} of shape {output.shape}, expected at least one float"
        )
    if not np.isfinite(in_float64(output)).all():
        if (escape := forward_range(checkable, output)) is not None:
            return _forward_out_of_range(title, escape)
        return Report(title, None, (), undecided=("the forward pass is not finite at these inputs: pass other inputs",))
    if (escape := vanished_output(checkable, output)) is not None:
        return _vanished(title, escape)
    context = Context(checkable, reference, options, output)
    try:
        gradients = checkable.backward(copies(checkable.leaves), context.dout.copy())
        reshaped, broadcast = in_shapes_of_parameters(checkable, gradients)
        if broadcast:
            report = _run(title, reshaped, reference, options)
            return replace(report, warnings=(*broadcast, *report.warnings))
    except SubjectError:
        raise
    except Exception as error:  # raised by the user's code
        return Report(title, None, (), (f"backward raises {describe(error)}",))
    return _check(title, context, gradients)


def _vanished(title: str, error: RangeError) -> Report:
    if error.escape is Escape.INTERMEDIATE:
        return _forward_out_of_range(title, error)
    return Report(title, None, (), undecided=(half_sentences.range_reason(error, "the output"),))


def _forward_out_of_range(title: str, error: RangeError) -> Report:
    text = half_sentences.range_reason(error, "the output")
    if error.escape is Escape.RESULT:
        return Report(title, None, (), undecided=(text,))
    finding = Finding(Behaviour.FORWARD_OUT_OF_RANGE, Level.FAULT, detail=text)
    return Report(title, None, (), behaviour=(sentence(finding),), faults=(finding.kind,))


def _check(title: str, context: Context, gradients: dict[str, Any]) -> Report:
    """Checks the form of the gradients, then the behaviour, then the values of the gradients."""
    checkable = context.checkable
    form = _check_form(checkable, gradients, context.output, context.dout)
    leaves = form.leaves
    with as_subject_error(f"{checkable.name}, at values nearby"), np.errstate(all="ignore"):
        context.derive(form.names)
        findings = form.findings + _behaviour(context, form.names)
        undecided = [sentence(f) for f in findings if f.kind is Behaviour.NOT_REPEATABLE]
        if not undecided:
            undecided = half_sentences.sums_in_forward(checkable, context.point)
            leaves = explain_shapes(context, gradients, _check_leaves(context, form.names, leaves))
            findings += wrong_in_later_call(context, leaves)
            # A gradient that is wrong after a step is stale only if it was correct before.
            passing = {leaf.name for leaf in leaves if leaf.verdict is Verdict.PASS}
            findings = [f for f in findings if f.kind is not Behaviour.WRONG_AFTER_STEP or f.leaf in passing]
        without_gradient, constants = _without_gradient(checkable)
        leaves = leaves + without_gradient
        structured = tuple(f"{name} is symmetric" for name in context.options.structure)
        about_inputs = [text for text in input_warnings(checkable, context.output) if not text.startswith(structured)]
        warnings = [*about_inputs, *constants]
    order = [*checkable.leaves, *checkable.others]
    by_level = {level: [f for f in findings if f.level is level] for level in Level}
    behaviour_warnings = [sentence(f) for f in by_level[Level.WARNING] if f.kind is not Behaviour.NOT_REPEATABLE]
    return Report(
        title,
        context.forward,
        tuple(sorted(leaves, key=lambda leaf: order.index(leaf.name))),
        behaviour=tuple(sentence(f) for f in by_level[Level.FAULT]),
        faults=tuple(f.kind for f in by_level[Level.FAULT]),
        undecided=(*undecided, *checkable.doubts),
        warnings=(*behaviour_warnings, *warnings),
        notes=(*(sentence(f) for f in by_level[Level.NOTE]), *checkable.notes),
        step_curves=_step_curves(context) if form.names else None,
    )


def _step_curves(context: Context) -> StepCurves:
    return StepCurves(context.differentiated, context.analytic.output, context.options.seed)


class _Form(NamedTuple):
    """The leaves whose gradients can be compared, those decided by their form, and gradients of other dtypes."""

    names: list[str]
    leaves: list[Leaf]
    findings: list[Finding]


def _check_form(checkable: Checkable, gradients: dict[str, Any], output: Array, dout: Array) -> _Form:
    form = _Form([], [], [])
    for name, leaf in checkable.leaves.items():
        wrong = misshapen(name, leaf, gradients.get(name))
        if name not in gradients:
            wrong = Finding(Behaviour.LACKS_LEAF, Level.FAULT, name, detail=f"an array of shape {leaf.shape}")
        escape = None
        if wrong is not None and wrong.kind is Behaviour.NOT_FINITE:
            escape = gradient_range(checkable, name, np.asarray(gradients[name]), dout)
        if escape is not None:
            form.leaves.append(_leaf_out_of_range(checkable, name, escape))
            continue
        if wrong is not None:
            form.leaves.append(Leaf(name, Verdict.FAIL, Cause.WRONG_FORM, checkable.derived_by, detail=sentence(wrong)))
            continue
        if (finding := other_dtype(name, leaf, gradients[name], output)) is not None:
            form.findings.append(finding)
        if leaf.size == 0:
            form.leaves.append(Leaf(name, Verdict.PASS, Cause.EMPTY, checkable.derived_by))
        else:
            form.names.append(name)
    return form


def _leaf_out_of_range(checkable: Checkable, name: str, error: RangeError) -> Leaf:
    causes = {
        Escape.RESULT: (Verdict.INCONCLUSIVE, Cause.BEYOND_RANGE),
        Escape.INTERMEDIATE: (Verdict.FAIL, Cause.OVERFLOW),
        Escape.UNKNOWN: (Verdict.FAIL, Cause.WRONG_FORM),
    }
    text = half_sentences.range_reason(error, f"the gradient for {name}")
    return Leaf(name, *causes[error.escape], checkable.derived_by, detail=text)


def _behaviour(context: Context, names: list[str]) -> list[Finding]:
    """Returns the findings of behaviour, without those that rounding or the options explain."""
    checkable, options = context.checkable, context.options
    gradient = {name: context.analytic.measured(name) for name in names}
    rounding = context.analytic.output_rounding() if names else 0.0
    rng = stream(Stream.BEHAVIOUR, options.seed)
    findings = check_behaviour(checkable, context.dout, copies(context.at), gradient, rng, rounding)
    value = None if options.expected else checkable.value_under_differentiation(context.at)
    if names and value is not None and not context.analytic.agrees_with_output(in_float64(value)):
        findings.append(Finding(Behaviour.OTHER_VALUE, Level.FAULT))
    if options.accuracy:  # the number of a solver's steps depends on dout
        findings = [f for f in findings if f.kind is not Behaviour.NOT_LINEAR]
    elif names and context.analytic.coarse:  # a small dout underflows in half precision
        findings = [f for f in findings if f.kind is not Behaviour.NOT_LINEAR or abs(f.size) >= 2]
    if names:
        rng = stream(Stream.OTHER_WAYS, options.seed)
        findings += compare_other_ways(context.analytic, gradient, options.transforms, rng, options.accuracy)
    negligible = {
        n for n in names if context.analytic.size(n, np.ones(())) < NEGLIGIBLE * context.analytic.typical_size
    }  # their rounding is not linear in dout
    findings = [f for f in findings if f.kind is not Behaviour.NOT_LINEAR or f.leaf not in negligible]
    if options.dout is not None:
        about_dout = {Behaviour.IGNORES_DOUT, Behaviour.NOT_LINEAR}
        findings = [replace(f, level=Level.WARNING) if f.kind in about_dout else f for f in findings]
    return findings


def _check_leaves(context: Context, names: list[str], leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with those of `names` added; leaves for which there is no time are inconclusive."""
    leaves = list(leaves)
    try:
        for name in names:
            name_leaf(name)
            leaves.append(check_leaf(context, name))
        name_leaf("")
        leaves = name_piecewise_constant(context, examine_zeros(context, names, leaves))
        return explain_small_errors(context, name_conjugates(context, name_exchanged(context, leaves)))
    except OutOfTime:
        checked = {leaf.name for leaf in leaves}
        return leaves + [_leaf_out_of_time(context.checkable, name) for name in names if name not in checked]


def _leaf_out_of_time(checkable: Checkable, name: str) -> Leaf:
    return Leaf(name, Verdict.INCONCLUSIVE, Cause.OUT_OF_TIME, checkable.derived_by)


def _without_gradient(checkable: Checkable) -> tuple[list[Leaf], list[str]]:
    """Returns the arrays that change the output and have no gradient: leaves, and warnings for constants."""
    leaves, warnings = [], []
    for name, array in checkable.others.items():
        if array.size == 0 or not _changes_output(checkable, name, array):
            continue
        if name in checkable.constants:
            warnings.append(report_lines.constant(name))
        else:
            leaves.append(Leaf(name, Verdict.INCONCLUSIVE, Cause.NO_GRADIENT, checkable.derived_by))
    return leaves, warnings


def _changes_output(checkable: Checkable, name: str, array: Array) -> bool:
    """Returns whether the output depends on an array; False if the code rejects other values."""
    moved = clearly_moved(array)
    try:
        before = checkable.open(copies(checkable.leaves) | {name: array.copy()}).forward()
        after = checkable.open(copies(checkable.leaves) | {name: moved}).forward()
    except Exception:  # the user's code rejects these values
        return False
    return not np.array_equal(in_float64(before), in_float64(after), equal_nan=True)
