"""Defines trials: checks of a right layer, or of one with an error of known size in one leaf."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import Report, check_layer
from jaxnet.crosscheck.context import draw_dout
from jaxnet.crosscheck.inspect import dispatch
from jaxnet.crosscheck.streams import Stream, stream

TRIAL_SECONDS = 60
ERRORS = (0.01, 0.03, 0.1)
STRUCTURES = ("factor", "row", "element", "direction")
EPS = 1e-5


class Operation(NamedTuple):
    """A function with its gradient, `forward(xp, *inputs)` and `backward(dout, *inputs)`, and how inputs are drawn."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    draw: Callable[[np.random.Generator], list[Any]]


@dataclass(frozen=True)
class Wrong:
    """An error of a known relative size in one leaf, linear in dout."""

    leaf: int
    size: float
    structure: str
    seed: int
    place: int = 0

    def apply(self, gradient: Any) -> Any:
        """Returns the gradient with the error."""
        g = np.array(gradient, order="C")
        flat = g.reshape(-1)
        place = np.random.default_rng([self.seed, 1])
        if self.structure == "factor":
            return g * g.dtype.type(1 + self.size)
        if self.structure == "row" and g.ndim:
            g[int(place.integers(len(g)))] *= g.dtype.type(1 + self.size)
            return g
        if self.structure == "element":
            flat[self.place] *= g.dtype.type(1 + self.size)
            return g
        return (g * (1 + self.size * place.standard_normal(g.shape))).astype(g.dtype)


@dataclass(frozen=True)
class Trial:
    """A check, and whether the gradient is right.

    Attributes:
        run: Runs the check.
        right: Whether the gradient is right.
        about: A description.
        error: Returns the error of the wrong leaf at the checker's dout, and the gradient's norm.
        leaf: The wrong leaf.
        allowed: The verdicts that are allowed, if they do not follow from `right`.
        truth: Returns the distance of the right gradient from JAX's in float64, for each leaf, near the inputs.
    """

    run: Callable[[], Report]
    right: bool
    about: str
    error: Callable[[], tuple[float, float]] | None = None
    leaf: str = ""
    allowed: frozenset[str] = frozenset()
    truth: Callable[[], list[float]] | None = None


def narrow(value: Any) -> Any:
    """Returns a float array as float32, and any other value unchanged."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def pair_of(op: Operation, wrong: Wrong | None, inside: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns an operation as a pair of functions; `inside` is "", "float32" or "forward" (float32 there only)."""

    def forward(*inputs: Any) -> Any:
        narrowed = [narrow(x) for x in inputs] if inside else inputs
        return op.forward(np, *narrowed), inputs

    def backward(dout: Any, inputs: Any) -> Any:
        if inside == "float32":
            dout, inputs = np.asarray(dout).astype(np.float32), [narrow(x) for x in inputs]
        gradients = list(op.backward(dout, *inputs))
        if wrong is not None:
            gradients[wrong.leaf] = wrong.apply(gradients[wrong.leaf])
        return tuple(gradients)

    return forward, backward


def trial_of(op: Operation, rng: np.random.Generator, seed: int, about: str, dtypes: Any, insides: Any) -> Trial:
    """Returns a check of an operation in a random form, right or with a random error."""
    inputs = op.draw(rng)
    dtype = rng.choice(dtypes)
    inputs = [x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in inputs]
    inside = str(rng.choice(insides))
    floats = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    wrong = None
    if rng.random() < 0.5:
        leaf, size = int(rng.integers(len(floats))), float(rng.choice(ERRORS))
        wrong = Wrong(leaf, size, str(rng.choice(STRUCTURES)), seed)
    with_reference = rng.random() < 0.1 and seed % 3 == 0
    reference = (lambda *a: op.forward(jnp, *a)) if with_reference else None
    right_pair = pair_of(op, None, inside)
    if wrong is not None:
        wrong = replace(wrong, place=int(np.abs(_gradient(right_pair, inputs, wrong.leaf)).argmax()))
    pair = pair_of(op, wrong, inside)
    about = f"{about} {dtype} {inside and 'inside ' + inside} {[np.shape(x) for x in inputs]} {wrong or 'right'}"
    about += " with reference" if with_reference else ""
    run = lambda: check_layer(pair, *inputs, reference=reference, name="fuzzed")  # noqa: E731

    def error() -> tuple[float, float]:
        """Compares both backward passes at the dout of the check."""
        true, claimed = (_gradient(each, inputs, wrong.leaf if wrong else 0) for each in (right_pair, pair))
        smooth = _smooth(right_pair, wide, wrong.leaf if wrong else 0) if gridded else 1.0
        return float(np.linalg.norm((claimed - true) * smooth)), float(np.linalg.norm(true))

    def truth() -> list[float]:
        """Compares the right backward pass with JAX's."""
        drawn = np.random.default_rng(seed + 5)
        moves = [
            1e-9 * drawn.standard_normal(np.shape(x)) if gridded and i in floats else 0 for i, x in enumerate(wide)
        ]
        return against_jax(op, [x + move for x, move in zip(wide, moves, strict=True)])

    gridded = "grid" in about
    wide = [x.astype(np.float64) if i in floats else x for i, x in enumerate(inputs)]
    names = list(dispatch.layer_to_checkable(pair, tuple(inputs), 0).leaves)
    return Trial(run, wrong is None, about, error if wrong else None, names[wrong.leaf] if wrong else "", truth=truth)


def against_jax(op: Operation, inputs: list[Any]) -> list[float]:
    """Returns the relative distance of an operation's gradients to JAX's, in float64."""
    with jax.enable_x64(True):
        floats = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]

        def of_floats(*values: Any) -> Any:
            arguments = dict(zip(floats, values, strict=True))
            return op.forward(jnp, *(arguments.get(i, x) for i, x in enumerate(inputs)))

        output, back = jax.vjp(of_floats, *(jnp.asarray(inputs[i]) for i in floats))
        dout = np.random.default_rng(1).standard_normal(output.shape)
        true = [np.asarray(g) for g in back(jnp.asarray(dout))]
    claimed = op.backward(dout, *inputs)
    return [float(np.linalg.norm(c - t) / (np.linalg.norm(t) or 1.0)) for c, t in zip(claimed, true, strict=True)]


def _smooth(pair: Any, inputs: list[Any], leaf: int) -> Any:
    """Returns which elements have the same gradient around the point; the others are at kinks and are not certified."""
    rng = np.random.default_rng(9)
    moved = [[x + 1e-5 * rng.standard_normal(x.shape) if x.dtype.kind == "f" else x for x in inputs] for _ in range(12)]
    around = np.array([_gradient(pair, point, leaf) for point in moved])
    return np.ptp(around, axis=0) <= 1e-3 * np.abs(around).max()


def _gradient(pair: Any, inputs: list[Any], leaf: int) -> Any:
    """Returns the gradient of a leaf at the dout of the check."""
    checkable = dispatch.layer_to_checkable(pair, tuple(inputs), 0)
    output = checkable.forward(checkable.leaves)
    dout = draw_dout(checkable, output, stream(Stream.DOUT, 0))
    return np.asarray(list(checkable.backward(checkable.leaves, dout).values())[leaf], np.float64)
