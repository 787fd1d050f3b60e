"""Reports one leaf: its numbers in the gradient's own unit, its worst element, and the diagnosis of an error."""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from jaxnet.crosscheck.context import Context, Outcome
from jaxnet.crosscheck.decide import SMALL_CAUSES, WRONG_CAUSES, Cause, Verdict
from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.element_errors import ElementErrors, element_errors
from jaxnet.crosscheck.explain import half_sentences, report_lines
from jaxnet.crosscheck.explain.diagnosis import Diagnosis, DiagnosisInput, diagnose
from jaxnet.crosscheck.explain.evidence import Evidence
from jaxnet.crosscheck.explain.structured import diagnose_along
from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY
from jaxnet.crosscheck.measure.finite_differences import FIRST_STEP
from jaxnet.crosscheck.measure.kinks import Roughness
from jaxnet.crosscheck.measure.leaf import PROBES_PER_LEAF, Coverage
from jaxnet.crosscheck.measure.other_points import Point
from jaxnet.crosscheck.measure.structure_parts import PartSlopes, slopes_of_parts
from jaxnet.crosscheck.measure.windows import Reach
from jaxnet.crosscheck.measure.wrong_elements import ElementSample, sample_elements
from jaxnet.crosscheck.report import PROBABILITY, Leaf

# An error of norm e in a random Gaussian direction is missed with probability 0.8 tolerance / e.
MISSED = 0.8
MIN_SAMPLES = 6  # elements of a wrong leaf whose derivatives are computed even if the budget of the check is used up

HALF_REASONS = {
    Cause.LOW_PRECISION,
    Cause.HALF_ACCUMULATION,
    Cause.OVERFLOW,
    Cause.UNDERFLOW,
    Cause.SYSTEMATIC_ERROR,
    Cause.BEYOND_RANGE,
}
REFERENCE_CAUSES = (Cause.DIFFERS_FROM_REFERENCE, Cause.FORWARDS_DIFFER, Cause.AUTODIFF_WRONG)


def report_leaf(context: Context, outcome: Outcome) -> Leaf:
    """Returns the leaf with its numbers, and with a diagnosis if it is wrong."""
    measured, analytic, derived_by = outcome.measured, outcome.analytic, context.checkable.derived_by
    name, unit = measured.name, 1 / measured.factor
    gaps = {f"{derived_by} - numerical": measured.with_numerical.scaled(unit)}
    if measured.with_autodiff is not None and measured.autodiff_with_numerical is not None:
        gaps = {f"{derived_by} - autodiff": measured.with_autodiff.scaled(unit), **gaps}
        gaps["autodiff - numerical"] = measured.autodiff_with_numerical.scaled(unit)
    if outcome.point is Point.GIVEN and name in context.low_precision:
        gaps[f"{context.checkable.leaves[name].dtype} - float64"] = context.low_precision[name].scaled(unit)
    size = (analytic.typical_size if measured.is_small else measured.true_size) or 1.0
    reliable = measured.compared and measured.coverage is not Coverage.SPOILED
    detectable = 2 * MISSED * measured.tolerance_of_elements / (1 - PROBABILITY) ** (1 / PROBES_PER_LEAF) * unit
    worst = _worst_element(context, outcome)
    leaf = Leaf(
        name,
        outcome.verdict,
        outcome.cause,
        derived_by,
        relative_error=measured.error / size,
        relative_tolerance=measured.tolerance / size,
        min_detectable_error=detectable if reliable and detectable > 0 else math.nan,
        index=worst.index,
        values=worst.values,
        gaps=gaps,
        size=int(analytic.at[name].size),
        compared=measured.compared,
        kinks=len(measured.kinks),
        unresolved=measured.unresolved,
        point=outcome.point,
        noise=max(analytic.noise.relative, 2 * analytic.unit_roundoff),
        gradient_noise=analytic.gradient_noise(name),
        slip=worst.diagnosis.slip if worst.diagnosis else None,
        diagnosis=worst.diagnosis.sentence if worst.diagnosis else "",
        detail=outcome.structure or measured.limit.value,
        rule=context.checkable.rule,
        element_errors=worst.element_errors,
    )
    leaf = _in_half(context, leaf)
    notes = [*report_lines.notes(leaf), *leaf.notes]
    if outcome.verdict is Verdict.PASS and measured.uses_accuracy:
        notes.append(
            f"its error is larger than noise explains, and is allowed by accuracy={context.options.accuracy:g}"
        )
    return replace(leaf, notes=(*notes, *([outcome.note] if outcome.note else [])))


def _in_half(context: Context, leaf: Leaf) -> Leaf:
    """Returns the leaf with the ratio of its error in 16 bits, and with a sentence about it."""
    known, half = context.checkable.half_format(leaf.name), context.half_precision.get(leaf.name)
    if known is None:
        return leaf
    if half is None:
        measurable = leaf.cause not in (*WRONG_CAUSES, *SMALL_CAUSES)
        return replace(leaf, notes=(half_sentences.UNMEASURED.format(format=known.name),)) if measurable else leaf
    leaf = replace(leaf, rounding_ratio=half.ratio)
    if leaf.cause in HALF_REASONS:
        return replace(leaf, detail=half_sentences.reason(half))
    if leaf.cause in WRONG_CAUSES:  # the formula is wrong, of which the ratio says nothing
        return leaf
    return replace(leaf, notes=(half_sentences.ratio(half),))


