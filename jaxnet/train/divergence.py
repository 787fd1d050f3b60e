"""Finds the first non-finite value in a training step, and explains it."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.nn.tree_paths import leaves_by_path
from jaxnet.train.history import History
from jaxnet.train.step import Objective, TrainState, step_noise, update


class DivergedError(ArithmeticError):
    """Raised when a value in training is nan or infinite.

    Attributes:
        step: The first bad step, counted from 1.
        what: The first non-finite value in that step, such as "the output of Affine1 is nan" or "the loss is infinite".
        history: The history before that step.
        state: The state before that step.
    """

    def __init__(self, message: str, step: int, what: str, history: History, state: TrainState) -> None:
        super().__init__(message)
        self.step, self.what, self.history, self.state = step, what, history, state


def nonfinite_finder(
    objective: Objective, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Array, Array], str | None]:
    """Returns a function of (state, x, t) that names the first non-finite value of a step, or returns None.

    The values are looked at in the order of the computation. The function is compiled once, for many steps.
    """

    @jax.jit
    def faults(state: TrainState, x: Array, t: Array) -> OrderedDict[str, Array]:
        """Returns 0 for each finite value, 1 for an infinite one and 2 for nan; JAX would sort the keys of a dict."""
        values = _values(objective, optimizer, state, x, t)
        return OrderedDict((name, jnp.where(jnp.isnan(a).any(), 2, jnp.isinf(a).any())) for name, a in values)

    def first_nonfinite(state: TrainState, x: Array, t: Array) -> str | None:
        for name, fault in faults(state, x, t).items():
            if fault:
                return f"{name} is {'nan' if fault == 2 else 'infinite'}"
        return None

    return first_nonfinite


def diverged_error(what: str, history: History, state: TrainState, learning_rate: float | None) -> DivergedError:
    """Returns the error that reports `what` in the step after `state`; the history may reach beyond it."""
    done = int(state.step)
    evaluated = history.eval_step <= done
    history = History(history.loss[:done], *(values[evaluated] for values in history[1:]))
    advice = _advice(what, history.loss, state.params, learning_rate)
    return DivergedError(f"training diverged: {what} at step {done + 1}; {advice}", done + 1, what, history, state)


def _advice(what: str, losses: Any, params: Params, learning_rate: float | None) -> str:
    # In the first step, the learning rate affects nothing but the updated parameters.
    if not len(losses) and what.split(", updated,")[0] not in leaves_by_path(params):
        return "the run started that way: lower the initial standard deviation, or look for samples out of range"
    if learning_rate is None:
        advice = "the learning rate of the optimizer is probably too high"
    else:
        lower = min(learning_rate / 10, 0.1)
        advice = f"the learning rate {learning_rate:g} is probably too high, try {lower:g}"
    if not len(losses):
        return advice
    last = f" and {losses[-1]:.4g} at step {len(losses)}" if len(losses) > 1 else ""
    return f"the loss was {losses[0]:.4g} at step 1{last}: {advice}"


def _values(
    objective: Objective, optimizer: optax.GradientTransformation, state: TrainState, x: Array, t: Array
) -> Iterator[tuple[str, Array]]:
    """Yields the name of each value of a step and the value, in the order of the computation."""
    net, params, net_state = objective.net, state.params, state.net_state
    noise = step_noise(net, state.key, state.step, x)
    (loss, _), grads = jax.value_and_grad(objective.value, has_aux=True)(params, net_state, x, t, noise)
    after, _ = update(objective, optimizer, state, x, t)
    yield from _layer_leaves(net, params)
    for name, y in _layer_outputs(net, params, net_state, x, noise):
        yield f"the output of {name}", y
    yield "the loss", loss
    for name, grad in reversed(list(_layer_leaves(net, grads))):
        yield f"the gradient of {name}", grad
    for name, leaf in leaves_by_path(after.net_state).items():
        yield f"{name}, updated,", leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(after.opt_state):
        yield f"the optimizer's {_optax_name(path)}, updated,", leaf
    for name, leaf in _layer_leaves(net, after.params):
        yield f"{name}, updated,", leaf


def _optax_name(path: Sequence[Any]) -> str:
    """Names a leaf of optax's state: (0, "nu", "Affine1", "W") is "nu of Affine1.W"."""
    attributes = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
    return " of ".join(filter(None, (".".join(attributes), ".".join(names)))) or "state"


def _layer_leaves(layer: Layer, tree: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves by name in the order of the layers; JAX returns trees sorted by name."""
    if not layer.layers:
        yield from leaves_by_path(tree, prefix).items()
    for name, inner in layer.layers.items():
        yield from _layer_leaves(inner, tree.get(name, {}), f"{prefix}{name}.")


def _layer_outputs(
    layer: Layer, params: Params, net_state: Tree, x: Array, noise: Tree, prefix: str = ""
) -> Iterator[tuple[str, Array]]:
    """Yields each layer's name and its output in training: inner layers before the one that has them."""
    for name, inner in layer.layers.items():
        trees = [tree.get(name, {}) for tree in (params, net_state, noise)]
        yield from _layer_outputs(inner, trees[0], trees[1], x, trees[2], f"{prefix}{name}.")
        x, _ = inner.train(trees[0], trees[1], x, trees[2])
        yield f"{prefix}{name}", x
