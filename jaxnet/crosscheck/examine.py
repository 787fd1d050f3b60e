"""Checks one layer, network or function once it is inspected: measures, decides, and has the findings explained.

The forward pass is computed in float64 where the code takes it, because a difference quotient needs the digits; where
it does not, in the arrays' own dtype. No tolerance is typed in: it comes from the noise that was measured, the
quotient's own error, and rounding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.decide import WRONG_CAUSES, Cause, Verdict, decide
from jaxnet.crosscheck.explain import words
from jaxnet.crosscheck.explain.behaviour_words import sentence
from jaxnet.crosscheck.explain.diagnosis import Diagnosis, DiagnosisInput, diagnose
from jaxnet.crosscheck.explain.evidence import Slip
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves, SubjectError, blaming
from jaxnet.crosscheck.inspect.expected import Surrogate
from jaxnet.crosscheck.measure.behaviour import check_behaviour
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Gap
from jaxnet.crosscheck.measure.dtypes import eps_of, in_float64, is_floating
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.finite_differences import FIRST_STEP, STEP_RATIO
from jaxnet.crosscheck.measure.gradient_form import misshapen, other_dtype
from jaxnet.crosscheck.measure.input_warnings import input_warnings
from jaxnet.crosscheck.measure.kinks import Roughness
from jaxnet.crosscheck.measure.leaf import (
    PROBES_PER_LEAF,
    Coverage,
    LeafMeasurement,
    Tangent,
    is_symmetric,
    measure_leaf,
)
from jaxnet.crosscheck.measure.low_precision import low_precision_gap
from jaxnet.crosscheck.measure.other_points import Point, all_beside, beside, distant_points, other_integers
from jaxnet.crosscheck.measure.point_dtype import chosen_point
from jaxnet.crosscheck.measure.wrong_elements import ElementSample, sample_elements
from jaxnet.crosscheck.meter import OutOfTime, metered
from jaxnet.crosscheck.report import PROBABILITY, Leaf, Report
from jaxnet.crosscheck.streams import Stream, stream

# An error of norm e in a random Gaussian direction is missed with probability 0.8 tolerance / e.
MISSED = 0.8
MOST_EXCHANGED = 3  # wrong leaves among which an exchange is looked for
CLEARLY = 8.0  # by how much an error must exceed a tolerance elsewhere, so that it would be seen there
BESIDES = 4  # points beside a kink, of which the first that shows something counts
FEWEST = 6  # elements of each further leaf that is wrong
HIDDEN = 1e-6  # of an ordinary gradient: one so small is mostly rounding, which is not linear in dout
SAMPLES = 40  # elements of a wrong leaf that are derived for its diagnosis


@dataclass(frozen=True)
class Options:
    """How a check is made; the public functions describe most of them.

    Attributes:
        samples: Elements of a wrong leaf that are derived for its diagnosis.
        dout: The only gradient from above that the backward is ever given, where it is known; a random one by default.
    """

    seed: int = 0
    resolution: float | None = None
    accuracy: float = 0.0
    expected: Callable[..., Any] | None = None
    max_seconds: float | None = None
    samples: int = SAMPLES
    dout: Array | None = None


def examine(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    """Checks every leaf of a checkable, and how it behaves.

    Args:
        title: What the report calls it.
        checkable: What was brought.
        reference: The same function in JAX, as a third derivation, or None.
        options: The seed, and what is allowed.

    Raises:
        SubjectError: If it cannot be run at all; the message says why.
    """
    with metered(title, options.max_seconds) as meter:
        report = _report(title, checkable, reference, options)
        if any(leaf.cause in {*WRONG_CAUSES, Cause.FORM} for leaf in report.leaves):
            report = _other_reading(title, checkable, reference, options) or report
        return replace(report, calls=meter.calls, seconds=meter.seconds, seed=options.seed)


def _other_reading(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report | None:
    """Returns the report of another reading of what the backward returned, if one passes."""
    for reading in checkable.readings():
        report = _report(title, reading, reference, options)
        if report.verdict is Verdict.PASS:
            names = " and ".join(reading.leaves)
            return replace(report, notes=(*report.notes, f"the gradient that comes back is the one by {names}"))
    return None


def _report(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    try:
        return _examined(title, checkable, reference, options)
    except OutOfTime:
        leaves = tuple(
            Leaf(name, Verdict.INCONCLUSIVE, Cause.OUT_OF_TIME, checkable.derived_by) for name in checkable.leaves
        )
        return Report(title, None, leaves)


def _examined(title: str, checkable: Checkable, reference: Checkable | None, options: Options) -> Report:
    if checkable.fault:
        return Report(title, None, (), (checkable.fault,))
    with blaming(checkable.name):
        output = checkable.open(_copies(checkable.leaves)).forward()
    if not is_floating(output.dtype) or output.size == 0:
        raise SubjectError(
            f"{checkable.name}: forward returns {output.dtype} of shape {output.shape}, expected floats, one at least"
        )
    if not np.isfinite(in_float64(output)).all():
        return Report(title, None, (), undecided=("the forward pass is not finite at these inputs: give it others",))
    return _Examination(title, checkable, reference, options, output).report()


class _There(NamedTuple):
    """What was measured of a leaf at another point."""

    analytic: Derivation
    measured: LeafMeasurement


class _Examination:
    """The state of one check: the point, the derivations there, and what was decided so far."""

    def __init__(
        self, title: str, checkable: Checkable, reference: Checkable | None, options: Options, output: Array
    ) -> None:
        self.title, self.checkable, self.reference, self.options = title, checkable, reference, options
        self.output = output
        self.directions = stream(Stream.DIRECTIONS, options.seed)
        self.rounding = stream(Stream.ROUNDING, options.seed)
        self.points = stream(Stream.POINTS, options.seed)
        self.samples = stream(Stream.SAMPLES, options.seed)
        self.dout = _from_above(checkable, output, stream(Stream.DOUT, options.seed))
        if options.dout is not None:
            self.dout = np.asarray(options.dout, output.dtype).reshape(output.shape)
        self.derived = Surrogate(checkable, options.expected) if options.expected else checkable
        self.budget = options.samples
        self.nearby: Derivation | None = None  # with all leaves a thousandth away
        self.done: list[Leaf] = []
        self.dtypes: list[Finding] = []  # gradients of other dtypes than their leaves

    def report(self) -> Report:
        """Examines the form of the gradients, then their values, then the behaviour."""
        try:
            own = self.checkable.backward(_copies(self.checkable.leaves), self.dout.copy())
        except SubjectError:
            raise
        except Exception as error:  # somebody's code
            return Report(self.title, None, (), (f"backward raises {type(error).__name__}: {error}",))
        names = self._of_right_form(own)
        with blaming(f"{self.checkable.name}, at values nearby"), np.errstate(all="ignore"):
            self.at = chosen_point(self.checkable, self.output, self.dout)
            forward = None
            if names:
                self.analytic = Derivation(self.derived, self.at, self._dout(), names, self.rounding)
                self.autodiff, forward = self._by_reference(names)
                self.low = low_precision_gap(self.checkable, self.analytic, self.dout, names, self.rounding)
            found = self.dtypes + self._behaviour(names)
            undecided = [sentence(f) for f in found if f.kind is Behaviour.NOT_REPEATABLE]
            if not undecided:
                try:
                    for name in names:
                        self.done.append(self._leaf(name, forward))
                    self._judge_zeros(names)
                    self._name_exchanged()
                except OutOfTime:
                    self._out_of_time(names)
                # What differences contradict after a step is stale only if they agreed before.
                right = {leaf.name for leaf in self.done if leaf.verdict is Verdict.PASS}
                found = [f for f in found if f.kind is not Behaviour.WRONG_AFTER_STEP or f.leaf in right]
            warnings = [*input_warnings(self.checkable, self.output), *self._without_gradient()]
        order = [*self.checkable.leaves, *self.checkable.others]
        leaves = sorted(self.done, key=lambda leaf: order.index(leaf.name))
        return Report(
            self.title,
            forward,
            tuple(leaves),
            behaviour=tuple(sentence(f) for f in found if f.level is Level.FAULT),
            faults=tuple(f.kind for f in found if f.level is Level.FAULT),
            undecided=tuple(undecided),
            warnings=(
                *(sentence(f) for f in found if f.level is Level.WARNING and f.kind is not Behaviour.NOT_REPEATABLE),
                *warnings,
            ),
            notes=(*(sentence(f) for f in found if f.level is Level.NOTE), *self.checkable.notes),
        )

    def _of_right_form(self, own: dict[str, Any]) -> list[str]:
        """Returns the leaves whose gradients can be compared, and fails those whose form is wrong."""
        names = []
        for name, leaf in self.checkable.leaves.items():
            wrong = misshapen(name, leaf, own.get(name))
            if name not in own:
                wrong = Finding(Behaviour.LACKS_LEAF, Level.FAULT, name, detail=f"an array of shape {leaf.shape}")
            if wrong is not None:
                self._add(name, Verdict.FAIL, Cause.FORM, detail=sentence(wrong))
                continue
            if (other := other_dtype(name, leaf, own[name], self.output)) is not None:
                self.dtypes.append(other)
            if leaf.size == 0:
                self._add(name, Verdict.PASS, Cause.EMPTY)
            else:
                names.append(name)
        return names

    def _by_reference(self, names: list[str]) -> tuple[Derivation | None, Gap | None]:
        """Derives by the reference, where there is one, and compares the forward passes."""
        if self.reference is None:
            return None, None
        theirs = in_float64(self.reference.forward(self.at))
        if theirs.shape != self.analytic.output.shape:
            raise SubjectError(
                f"reference: {self.reference.name} returns shape {theirs.shape} where {self.checkable.name} returns "
                f"{self.analytic.output.shape}; expected the same function of the same arguments"
            )
        autodiff = Derivation(self.reference, self.at, self._dout(), names, self.rounding)
        return autodiff, self.analytic.forward_gap(autodiff)

    def _behaviour(self, names: list[str]) -> list[Finding]:
        gradient = {name: self.analytic.measured(name) for name in names}
        rounding = self.analytic.output_rounding() if names else 0.0
        rng = stream(Stream.BEHAVIOUR, self.options.seed)
        found = check_behaviour(self.checkable, self.dout, _copies(self.at), gradient, rng, rounding)
        value = None if self.options.expected else self.checkable.value_under_differentiation(self.at)
        if names and value is not None and not self.analytic.agrees_with_output(in_float64(value)):
            found.append(Finding(Behaviour.OTHER_VALUE, Level.FAULT))
        if self.options.accuracy:  # a solver stops after another number of steps for another dout
            found = [f for f in found if f.kind is not Behaviour.NOT_LINEAR]
        elif names and self.analytic.coarse:  # half precision has no numbers for a small dout
            found = [f for f in found if f.kind is not Behaviour.NOT_LINEAR or abs(f.size) >= 2]
        hidden = {n for n in names if self.analytic.size(n, np.ones(())) < HIDDEN * self.analytic.typical_size}
        found = [f for f in found if f.kind is not Behaviour.NOT_LINEAR or f.leaf not in hidden]
        if self.options.dout is not None:
            ignored = {Behaviour.IGNORES_DOUT, Behaviour.NOT_LINEAR}
            found = [replace(f, level=Level.WARNING) if f.kind in ignored else f for f in found]
        return found

    def _dout(self) -> Array:
        return in_float64(self.dout)

    def _resolution(self, name: str, analytic: Derivation) -> float:
        """Returns the relative error to be seen: half of the digits, of the dtype or of what computes in fact."""
        if self.options.resolution is not None:
            return self.options.resolution
        eps = max(eps_of(self.checkable.leaves[name]), eps_of(self.at[name]), analytic.noise.relative)
        return max(math.sqrt(eps), 2 * SAFETY * self.options.accuracy)

    def _measure(
        self,
        name: str,
        analytic: Derivation,
        autodiff: Derivation | None,
        start: float | None = None,
        tangent: Tangent = Tangent.ALL,
    ) -> LeafMeasurement:
        resolution = self._resolution(name, analytic)
        accuracy = self.options.accuracy
        return measure_leaf(
            name, analytic, autodiff, resolution, accuracy, self.directions, start=start, tangent=tangent
        )

    def _decide(
        self, measured: LeafMeasurement, analytic: Derivation, forward: Gap | None = None, low: Gap | None = None
    ) -> tuple[Verdict, Cause]:
        return decide(measured, forward, low, analytic.coarse, strict=self.options.resolution is not None)

    def _leaf(self, name: str, forward: Gap | None) -> Leaf:
        """Judges a leaf at the given point, and beside it where kinks spoil that."""
        analytic, point = self.analytic, Point.GIVEN
        measured = self._measure(name, analytic, self.autodiff)
        verdict, cause = self._decide(measured, analytic, forward, self.low.get(name))
        if cause in WRONG_CAUSES and (tied := self.checkable.tied_gradient(name, analytic.gradient)) is not None:
            summed = analytic.with_gradient(name, tied)
            again = self._measure(name, summed, None)
            found, why = self._decide(again, summed)
            if found is Verdict.PASS or again.relative_error < measured.relative_error / 4:
                return self._as_leaf(again, found, why, summed, note=words.TIED)
        if cause in WRONG_CAUSES and is_symmetric(in_float64(self.at[name])):
            again = self._measure(name, analytic, None, tangent=Tangent.SYMMETRIC)
            if self._decide(again, analytic)[0] is Verdict.PASS:
                if name in self.checkable.held_leaves:  # nobody asked for a gradient by it
                    return self._as_leaf(again, Verdict.PASS, Cause.SYMMETRIC_ONLY, analytic, note=words.SYMMETRIC)
                return self._as_leaf(again, Verdict.INCONCLUSIVE, Cause.SYMMETRIC_ONLY, analytic)
        spoiled = cause in (Cause.AT_KINKS, Cause.NOTHING_COMPARED, Cause.OUTSIDE_SLOPES)
        if verdict is not Verdict.FAIL and (spoiled or (cause is Cause.UNCONFIRMED and measured.kinks)):
            tried = (self._beside(beside(self.at, name, self.points), name) for _ in range(BESIDES))
            there = next((found for found in tried if found is not None), None)
            if there is not None:
                found, why = self._decide(there.measured, there.analytic, forward)
                if cause is Cause.NOTHING_COMPARED and found is Verdict.FAIL:
                    verdict, cause = Verdict.INCONCLUSIVE, Cause.WRONG_BESIDE
                elif found is not Verdict.INCONCLUSIVE:
                    analytic, point, verdict, cause = there.analytic, Point.BESIDE, found, why
                    measured = there.measured
        elif verdict is Verdict.FAIL and cause is Cause.ANALYTIC_WRONG:
            # A wrong formula is wrong beside the point too. What is wrong at the point alone is how kinks are composed.
            there = self._all_beside(name)
            seen = there is not None and measured.relative_error > CLEARLY * there.measured.relative_tolerance
            if there is not None and seen and self._decide(there.measured, there.analytic)[0] is Verdict.PASS:
                verdict, cause = Verdict.INCONCLUSIVE, Cause.RIGHT_BESIDE
        if cause is Cause.ANALYTIC_WRONG and self._is_lost(name):
            verdict, cause = Verdict.INCONCLUSIVE, Cause.ZERO_HERE
        return self._as_leaf(measured, verdict, cause, analytic, point)

    def _is_lost(self, name: str) -> bool:
        """Whether the output is 0 and stays 0, and the gradient is nothing beside the one at another point.

        The loss of samples that are sure is 0 to the last digit, while its gradient is 1e-20.
        """
        if self.analytic.typical_size:
            return False
        *_, (_, at) = distant_points(self.at, self.points)
        there = self._derived_at(at, [name], self.derived)
        if there is None:
            return False
        here, size = (float(np.linalg.norm(each.gradient[name])) for each in (self.analytic, there))
        return here < HIDDEN * size

    def _derived_at(self, at: Leaves, names: list[str], checkable: Checkable) -> Derivation | None:
        """Returns the derivation at another point; None where the code refuses it, or its output is not finite."""
        try:
            there = Derivation(checkable, at, self._dout(), names, self.rounding)
        except OutOfTime:
            raise
        except Exception:  # somebody's code refuses these values
            return None
        return there if np.isfinite(there.output).all() else None

    def _beside(self, at: Leaves, name: str) -> "_There | None":
        """Measures a leaf at a point nearby; None where that shows nothing."""
        analytic = Derivation(self.derived, at, self._dout(), [name], self.rounding)
        autodiff = self.autodiff and Derivation(self.autodiff.checkable, at, self._dout(), [name], self.rounding)
        return self._there(name, analytic, autodiff)

    def _all_beside(self, name: str) -> "_There | None":
        """Measures a leaf where all leaves are moved a little; one derivation serves all of them."""
        if self.nearby is None:
            at = all_beside(self.at, self.points)
            self.nearby = Derivation(self.derived, at, self._dout(), self.analytic.names, self.rounding)
        return self._there(name, self.nearby, None)

    def _there(self, name: str, analytic: Derivation, autodiff: Derivation | None) -> "_There | None":
        """Measures a leaf at another point; None where its gradient is much smaller there, which shows nothing."""
        here, size = (np.linalg.norm(each.measured(name).value) for each in (self.analytic, analytic))
        if not np.isfinite(analytic.output).all() or size < here / 2:
            return None
        start = None if analytic.coarse else analytic.first_step / STEP_RATIO  # kinks that are left are near
        measured = self._measure(name, analytic, autodiff, start)
        return _There(analytic, measured)

    def _judge_zeros(self, names: list[str]) -> None:
        """Looks for points that show something of leaves whose gradients are zero here."""
        zeros = {leaf.name for leaf in self.done if leaf.cause is Cause.ZERO_HERE}
        if not zeros:
            return
        judged: dict[str, list[Leaf]] = {name: [] for name in zeros}
        zero_at = dict.fromkeys(zeros, 0)
        for point, at in distant_points(self.at, self.points):
            there = self._derived_at(at, sorted(zeros), self.derived)
            if there is None:
                continue
            for name in [n for n in names if n in zeros]:
                measured = self._measure(name, there, None)
                verdict, cause = self._decide(measured, there)
                if cause is Cause.ZERO_HERE:
                    zero_at[name] += 1
                elif verdict is not Verdict.INCONCLUSIVE:
                    judged[name].append(self._as_leaf(measured, verdict, cause, there, point))
        suspects = self._wrong_at_other_integers(zeros - {name for name in zeros if judged[name]})
        for i, leaf in enumerate(self.done):
            if leaf.name in suspects:
                self.done[i] = replace(leaf, cause=Cause.WRONG_ELSEWHERE, min_detectable_error=math.nan)
            elif leaf.name in zeros:
                self.done[i] = self._of_zero(leaf, judged[leaf.name], zero_at[leaf.name])

    def _wrong_at_other_integers(self, names: set[str]) -> set[str]:
        """Returns the leaves whose gradients are wrong where ids and labels are drawn anew, too.

        They do not FAIL by it: what was drawn may break a rule of the ids, such as that no two are alike.
        """
        integers = {name: ids for name, ids in self.checkable.integers.items() if ids.size}
        if not names or not integers or self.options.expected is not None:
            return set()
        *_, (_, at) = distant_points(self.at, self.points)
        other = self.checkable.with_integers(other_integers(integers, at, self.points))
        there = self._derived_at(at, sorted(names), other) if other is not None else None
        if there is None:
            return set()
        return {name for name in names if self._decide(self._measure(name, there, None), there)[1] in WRONG_CAUSES}

    @staticmethod
    def _of_zero(leaf: Leaf, judged: list[Leaf], zero_at: int) -> Leaf:
        """Returns the verdict on a leaf whose gradient is zero at the given point."""
        if not judged:
            if zero_at < 2:
                return leaf
            settled = replace(leaf, verdict=Verdict.PASS, cause=Cause.ZERO_EVERYWHERE, min_detectable_error=math.nan)
            return replace(settled, notes=tuple(words.notes(settled)))
        wrong = [other for other in judged if other.verdict is Verdict.FAIL]
        if len(wrong) == 1:
            return replace(leaf, cause=Cause.WRONG_ELSEWHERE, min_detectable_error=math.nan)
        return wrong[0] if wrong else judged[0]

    def _name_exchanged(self) -> None:
        """Says of two wrong gradients that they are exchanged, where each is right for the other leaf."""
        wrong = [leaf for leaf in self.done if leaf.cause is Cause.ANALYTIC_WRONG and leaf.point is Point.GIVEN]
        for one, other in combinations(wrong if len(wrong) <= MOST_EXCHANGED else (), 2):
            gradient = self.analytic.gradient
            if gradient[one.name].shape != gradient[other.name].shape:
                continue
            swapped = self.analytic.with_gradient(one.name, gradient[other.name])
            swapped = swapped.with_gradient(other.name, gradient[one.name])
            measured = [self._measure(name, swapped, None) for name in (one.name, other.name)]
            if all(self._decide(m, swapped)[0] is Verdict.PASS for m in measured):
                for leaf, theirs in ((one, other), (other, one)):
                    text = f"it is the gradient by {theirs.name}: the two are exchanged"
                    self.done[self.done.index(leaf)] = replace(leaf, slip=Slip.EXCHANGED, diagnosis=text)
                return

    def _without_gradient(self) -> list[str]:
        """Lists what moves the output and has no gradient: a leaf in doubt, or a warning for a constant."""
        warnings = []
        for name, array in self.checkable.others.items():
            if array.size == 0 or not self._moves_output(name, array):
                continue
            if name in self.checkable.constants:
                warnings.append(words.constant(name))
            else:
                self._add(name, Verdict.INCONCLUSIVE, Cause.NO_GRADIENT)
        return warnings

    def _moves_output(self, name: str, array: Array) -> bool:
        """Whether the output changes with an array; False where that cannot be tried."""
        moved = (in_float64(array) * 1.25 + 0.125).astype(array.dtype)
        own = self.checkable.leaves
        try:
            before = self.checkable.open(_copies(own) | {name: array.copy()}).forward()
            after = self.checkable.open(_copies(own) | {name: moved}).forward()
        except Exception:  # somebody's code refuses these values
            return False
        return not np.array_equal(in_float64(before), in_float64(after), equal_nan=True)

    def _as_leaf(
        self,
        measured: LeafMeasurement,
        verdict: Verdict,
        cause: Cause,
        analytic: Derivation,
        point: Point = Point.GIVEN,
        note: str = "",
    ) -> Leaf:
        """Returns the leaf with its numbers in the gradient's own unit, and a diagnosis where it is wrong."""
        name, unit = measured.name, 1 / measured.factor
        gaps = {f"{self.checkable.derived_by} - numerical": measured.with_numerical.scaled(unit)}
        if measured.with_autodiff is not None and measured.autodiff_with_numerical is not None:
            gaps = {f"{self.checkable.derived_by} - autodiff": measured.with_autodiff.scaled(unit), **gaps}
            gaps["autodiff - numerical"] = measured.autodiff_with_numerical.scaled(unit)
        if point is Point.GIVEN and name in self.low:
            gaps[f"{self.checkable.leaves[name].dtype} - float64"] = self.low[name].scaled(unit)
        size = (analytic.typical_size if measured.is_zero else measured.true_size) or 1.0
        sharp = measured.compared and measured.coverage is not Coverage.SPOILED
        detects = 2 * MISSED * measured.tolerance_of_elements / (1 - PROBABILITY) ** (1 / PROBES_PER_LEAF) * unit
        index, values, diagnosis = self._where_and_why(measured, cause, analytic)
        leaf = Leaf(
            name,
            verdict,
            cause,
            self.checkable.derived_by,
            relative_error=measured.error / size,
            relative_tolerance=measured.tolerance / size,
            min_detectable_error=detects if sharp and detects > 0 else math.nan,
            index=index,
            values=values,
            gaps=gaps,
            size=int(analytic.at[name].size),
            compared=measured.compared,
            kinks=len(measured.kinks),
            unresolved=measured.unresolved,
            point=point,
            noise=max(analytic.noise.relative, 2 * analytic.unit_roundoff),
            gradient_noise=analytic.gradient_noise(name),
            slip=diagnosis.slip if diagnosis else None,
            diagnosis=diagnosis.sentence if diagnosis else "",
            detail=measured.limit.value,
        )
        return replace(leaf, notes=(*words.notes(leaf), *([note] if note else [])))

    def _where_and_why(
        self, measured: LeafMeasurement, cause: Cause, analytic: Derivation
    ) -> tuple[tuple[int, ...], dict[str, float], Diagnosis | None]:
        """Returns the worst element of a leaf, the derivatives there, and the diagnosis."""
        name, gradient = measured.name, analytic.gradient[measured.name]
        outside = measured.outside
        who = self.checkable.derived_by
        if outside is not None and outside.roughness is not Roughness.UNRESOLVED:
            index = tuple(int(i) for i in np.unravel_index(outside.place, gradient.shape))
            low, high = outside.low / measured.factor, outside.high / measured.factor
            slopes = {"slopes from": low, "to": high} if outside.roughness is Roughness.KINK else {"numerical": low}
            return index, {who: float(gradient[index]), **slopes}, None
        if cause in (Cause.BELOW_DIFFERENCES, Cause.FORWARDS_DIFFER, Cause.AUTODIFF_WRONG) and self.autodiff:
            theirs = self.autodiff.gradient[name]
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(gradient - theirs))), gradient.shape))
            return index, {who: float(gradient[index]), "autodiff": float(theirs[index])}, None
        if cause is not Cause.ANALYTIC_WRONG:
            return (), {}, None
        step = (
            min((p.numerical for p in measured.probes), key=lambda d: d.error).step if measured.probes else FIRST_STEP
        )
        kinks = [e.place for e in measured.kinks]  # where many slopes are right
        found = sample_elements(analytic, name, step, max(self.budget, FEWEST), self.samples, kinks)
        self.budget = self.budget // 2
        values = {who: float(gradient[found.worst]), "numerical": float(found.true[found.worst])}
        return found.worst, values, self._diagnosis(measured, analytic, found)

    def _diagnosis(self, measured: LeafMeasurement, analytic: Derivation, found: ElementSample) -> Diagnosis | None:
        """Returns the slip that explains a wrong gradient; None where none does."""
        name, scale = measured.name, analytic.factor(measured.name)
        true, accuracy = found.true, found.accuracy
        theirs = measured.autodiff_with_numerical
        if self.autodiff is not None and theirs is not None and theirs.within_tolerance and analytic is self.analytic:
            true, accuracy = self.autodiff.gradient[name], max(1e-12, analytic.noise.relative)
        evidence = DiagnosisInput(
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
            numbers=dict(self.checkable.numbers),
            integers=dict(self.checkable.integers),
            batch=dict(self.checkable.batch),
        )
        return diagnose(evidence)

    def _add(self, name: str, verdict: Verdict, cause: Cause, detail: str = "") -> None:
        self.done.append(Leaf(name, verdict, cause, self.checkable.derived_by, detail=detail))

    def _out_of_time(self, names: list[str]) -> None:
        judged = {leaf.name for leaf in self.done}
        for name in names:
            if name not in judged:
                self._add(name, Verdict.INCONCLUSIVE, Cause.OUT_OF_TIME)


def _from_above(checkable: Checkable, output: Array, rng: np.random.Generator) -> Array:
    """Draws a gradient from above without structure: no two of its elements are alike, and none is 0.

    It is 1 where the backward takes none.
    """
    if not checkable.takes_dout:
        return np.ones_like(output)
    drawn = rng.standard_normal(output.shape) if output.ndim else np.asarray(0.5 + rng.random())
    return drawn.astype(output.dtype)


def _copies(leaves: Leaves) -> Leaves:
    return {name: array.copy(order="K") for name, array in leaves.items()}