@dataclass(frozen=True)
class _Worst:
    """The index of a leaf's worst element, the derivatives with respect to it, the diagnosis, and all known errors."""

    index: tuple[int, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    element_errors: ElementErrors | None = None


def _worst_element(context: Context, outcome: Outcome) -> _Worst:
    """Finds the worst element of a leaf that did not pass."""
    measured, outside, derived_by = outcome.measured, outcome.measured.outside, context.checkable.derived_by
    gradient = outcome.analytic.gradient[measured.name]
    if outside is not None and outside.roughness is not Roughness.UNRESOLVED:
        index = tuple(int(i) for i in np.unravel_index(outside.place, gradient.shape))
        low, high = outside.low / measured.factor, outside.high / measured.factor
        slopes = {"slopes from": low, "to": high} if outside.roughness is Roughness.KINK else {"numerical": low}
        return _Worst(index, {derived_by: float(gradient[index]), **slopes})
    if outcome.cause in REFERENCE_CAUSES and context.autodiff:
        reference = context.autodiff.gradient[measured.name]
        place = int(np.argmax(np.abs(gradient - reference)))
        index = tuple(int(i) for i in np.unravel_index(place, gradient.shape))
        return _Worst(index, {derived_by: float(gradient[index]), "autodiff": float(reference[index])})
    if outcome.cause is not Cause.ANALYTIC_WRONG:
        return _Worst()
    if outcome.structure:  # no element moves by itself
        worst = max(measured.probes, key=lambda probe: probe.gap.ratio)
        unit = 1 / measured.factor
        values = {derived_by: worst.claimed * unit, "numerical": worst.numerical.value * unit}
        nothing = np.full(gradient.shape, math.nan)
        evidence = Evidence(_evidence(context, outcome, nothing, 0.0))
        parts = partial(_parts, context, outcome)
        return _Worst(values=values, diagnosis=diagnose_along(evidence, outcome.structure, parts))
    quotients = [probe.numerical for probe in measured.probes]
    step = min(quotients, key=lambda quotient: quotient.error).step if quotients else FIRST_STEP
    kinks = [e.place for e in measured.kinks]  # at which a range of slopes is correct
    budget = max(context.sample_budget, MIN_SAMPLES)
    sample = sample_elements(outcome.analytic, measured.name, step, budget, context.samples, kinks)
    context.sample_budget //= 2
    values = {derived_by: float(gradient[sample.worst]), "numerical": float(sample.true[sample.worst])}
    return _Worst(sample.worst, values, _diagnosis(context, outcome, sample), _element_errors(context, outcome, sample))


def _parts(context: Context, outcome: Outcome) -> list[PartSlopes]:
    """Returns the slopes along the parts of the structure that a leaf keeps."""
    name = outcome.measured.name
    return slopes_of_parts(outcome.analytic, name, context.options.structure[name], context.samples)


def _confirmed_reference(context: Context, outcome: Outcome) -> Array | None:
    """Returns the reference's gradient if the difference quotients at this point confirm it."""
    gap = outcome.measured.autodiff_with_numerical
    if context.autodiff is None or gap is None or not gap.within_tolerance or outcome.analytic is not context.analytic:
        return None
    return context.autodiff.gradient[outcome.measured.name]


def _element_errors(context: Context, outcome: Outcome, sample: ElementSample) -> ElementErrors | None:
    """Returns the errors of the elements that have a derivative of their own: the sample, or all by a reference."""
    measured = outcome.measured
    true, tolerance = sample.true, SAFETY * sample.error
    confirmed = _confirmed_reference(context, outcome)
    if confirmed is not None and measured.with_autodiff is not None:
        true, tolerance = confirmed.copy(), measured.with_autodiff.tolerance / measured.factor
        true.flat[[element.place for element in measured.kinks]] = math.nan
    claimed = outcome.analytic.gradient[measured.name]
    norm = float(np.linalg.norm(np.where(np.isnan(true), claimed, true)) or np.linalg.norm(claimed)) or 1.0
    return element_errors(np.abs(claimed - true) / norm, tolerance / norm)


def _diagnosis(context: Context, outcome: Outcome, sample: ElementSample) -> Diagnosis | None:
    """Returns the slip that explains a wrong gradient; None if no slip does."""
    true, accuracy = sample.true, sample.accuracy
    if (confirmed := _confirmed_reference(context, outcome)) is not None:
        true, accuracy = confirmed, max(1e-12, outcome.analytic.noise.relative)
    return diagnose(_evidence(context, outcome, true, accuracy))


def _evidence(context: Context, outcome: Outcome, true: Array, accuracy: float) -> DiagnosisInput:
    """Returns what a diagnosis is made from, with the measured elements of the true gradient."""
    measured, analytic, checkable = outcome.measured, outcome.analytic, context.checkable
    name, scale = measured.name, analytic.factor(measured.name)
    return DiagnosisInput(
        leaf=name,
        claimed=analytic.gradient[name],
        true=true,
        accuracy=accuracy,
        probes=tuple(
            (p.direction, p.numerical.value / scale, SAFETY * p.numerical.error / scale) for p in measured.probes
        ),
        leaves={key: in_float64(value) for key, value in analytic.at.items()},
        dout=analytic.dout,
        output=analytic.output,
        numbers=dict(checkable.numbers),
        integers=dict(checkable.integers),
        batch=dict(checkable.batch),
        has_complex_output=checkable.imaginary_outputs(context.output) is not None,
        is_complex=name.rpartition(".")[0] in checkable.complex_leaves,
        reach=None if analytic.coarse else Reach(analytic.checkable, analytic.at, name, analytic.dout),
    )
