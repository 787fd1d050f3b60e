"""What a check found, by leaf: made to be read, raised or kept."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class Gap(NamedTuple):
    """How far two derivations of one number lie apart, and how far rounding and step size let them."""

    error: float
    tolerance: float

    @property
    def closed(self) -> bool:
        """False for nan, whatever the tolerance."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True)
class Leaf:
    """One array of gradients. Errors and tolerances are absolute, in the gradient's own unit."""

    name: str  # "Affine1.W", or an input's name
    verdict: Verdict
    blame: str  # which derivation dissents, and what that means; empty where none does
    index: tuple[int, ...]  # the element in which the derivations lie farthest apart
    values: dict[str, float]  # the derivative by that element: "hand", "autodiff", "difference"
    gaps: dict[str, Gap]  # "hand - autodiff" by element; "hand - difference", "autodiff - difference" along probes

    @property
    def error(self) -> float:
        """Of the gap that is widest for its tolerance."""
        return self._decisive.error

    @property
    def tolerance(self) -> float:
        """Of the same gap."""
        return self._decisive.tolerance

    @property
    def _decisive(self) -> Gap:
        return max(
            self.gaps.values(), key=lambda gap: (not gap.closed, gap.error / gap.tolerance if gap.tolerance else 0)
        )


@dataclass(frozen=True)
class Report:
    """Of one layer, network or function."""

    subject: str
    forward: Gap | None  # of the two forward passes, where there are two
    leaves: tuple[Leaf, ...]

    @property
    def verdict(self) -> Verdict:
        """FAIL where a leaf fails or the forwards differ; PASS where every leaf passes and there are some."""
        verdicts = {leaf.verdict for leaf in self.leaves}
        if "FAIL" in verdicts or (self.forward is not None and not self.forward.closed):
            return "FAIL"
        return "PASS" if verdicts == {"PASS"} else "INCONCLUSIVE"

    def raise_if_failed(self) -> None:
        """Pass in silence, or fail with the whole report as the message.

        Raises:
            AssertionError: The verdict is not PASS.
        """
        if self.verdict != "PASS":
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as for JSON."""
        return {"verdict": self.verdict} | asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.verdict}  {self.subject}"]
        if self.forward is not None and not self.forward.closed:
            lines.append(
                f"  the forwards differ by {self.forward.error:.2g}, rounding explains {self.forward.tolerance:.1g}: "
                "hand and reference are not the same function"
            )
        lines += [
            f"  {leaf.name}{_brackets(leaf.index)}: {_numbers(leaf)} -> {leaf.blame}"
            for leaf in self.leaves
            if leaf.blame
        ]
        if self.leaves:
            width = max(len(leaf.name) for leaf in self.leaves)
            lines.append(_row(width, "", "error / allowed:", self.leaves[0].gaps, "worst at"))
        for leaf in self.leaves:
            cells = [f"{gap.error:.1e}/{gap.tolerance:.0e}" for gap in leaf.gaps.values()]
            lines.append(_row(width, leaf.name, leaf.verdict, cells, _brackets(leaf.index)))
        return "\n".join(lines)


def _row(width: int, name: str, verdict: str, cells: Iterable[str], index: str) -> str:
    return "  ".join(["", f"{name:<{width}}", f"{verdict:<16}", *(f"{cell:>21}" for cell in cells), index])


def _brackets(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _numbers(leaf: Leaf) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in leaf.values.items())
