"""Builds planted bugs: right layers in which one gradient has a common mistake.

A family is a layer, as a pair of functions, with its reference in JAX. Its mutants change one of the gradients that
`backward` returns; its equivalents are other right ways to write it. If a family has parameters, half of the draws are
classes in the style of the book instead, with the attributes W and dW.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Pair = tuple[Callable[..., Any], Callable[..., Any]]
Draw = Callable[[np.random.Generator, float], tuple[Any, ...]]  # (rng, scale of the inputs) -> the arguments of forward


class Example(NamedTuple):
    """A layer, its inputs, and its reference."""

    layer: Any
    inputs: tuple[Any, ...]
    reference: Callable[..., Any]  # in JAX, takes (params, *inputs) if the layer has parameters, else (*inputs)


@dataclass(frozen=True)
class Case:
    """A right layer, or a wrong one with its wrong leaf and a phrase that the report must contain."""

    name: str
    sentence: str
    make: Callable[[np.random.Generator, Any, float], Example]  # (rng, dtype, scale)
    right: bool
    leaf: str = ""
    says: str = ""


CASES: dict[str, Case] = {}


class Family:
    """A layer and its mutants.

    Args:
        name: The name of the right layer.
        names: The names of the arguments of forward; backward returns gradients for the first of them.
        forward: (*inputs) -> (y, cache).
        backward: (dout, cache) -> (gradients).
        draw: Draws inputs, given a generator and a scale.
        reference: The same function in JAX.
        parameters: The number of inputs that are parameters, the last ones that have a gradient.
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
        """Adds a mutant that returns `gradient(dout, cache, right)` instead of the right gradient of a leaf."""
        place = self.names.index(leaf)

        def backward(dout: Any, cache: Any) -> Any:
            right = list(self.backward(dout, cache))
            right[place] = gradient(dout, cache, right[place])
            return tuple(right)

        self._add(name, sentence, (self.forward, backward), draw, right=False, leaf=leaf, says=says)

    def mismatched(self, name: str, leaf: str, sentence: str, forward: Callable[..., Any], says: str = "") -> None:
        """Adds a mutant with another forward, of which the backward is not the derivative."""
        self._add(name, sentence, (forward, self.backward), None, right=False, leaf=leaf, says=says)

    def right(self, name: str, sentence: str, backward: Callable[..., Any], draw: Draw | None = None) -> None:
        """Adds another right way to write the layer, or other inputs."""
        self._add(name, sentence, (self.forward, backward), draw, right=True)

    def _add(self, name: str, sentence: str, pair: Pair, draw: Draw | None, **expected: Any) -> None:
        def make(rng: np.random.Generator, dtype: Any, scale: float) -> Example:
            inputs = tuple(in_dtype(value, dtype) for value in (draw or self.draw)(rng, scale))
            if self.parameters and rng.random() < 0.5:
                return self._as_class(pair, inputs)
            return Example(pair, inputs, self.reference)

        add(Case(f"{self.name}_{name}".rstrip("_"), sentence, make, **expected))

    def _as_class(self, pair: Pair, inputs: tuple[Any, ...]) -> Example:
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
                remaining = iter(given)
                y, self.cache = pair[0](*(getattr(self, name) if name in own else next(remaining) for name in order))
                return y

            def backward(self, dout: Any) -> Any:
                returned = pair[1](dout, self.cache)
                gradients_by_name = dict(zip(order[gradients - len(returned) :], returned, strict=False))
                for name in own:
                    setattr(self, f"d{name}", gradients_by_name.pop(name))
                return tuple(gradients_by_name.values())

        def reference(params: Any, *given: Any) -> Any:
            remaining = iter(given)
            return self.reference(*(params[name] if name in own else next(remaining) for name in order))

        return Example(Layer(), tuple(inputs[i] for i in free), reference)


def add(case: Case) -> None:
    """Registers a case under its name."""
    assert case.name not in CASES, case.name
    CASES[case.name] = case


def in_dtype(value: Any, dtype: Any) -> Any:
    """Returns a float array in another dtype, and any other value unchanged."""
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def size(rng: np.random.Generator, low: int = 2, high: int = 6) -> int:
    """Returns the size of an axis."""
    return int(rng.integers(low, high + 1))


def different(rng: np.random.Generator, count: int, low: int = 2, high: int = 7) -> list[int]:
    """Returns different sizes, so that no axis can be mistaken for another."""
    return [int(n) for n in rng.permutation(np.arange(low, high + 1))[:count]]


def off_kinks(rng: np.random.Generator, *shape: int) -> Any:
    """Returns normal numbers, none of them near 0."""
    x = rng.standard_normal(shape)
    return x + 0.1 * np.sign(x)
