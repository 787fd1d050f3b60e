"""Kinds of input to the cross-check, wrong and right, as in public code, each with the expected verdict.

A kind is a function of a seed, which draws inputs and sizes of that seed and calls one of the checks. Modules called
`wrong_*` and `right_*` in this folder register their kinds when they are imported, which this module does last.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck import Report

Run = Callable[[int], Report]


@dataclass(frozen=True)
class Kind:
    """An input to the cross-check and the result that is expected.

    Args:
        name: "group/what-it-is".
        sentence: What is wrong, or why it is right.
        right: Whether the gradient is right.
        run: Runs the check for a seed, which chooses inputs and sizes. Raises ImportError if a framework is missing.
        says: A regular expression that must be in the report, if a name is expected.
        never: A regular expression that must not be in it.
        undecided: Whether INCONCLUSIVE is also allowed.
        off: The smallest relative error of a leaf that an independent derivation must find.
        step: The relative step of that derivation; large if the forward pass computes in float32.
        true: Returns that error for a seed, if the general method of `truth.py` does not show it.
    """

    name: str
    sentence: str
    right: bool
    run: Run
    says: str = ""
    never: str = ""
    undecided: bool = False
    off: float = 1e-3
    step: float = 1e-3
    true: Callable[[int], float] | None = None

    @property
    def allowed(self) -> set[str]:
        """The verdicts that are allowed."""
        return {"PASS" if self.right else "FAIL"} | ({"INCONCLUSIVE"} if self.undecided else set())


KINDS: dict[str, Kind] = {}


def wrong(name: str, sentence: str, **expected: Any) -> Callable[[Run], Run]:
    """Registers a check of a wrong gradient; `expected` as in `Kind`."""
    return _registering(name, sentence, right=False, **expected)


def right(name: str, sentence: str, **expected: Any) -> Callable[[Run], Run]:
    """Registers a check of a right gradient; `expected` as in `Kind`."""
    return _registering(name, sentence, right=True, **expected)


def _registering(name: str, sentence: str, **expected: Any) -> Callable[[Run], Run]:
    name = f"{'right' if expected['right'] else 'wrong'}/{name}"

    def register(run: Run) -> Run:
        if name in KINDS:
            raise ValueError(f"two kinds are called {name}")
        KINDS[name] = Kind(name, sentence, run=run, **expected)
        return run

    return register


class Draw:
    """Draws the inputs of a seed.

    Args:
        seed: The seed; the numbers of two seeds are independent.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 20_231])

    def __call__(self, *shape: int, dtype: Any = np.float64) -> Any:
        """Returns normal numbers."""
        return self.rng.normal(size=shape).astype(dtype)

    def off_zero(self, *shape: int, gap: float = 0.2) -> Any:
        """Returns numbers whose distance from 0 is at least `gap`."""
        x = self.rng.normal(size=shape)
        return x + gap * np.where(x < 0, -1.0, 1.0)

    def positive(self, *shape: int, low: float = 0.5, high: float = 2.0) -> Any:
        """Returns numbers between `low` and `high`."""
        return self.rng.uniform(low, high, shape)

    def sizes(self, count: int, low: int = 3, high: int = 7) -> list[int]:
        """Returns different sizes, so that no axis can be mistaken for another."""
        return [int(n) for n in self.rng.permutation(np.arange(low, high + 1))[:count]]

    def labels(self, count: int, classes: int) -> Any:
        """Returns class numbers."""
        return self.rng.integers(0, classes, count)


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    if _module.startswith(("wrong_", "right_")):
        importlib.import_module(f"{__name__}.{_module}")
