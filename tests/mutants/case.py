"""What a planted bug is: a right layer with one gradient changed, in the way that people really get it wrong.

A family is a layer, as a pair of functions and its reference in JAX. Its mutants change one of the gradients that
`backward` returns, given the right one; its equivalents are other ways to write what is right. Where a family has
parameters, every second draw brings it in the class style of the book instead: W in an attribute, and dW beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Pair = tuple[Callable[..., Any], Callable[..., Any]]
Draw = Callable[[np.random.Generator, float], tuple[Any, ...]]  # (rng, scale of the inputs) -> what forward takes


class Brought(NamedTuple):
    """What is brought to a checker."""

    layer: Any
    inputs: tuple[Any, ...]
    reference: Callable[..., Any]  # in JAX, of (params, *inputs) where the layer has parameters, else of (*inputs)


@dataclass(frozen=True)
class Case:
    """Of the wrong ones, `leaf` is what is wrong; `says` is in the diagnosis or among the faults of behaviour."""

    name: str
    sentence: str
    make: Callable[[np.random.Generator, Any, float], Brought]  # (rng, dtype, scale)
    right: bool
    leaf: str = ""
    says: str = ""


CASES: dict[str, Case] = {}


class Family:
    """A layer and its mutants.

    Args:
        name: Of the right layer.
        names: What forward takes; the gradients that backward returns are of the first of them.
        forward: (*inputs) -> (y, cache).
        backward: (dout, cache) -> (gradients).
        draw: Inputs for a generator and a scale.
        reference: The same function in JAX.
        parameters: How many of the last inputs that have a gradient are parameters.
    """

    def __init__(
        self,
        name: str,
        names: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        draw: Draw,
        reference: Callable[..., Any],
        parameters: int = 0,
    ) -> None:
        self.name, self.names, self.draw = name, names.split(), draw
        self.forward, self.backward, self.reference, self.parameters = forward, backward, reference, parameters
        self.right("", "as it should be", self.backward)

    def wrong(
        self,
        name: str,
        leaf: str,
        sentence: str,
        gradient: Callable[..., Any],
        says: str = "",
        draw: Draw | None = None,
    ) -> None:
        """`gradient(dout, cache, right)` in place of the right gradient of a leaf."""
        place = self.names.index(leaf)

        def backward(dout: Any, cache: Any) -> Any:
            right = list(self.backward(dout, cache))
            right[place] = gradient(dout, cache, right[place])
            return tuple(right)

        self._add(name, sentence, (self.forward, backward), draw, right=False, leaf=leaf, says=says)

    def mismatched(self, name: str, leaf: str, sentence: str, forward: Callable[..., Any], says: str = "") -> None:
        """A forward that the backward does not belong to: it is the derivative of another function."""
        self._add(name, sentence, (forward, self.backward), None, right=False, leaf=leaf, says=says)

    def right(self, name: str, sentence: str, backward: Callable[..., Any], draw: Draw | None = None) -> None:
        """Another way to write it, or other inputs."""
        self._add(name, sentence, (self.forward, backward), draw, right=True)

    def _add(self, name: str, sentence: str, pair: Pair, draw: Draw | None, **expected: Any) -> None:
        def make(rng: np.random.Generator, dtype: Any, scale: float) -> Brought:
            inputs = tuple(in_dtype(given, dtype) for given in (draw or self.draw)(rng, scale))
            if self.parameters and rng.random() < 0.5:
                return self._as_class(pair, inputs)
            return Brought(pair, inputs, self.reference)

        add(Case(f"{self.name}_{name}".rstrip("_"), sentence, make, **expected))

    def _as_class(self, pair: Pair, inputs: tuple[Any, ...]) -> Brought:
        gradients = len(self.backward(np.ones_like(self.forward(*inputs)[0]), self.forward(*inputs)[1]))
        own = self.names[gradients - self.parameters : gradients]
        free = [i for i, name in enumerate(self.names[: len(inputs)]) if name not in own]
        order = self.names[: len(inputs)]

        class Layer:
            def __init__(self) -> None:
                for name, value in zip(order, inputs, strict=True):
                    if name in own:
                        setattr(self, name, value)

            def forward(self, *given: Any) -> Any:
                its = iter(given)
                y, self.cache = pair[0](*(getattr(self, name) if name in own else next(its) for name in order))
                return y

            def backward(self, dout: Any) -> Any:
                returned = pair[1](dout, self.cache)
                found = dict(zip(order[gradients - len(returned) :], returned, strict=False))
                for name in own:
                    setattr(self, f"d{name}", found.pop(name))
                return tuple(found.values())

        def reference(params: Any, *given: Any) -> Any:
            its = iter(given)
            return self.reference(*(params[name] if name in own else next(its) for name in order))

        return Brought(Layer(), tuple(inputs[i] for i in free), reference)


def add(case: Case) -> None:
    """Register a case under its name."""
    assert case.name not in CASES, case.name
    CASES[case.name] = case


def in_dtype(value: Any, dtype: Any) -> Any:
    """Float arrays in a dtype, all else as it is."""
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def size(rng: np.random.Generator, low: int = 2, high: int = 6) -> int:
    """Of an axis."""
    return int(rng.integers(low, high + 1))


def different(rng: np.random.Generator, count: int, low: int = 2, high: int = 7) -> list[int]:
    """Sizes of which no two are alike, so that no axis is taken for another."""
    return [int(n) for n in rng.permutation(np.arange(low, high + 1))[:count]]


def off_kinks(rng: np.random.Generator, *shape: int) -> Any:
    """Normal numbers, none near 0."""
    x = rng.standard_normal(shape)
    return x + 0.1 * np.sign(x)
