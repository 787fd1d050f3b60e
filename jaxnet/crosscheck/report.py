"""What a check found, by leaf: made to be read, raised or kept."""

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

PROBES = 3  # random directions a leaf: a Gaussian one misses an error of norm e with probability 1.6 tolerance / e
PROBABILITY = 0.99

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class Gap(NamedTuple):
    """How far two derivations of one number lie apart, and how far rounding and step size let them."""

    error: float
    tolerance: float

    @property
    def closed(self) -> bool:
        """False for nan, whatever the tolerance."""
        return bool(self.error <= self.tolerance)

    def width(self) -> float:
        """The error in units of the tolerance, above 1 where it is not closed; a nan is the widest there is."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else self.error


NOTHING = Gap(math.nan, math.nan)


@dataclass(frozen=True)
class Leaf:
    """One array of gradients. Errors and tolerances are absolute, in the gradient's own unit."""

    name: str  # "Affine1.W", or an input's name
    verdict: Verdict
    blame: str  # which derivation dissents, and what that means; empty where none does
    index: tuple[int, ...]  # the element in which the derivations lie farthest apart
    values: dict[str, float]  # the derivative by that element: "hand", "autodiff", "difference"
    gaps: dict[str, Gap]  # "hand - autodiff" by element; "hand - difference", "autodiff - difference" along probes
    detects: float = math.nan  # the norm of the smallest error that the probes catch with this probability
    probability: float = PROBABILITY
    note: str = ""  # what a reader should know of a leaf that passed
    diagnosis: str = ""  # the slip that would explain the error, where one does

    @property
    def error(self) -> float:
        """Of the gap that is widest for its tolerance; nan where the form was wrong and nothing was compared."""
        return self._decisive.error

    @property
    def tolerance(self) -> float:
        """Of the same gap."""
        return self._decisive.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Its fields, and the gap that decided."""
        gaps = {name: gap._asdict() for name, gap in self.gaps.items()}
        return vars(self) | {"gaps": gaps, "error": self.error, "tolerance": self.tolerance}

    @property
    def _decisive(self) -> Gap:
        return max(self.gaps.values(), key=Gap.width, default=NOTHING)


class InconclusiveWarning(UserWarning):
    """A check could neither confirm nor refute a gradient."""


@dataclass(frozen=True)
class Report:
    """Of one layer, network or function."""

    subject: str
    forward: Gap | None  # of the two forward passes, where there are two
    leaves: tuple[Leaf, ...]
    behaviour: tuple[str, ...] = ()  # faults beside the numbers
    warnings: tuple[str, ...] = ()  # what these inputs cannot show, or what is risky without being wrong
    layers: tuple["Report", ...] = ()  # of a network's layers, each alone, in the order of the forward pass

    @property
    def verdict(self) -> Verdict:
        """FAIL where a leaf, a layer or the behaviour fails or the forwards differ; PASS where every leaf passes.

        An inconclusive layer does not count: the network's own leaves were judged. Without leaves it is INCONCLUSIVE.
        """
        verdicts = {leaf.verdict for leaf in self.leaves}
        failing = verdicts | {layer.verdict for layer in self.layers}
        if "FAIL" in failing or self.behaviour or (self.forward is not None and not self.forward.closed):
            return "FAIL"
        return "PASS" if verdicts == {"PASS"} else "INCONCLUSIVE"

    def raise_if_failed(self) -> None:
        """Pass in silence, or fail with the whole report as the message; INCONCLUSIVE is said aloud, as a warning.

        Raises:
            AssertionError: The verdict is FAIL.
        """
        if self.verdict == "FAIL":
            raise AssertionError(str(self))
        if self.verdict == "INCONCLUSIVE":
            warnings.warn(str(self), InconclusiveWarning, stacklevel=2)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as for JSON: lists, dicts, strings and numbers; None for a number that is not finite."""
        return _plain(
            {
                "verdict": self.verdict,
                "subject": self.subject,
                "forward": self.forward and self.forward._asdict(),
                "leaves": [leaf.to_dict() for leaf in self.leaves],
                "behaviour": self.behaviour,
                "warnings": self.warnings,
                "layers": [layer.to_dict() for layer in self.layers],
            }
        )

    def __str__(self) -> str:
        lines = [f"{self.verdict}  {self.subject}", *self.findings()]
        gaps = next((list(leaf.gaps) for leaf in self.leaves if leaf.gaps), [])
        if gaps:
            width = max(len(leaf.name) for leaf in self.leaves)
            lines.append(_row(width, "", "error / allowed:", gaps, "worst at"))
            for leaf in self.leaves:
                cells = [f"{gap.error:.1e}/{gap.tolerance:.0e}" for gap in leaf.gaps.values()]
                lines.append(_row(width, leaf.name, leaf.verdict, cells, _brackets(leaf.index)))
        least = max((leaf.detects for leaf in self.leaves), default=math.nan)
        if self.verdict == "PASS" and not math.isnan(least):
            lines.append(
                f"  an error of norm {least:.0e} in any of these leaves is caught with probability {PROBABILITY}"
            )
        lines += [f"  note: {leaf.name}: {leaf.note}" for leaf in self.leaves if leaf.note]
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])

    def findings(self) -> Iterator[str]:
        """What is wrong, a line each, what helps most first."""
        for layer in self.layers:
            if layer.verdict == "FAIL":
                yield f"  {layer.subject} is wrong on its own:"
                yield from (f"  {line}" for line in layer.findings())
        for leaf in self.leaves:
            if leaf.diagnosis:
                yield f"  {leaf.name}: the backward is wrong; {leaf.diagnosis}"
        yield from (f"  {fault}" for fault in self.behaviour)
        if self.forward is not None and not self.forward.closed:
            error, tolerance = self.forward
            yield f"  the forwards differ by {error:.2g}, rounding explains {tolerance:.1g}: they are two functions"
        for leaf in self.leaves:
            if leaf.blame:
                numbers = ", ".join(f"{name} {value:.6g}" for name, value in leaf.values.items())
                yield (
                    f"  {leaf.name}{_brackets(leaf.index)}: {numbers} -> {leaf.blame}" if numbers else f"  {leaf.blame}"
                )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(width: int, name: str, verdict: str, cells: Iterable[str], index: str) -> str:
    return "  ".join(["", f"{name:<{width}}", f"{verdict:<16}", *(f"{cell:>21}" for cell in cells), index]).rstrip()


def _brackets(index: tuple[int, ...]) -> str:
    """Empty of a number, and of a leaf that was not compared."""
    return f"[{', '.join(map(str, index))}]" if index else ""
