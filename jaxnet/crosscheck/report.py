"""What a check found: made to be read, raised, kept or sent."""

import math
import warnings
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.explain import words
from jaxnet.crosscheck.explain.evidence import Slip
from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.measure.findings import Behaviour
from jaxnet.crosscheck.measure.other_points import Point

PROBABILITY = 0.99
NAMES_SHOWN = 23  # characters of a leaf's name in the table


@dataclass(frozen=True)
class Leaf:
    """The verdict on one gradient and the numbers behind it.

    Errors, tolerances and derivatives are in the gradient's own unit, but for the relative ones.

    Attributes:
        name: "Affine1.W", or an input's name.
        verdict: PASS, FAIL or INCONCLUSIVE.
        cause: Why.
        derived_by: Who made the gradient: "analytic", "JAX" or "PyTorch".
        relative_error: The largest error found, over the gradient's norm; nan where nothing was compared.
        relative_tolerance: The error, over the gradient's norm, that noise and step sizes explain.
        min_detectable_error: The norm of the smallest error, among the elements compared, that is caught with a
            probability of 0.99; nan where no such promise can be made.
        index: The element where the derivations are farthest apart; () for a number or where none was singled out.
        values: The derivatives by that element: "analytic" (or "JAX", ...), "numerical", and at a kink the slopes.
        gaps: Error and tolerance of every pair of derivations: "analytic - numerical", "analytic - autodiff", ...
        size: The number of elements.
        compared: The number of elements that probes compare; kinks are judged by their slopes.
        kinks: The number of elements found at kinks.
        unresolved: The number of elements that no step size resolves, and of which nothing is said.
        point: Where the leaf was judged.
        noise: The relative noise of the forward pass; that of its precision, or more.
        gradient_noise: The same of the gradient.
        slip: The slip that explains the error, None where none does.
        diagnosis: The same in words.
        detail: What the cause is about, in words: a form, an exception.
        notes: What a reader should know of a leaf that is not wrong.
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
    noise: float = 0.0
    gradient_noise: float = 0.0
    slip: Slip | None = None
    diagnosis: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The cause in a sentence; empty for a PASS."""
        return words.reason(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"reason": self.reason}


class InconclusiveWarning(UserWarning):
    """A check could neither confirm nor refute a gradient."""


@dataclass(frozen=True)
class Report:
    """The result of checking one layer, network or function.

    Attributes:
        subject: Its name.
        forward: The difference of the two forward passes, where there are two.
        leaves: A verdict each.
        behaviour: Faults beside the numbers, a sentence each; any of them makes the verdict FAIL.
        faults: What kinds of fault these are.
        undecided: Why nothing can be said of the whole, a sentence each; the verdict is INCONCLUSIVE at best.
        warnings: What these inputs cannot show, and what is risky without being wrong.
        notes: What was noticed and is neither.
        layers: Reports of a network's layers, each alone, in the order of the forward pass.
        calls: Forward passes that were run.
        seconds: How long the check took.
        seed: The seed of the check.
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
    calls: int = 0
    seconds: float = 0.0
    seed: int = 0

    @property
    def verdict(self) -> Verdict:
        """FAIL where a leaf, a layer or the behaviour fails or the forwards differ; PASS where every leaf passes.

        An inconclusive layer does not count: the network's own leaves were judged. Without leaves it is INCONCLUSIVE.
        """
        verdicts = {leaf.verdict for leaf in self.leaves}
        failing = verdicts | {layer.verdict for layer in self.layers}
        forwards_differ = self.forward is not None and not self.forward.within_tolerance
        if Verdict.FAIL in failing or self.behaviour or forwards_differ:
            return Verdict.FAIL
        return Verdict.PASS if verdicts == {Verdict.PASS} and not self.undecided else Verdict.INCONCLUSIVE

    def __bool__(self) -> bool:
        """Whether the verdict is PASS, so that `assert check_layer(...)` does what it says."""
        return self.verdict is Verdict.PASS

    def raise_if_failed(self) -> None:
        """Returns silently for a PASS, warns where the verdict is INCONCLUSIVE, and raises for a FAIL.

        Raises:
            AssertionError: If the verdict is FAIL; the message is the report.
        """
        if self.verdict is Verdict.FAIL:
            raise AssertionError(str(self))
        if self.verdict is Verdict.INCONCLUSIVE:
            warnings.warn(str(self), InconclusiveWarning, stacklevel=2)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, as for JSON: lists, dicts, strings and numbers; None for a number that is not finite."""
        shown = {f.name: getattr(self, f.name) for f in fields(self)}
        shown |= {
            "verdict": self.verdict,
            "leaves": [leaf.to_dict() for leaf in self.leaves],
            "layers": [layer.to_dict() for layer in self.layers],
        }
        return _plain(shown)

    def __str__(self) -> str:
        return "\n".join([f"{self.verdict}  {self.subject}", *words.findings(self), *self._table(), *self._asides()])

    def details(self) -> str:
        """Returns the report with every pair of derivations: errors, tolerances, steps and costs."""
        lines = [str(self)]
        for leaf in self.leaves:
            for pair, gap in leaf.gaps.items():
                lines.append(f"  {leaf.name}: {pair}: error {gap.error:.2e}, tolerance {gap.tolerance:.2e}")
        lines.append(f"  {self.calls:,} forward passes, {self.seconds:.2f} s, seed {self.seed}")
        for layer in self.layers:
            lines += ["", layer.details()]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        rows = [leaf for leaf in self.leaves if not math.isnan(leaf.relative_error)]
        if not rows:
            return []
        width = min(max(len(leaf.name) for leaf in rows), NAMES_SHOWN)
        lines = [f"  {'':<{width}}  {'':<12}  {'relative error':<14}  {'explained':<9}  worst at"]
        for leaf in rows:
            name = leaf.name if len(leaf.name) <= width else "..." + leaf.name[3 - width :]
            error, explained = f"{leaf.relative_error:.1e}", f"{leaf.relative_tolerance:.0e}"
            place = words.brackets(leaf.index)
            lines.append(f"  {name:<{width}}  {leaf.verdict:<12}  {error:<14}  {explained:<9}  {place}".rstrip())
        return lines

    def _asides(self) -> list[str]:
        lines = [f"  {line}" for line in words.certificate(self)]
        lines += [f"  note: {leaf.name}: {note}" for leaf in self.leaves for note in leaf.notes]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        for layer in self.layers:
            lines += [f"  note: {layer.subject}: {note}" for note in layer.notes]
            lines += [f"  warning: {layer.subject}: {text}" for text in layer.warnings if text not in self.warnings]
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, Gap):
        return {"error": _plain(value.error), "tolerance": _plain(value.tolerance)}
    if isinstance(value, Enum):
        return value.value if isinstance(value, str) else value.name
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
