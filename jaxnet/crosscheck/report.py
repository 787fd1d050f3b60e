"""Defines the report of a check: readable as text, usable in a test, and convertible to plain data."""

import math
import warnings
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.element_errors import ElementErrors
from jaxnet.crosscheck.explain import printed_report, report_lines
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.gradient_line import SourceLine
from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.measure.findings import Behaviour
from jaxnet.crosscheck.measure.other_points import Point
from jaxnet.crosscheck.step_curves import StepCurves

PROBABILITY = 0.99


@dataclass(frozen=True)
class Leaf:
    """The verdict on one gradient and the numbers behind it.

    Errors, tolerances and derivatives have the unit of the gradient, except the relative ones.

    Attributes:
        name: The name of the parameter or input, such as "Affine1.W".
        verdict: PASS, FAIL or INCONCLUSIVE.
        cause: The reason for the verdict.
        derived_by: The source of the gradient: "analytic", or the framework that derives it, such as "JAX".
        relative_error: The largest error found, divided by the gradient's norm; nan if nothing was compared.
        relative_tolerance: The error that noise and step sizes explain, divided by the gradient's norm.
        min_detectable_error: The norm of the smallest error, among the elements compared, that is caught with
            probability 0.99; nan if there is no such guarantee.
        index: The element where the derivations differ most; () for a scalar, or if no element stands out.
        values: The derivatives at that element: "analytic" (or "JAX", ...), "numerical", and at a kink the slopes.
        gaps: The error and tolerance of each pair of derivations, such as "analytic - numerical".
        size: The number of elements.
        compared: The number of elements that the probes compare. Elements at kinks are judged by their slopes.
        kinks: The number of elements at kinks.
        unresolved: The number of elements that no step size resolves, and that are not judged.
        point: The point at which the leaf was judged.
        rounding_ratio: The error of a gradient in 16 bits, in units of the error of rounding the inputs, `dout` and the
            result once; nan for other dtypes, or if no finer computation is at hand.
        noise: The relative noise of the forward pass, at least that of its precision.
        gradient_noise: The relative noise of the gradient.
        slip: The slip that explains the error, or None if none does.
        diagnosis: The slip in words.
        detail: Details of the cause in words, such as an exception.
        notes: Remarks on a leaf that is not wrong.
        rule: The name of the function whose backward pass the framework calls, such as a `jax.custom_vjp`, or empty.
        element_errors: The errors of single elements of a wrong matrix, for a figure; None for other leaves.
    """

    name: str
    verdict: Verdict
    cause: Cause
    derived_by: str = "analytic"
    relative_error: float = math.nan
    relative_tolerance: float = math.nan
    min_detectable_error: float = math.nan
    index: tuple[int, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, Gap] = field(default_factory=dict)
    size: int = 0
    compared: int = 0
    kinks: int = 0
    unresolved: int = 0
    point: Point = Point.GIVEN
    rounding_ratio: float = math.nan
    noise: float = 0.0
    gradient_noise: float = 0.0
    slip: Slip | None = None
    diagnosis: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    rule: str = field(default="", compare=False, repr=False)
    element_errors: ElementErrors | None = field(default=None, compare=False, repr=False)

    @property
    def reason(self) -> str:
        """Returns the cause in one sentence, or "" for a PASS."""
        return report_lines.reason(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data."""
        return _without_figures(self) | {"reason": self.reason}


class InconclusiveWarning(UserWarning):
    """Warns that a check could neither confirm nor refute a gradient."""


@dataclass(frozen=True, repr=False)
class Report:
    """The result of checking one layer, network or function.

    Attributes:
        subject: The name of what was checked.
        forward: The difference between the two forward passes, or None without a reference.
        leaves: The verdicts on the gradients.
        behaviour: Faults other than wrong numbers, one sentence each. Any of them makes the verdict FAIL.
        faults: The kinds of these faults.
        undecided: Reasons why nothing can be said about the whole, one sentence each. With one, the verdict is
            INCONCLUSIVE at best.
        warnings: Things that these inputs cannot show, and risks that are not faults.
        notes: Other remarks.
        layers: The reports of a network's layers, each on its own, in the order of the forward pass.
        derivatives: The report of the gradient's own derivative, if `order` asks for it.
        points: The reports at each of several inputs, if `shapes` asks for them; then there are no leaves here.
        calls: The number of forward passes.
        seconds: The time that the check took.
        seed: The seed of the check.
        step_curves: The errors by step size, for a figure; None if nothing was measured.
        lines: The line of code that computes each gradient that fails, by leaf, or that of the backward pass by "" if
            no single one fails. A PASS has none, and neither have gradients that are not written in Python.
    """

    subject: str
    forward: Gap | None
    leaves: tuple[Leaf, ...]
    behaviour: tuple[str, ...] = ()
    faults: tuple[Behaviour, ...] = ()
    undecided: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers: tuple["Report", ...] = ()
    derivatives: tuple["Report", ...] = ()
    points: tuple["Report", ...] = ()
    calls: int = 0
    seconds: float = 0.0
    seed: int = 0
    step_curves: StepCurves | None = field(default=None, compare=False, repr=False)
    lines: dict[str, SourceLine] = field(default_factory=dict, compare=False, repr=False)

    @property
    def verdict(self) -> Verdict:
        """FAIL if a leaf, a layer or the behaviour fails, or the forwards differ; PASS if every leaf passes.

        An inconclusive layer has no effect, because the network's own leaves were judged. A report without leaves is
        INCONCLUSIVE.
        """
        verdicts = {leaf.verdict for leaf in self.leaves}
        if self.points:
            at_points = {report.verdict for report in self.points}
            return next(v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS) if v in at_points)
        derivatives = {report.verdict for report in self.derivatives}
        failing = verdicts | derivatives | {layer.verdict for layer in self.layers}
        forwards_differ = self.forward is not None and not self.forward.within_tolerance
        if Verdict.FAIL in failing or self.behaviour or forwards_differ:
            return Verdict.FAIL
        passes = verdicts == {Verdict.PASS} and Verdict.INCONCLUSIVE not in derivatives and not self.undecided
        return Verdict.PASS if passes else Verdict.INCONCLUSIVE

    def __bool__(self) -> bool:
        """Returns whether the verdict is PASS, so that `assert check_layer(...)` is a test."""
        return self.verdict is Verdict.PASS

    def raise_if_failed(self) -> None:
        """Raises for a FAIL, and issues an `InconclusiveWarning` if the verdict is INCONCLUSIVE.

        Raises:
            AssertionError: If the verdict is FAIL; the message is the report.
        """
        if self.verdict is Verdict.FAIL:
            raise AssertionError(str(self))
        if self.verdict is Verdict.INCONCLUSIVE:
            warnings.warn(str(self), InconclusiveWarning, stacklevel=2)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as data for JSON, with None for numbers that are not finite."""
        data = _without_figures(self)
        data |= {
            "verdict": self.verdict,
            "leaves": [leaf.to_dict() for leaf in self.leaves],
            "layers": [layer.to_dict() for layer in self.layers],
            "derivatives": [report.to_dict() for report in self.derivatives],
            "points": [report.to_dict() for report in self.points],
            "lines": {name: str(line) for name, line in self.lines.items()},
        }
        return _plain(data)

    def __repr__(self) -> str:
        """Returns the report as it is printed, which an interactive session and a failed assertion of pytest show."""
        return self.text()

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """Returns the report as a notebook shows it."""
        from jaxnet.crosscheck.explain.report_html import report_html  # only a notebook needs it

        return report_html(self)

    def text(self, *, width: int | None = None) -> str:
        """Returns the report as it is printed: one line for a PASS, with what is wrong and the table for the others.

        Args:
            width: The most characters of a line, 40 or more. Defaults to one line for each sentence.
        """
        return printed_report.text(self, details=False, width=width)

    def details(self, *, width: int | None = None) -> str:
        """Returns the report with all leaves, the error of each pair of derivations, and the cost of the check.

        Args:
            width: The most characters of a line, as in `text`.
        """
        return printed_report.text(self, details=True, width=width)


def _without_figures(result: Leaf | Report) -> dict[str, Any]:
    """Returns the fields by name, without those that only figures need."""
    return {f.name: getattr(result, f.name) for f in fields(result) if f.compare}


def _plain(value: Any) -> Any:
    """Returns a value as data for JSON."""
    if isinstance(value, Gap):
        return {"error": _plain(value.error), "tolerance": _plain(value.tolerance)}
    if isinstance(value, Enum):
        return value.value if isinstance(value, str) else value.name
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
