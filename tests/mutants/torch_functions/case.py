"""Registers right and wrong `torch.autograd.Function`s, each with the ability that a checker needs to judge it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

Made = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its inputs
Draw = Callable[[torch.Generator], tuple[Any, ...]]


class Ability(StrEnum):
    """What a checker must look at to find a bug."""

    FIRST_ORDER = "first order"
    SECOND_ORDER = "second order"
    FORWARD_MODE = "forward mode"
    VMAP = "vmap"
    PARTIAL = "partial"  # a gradient of some inputs only
    UNDEFINED = "undefined dout"  # None as the upstream gradient of an output
    LAYOUT = "memory layout"
    REPEATABILITY = "repeatability"  # of a call, also after or between other calls
    LINEARITY = "linearity"  # in dout


@dataclass(frozen=True)
class TorchCase:
    """A right function, or a wrong one.

    Attributes:
        name: Its name.
        sentence: What it does, or what is wrong.
        make: Returns the function and its inputs, drawn with a generator.
        right: Whether it is right.
        ability: What a checker must look at.
        order: 2 if it can be differentiated twice.
        forward_mode: Whether it has a jvp.
        vmap: Whether it supports vmap.
    """

    name: str
    sentence: str
    make: Callable[[torch.Generator], Made]
    right: bool
    ability: Ability = Ability.FIRST_ORDER
    order: int = 2
    forward_mode: bool = False
    vmap: bool = False


TORCH_CASES: dict[str, TorchCase] = {}


def add(case: TorchCase) -> None:
    """Registers a case under its name."""
    assert case.name not in TORCH_CASES, case.name
    TORCH_CASES[case.name] = case


def wrong(sentence: str, draw: Draw, ability: Ability = Ability.FIRST_ORDER, **more: Any) -> Callable[[Any], Any]:
    """Returns a decorator that registers a Function, or a callable, as a planted bug."""
    return _registering(sentence, draw, right=False, ability=ability, **more)


def right(sentence: str, draw: Draw, **more: Any) -> Callable[[Any], Any]:
    """Returns a decorator that registers a Function, or a callable, as right."""
    return _registering(sentence, draw, right=True, **more)


def _registering(sentence: str, draw: Draw, **more: Any) -> Callable[[Any], Any]:
    def register(thing: Any) -> Any:
        f = thing.apply if isinstance(thing, type) else thing
        add(TorchCase(thing.__name__, sentence, lambda generator: (f, draw(generator)), **more))
        return thing

    return register


class Formula:
    """A function by formulas for its output and its gradients, of which single gradients are replaced by wrong ones.

    Args:
        name: The name of the right function.
        forward: (*inputs) -> y.
        backward: (dout, y, *inputs) -> the gradients of the first inputs; the other inputs get None.
        draw: Draws the inputs.
    """

    def __init__(self, name: str, forward: Callable[..., Any], backward: Callable[..., Any], draw: Draw) -> None:
        self.name, self.forward, self.backward, self.draw = name, forward, backward, draw
        self.right("", "as it should be", backward)

    def wrong(self, name: str, sentence: str, backward: Callable[..., Any], draw: Draw | None = None) -> None:
        """Adds a mutant with another backward, and perhaps other inputs."""
        self._add(name, sentence, backward, draw, right=False)

    def right(self, name: str, sentence: str, backward: Callable[..., Any], draw: Draw | None = None) -> None:
        """Adds another right way to write the backward, or other inputs."""
        self._add(name, sentence, backward, draw, right=True)

    def _add(self, name: str, sentence: str, backward: Callable[..., Any], draw: Draw | None, **expected: Any) -> None:
        forward, own_draw = self.forward, draw or self.draw

        class Rule(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Any) -> Any:
                y = forward(*inputs)
                ctx.save_for_backward(y, *inputs)
                return y

            @staticmethod
            def backward(ctx: Any, dout: Any) -> Any:
                gradients = backward(dout, *ctx.saved_tensors)
                gradients = gradients if isinstance(gradients, tuple) else (gradients,)
                return (*gradients, *[None] * (len(ctx.saved_tensors) - 1 - len(gradients)))

        Rule.__name__ = f"{self.name}_{name}".rstrip("_")
        add(TorchCase(Rule.__name__, sentence, lambda generator: (Rule.apply, own_draw(generator)), **expected))


def normal(generator: torch.Generator, *shape: int, dtype: Any = torch.float64) -> torch.Tensor:
    """Returns normal numbers of which none is near 0."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x + 0.1 * x.sign()).to(dtype)


def shapes(*all_shapes: tuple[int, ...], dtype: Any = torch.float64) -> Draw:
    """Returns a draw of normal numbers in these shapes."""
    return lambda generator: tuple(normal(generator, *shape, dtype=dtype) for shape in all_shapes)
