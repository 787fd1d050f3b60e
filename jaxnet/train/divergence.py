"""Where a number first stopped being one: a step made once more, and looked at value by value."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.train.step import Criterion, History, TrainState, loss_and_state, step_draws, train_step
from jaxnet.tree_paths import flatten


class DivergedError(ArithmeticError):
    """Something became nan or infinite.

    `step` is the first bad step, counted from 1, and `what` the first thing in it that went bad, such as "the output of
    Affine1", "the loss", "the gradient of Affine2.W". `history` ends before that step, and `state` is what it began
    with.
    """

    def __init__(self, message: str, step: int, what: str, history: History, state: TrainState) -> None:
        super().__init__(message)
        self.step, self.what, self.history, self.state = step, what, history, state


def first_bad(
    net: Layer,
    optimizer: optax.GradientTransformation,
    now: TrainState,
    x: Array,
    t: Array,
    *,
    criterion: Criterion,
    decay: Float[Array, ""] | None,
) -> str | None:
    """What a step makes first that is not finite, and how it is not: "the gradient of Affine2.W is nan", or None.

    In the order in which it makes them: values forward, gradients from the last layer to the first, the update.
    """
    names: list[str] = []

    @jax.jit
    def look(now: TrainState, x: Array, t: Array) -> Array:
        names.clear()
        bad = []
        for name, value in _made(net, optimizer, now, x, t, criterion, decay):
            names.append(name)
            bad.append(jnp.where(jnp.isnan(value).any(), 2, jnp.isinf(value).any()))
        return jnp.array(bad)

    found = look(now, x, t)
    return next(
        (f"{name} is {('infinite', 'nan')[how - 1]}" for name, how in zip(names, found, strict=True) if how), None
    )


def _made(
    net: Layer, optimizer: optax.GradientTransformation, now: TrainState, x: Array, t: Array, criterion: Criterion,
    decay: Float[Array, ""] | None,
) -> Iterator[tuple[str, Array]]:  # fmt: skip
    """All that a step makes, by name, in its order."""
    draws = step_draws(net, now.key, now.step, x)
    for name, value in _leaves(net, now.params):
        yield name, value
    for name, value in _outputs(net, now.params, now.net_state, x, draws):
        yield f"the output of {name}", value

    differentiate = jax.value_and_grad(loss_and_state, argnums=1, has_aux=True)
    (value, _), grads = differentiate(net, now.params, now.net_state, x, t, draws, criterion, decay)
    yield "the loss", value
    for name, grad in reversed(list(_leaves(net, grads))):
        yield f"the gradient of {name}", grad

    after, _ = train_step(net, optimizer, now, x, t, criterion=criterion, decay=decay)
    for name, value in flatten(after.net_state).items():
        yield f"{name}, updated,", value
    for path, value in jax.tree_util.tree_leaves_with_path(after.opt_state):
        yield f"the optimizer's {_said(path)}, updated,", value
    for name, value in _leaves(net, after.params):
        yield f"{name}, updated,", value


def _said(path: Sequence[Any]) -> str:
    """Of a leaf in optax's state: (0, "nu", "Affine1", "W") is "nu of Affine1.W"."""
    attributes = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
    return " of ".join(filter(None, (".".join(attributes), ".".join(names)))) or "state"


def _leaves(layer: Layer, tree: Params, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """The leaves as the layers stand one after the other: a tree that JAX has returned is sorted by name."""
    if not layer.layers:
        yield from flatten(tree, prefix).items()
    for name, inner in layer.layers.items():
        yield from _leaves(inner, tree.get(name, {}), f"{prefix}{name}.")


def _outputs(
    layer: Layer, params: Params, state: Tree, x: Array, draws: Tree, prefix: str = ""
) -> Iterator[tuple[str, Array]]:
    """What each layer makes in training, those within a layer before it."""
    for name, inner in layer.layers.items():
        trees = [tree.get(name, {}) for tree in (params, state, draws)]
        yield from _outputs(inner, trees[0], trees[1], x, trees[2], f"{prefix}{name}.")
        x, _ = inner.train(trees[0], trees[1], x, trees[2])
        yield f"{prefix}{name}", x
