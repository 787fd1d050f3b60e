"""What training is: a loss, a step that makes it smaller, and all that the step changes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.nn.losses import l2_penalty, softmax_cross_entropy
from jaxnet.validation import check_counts

Criterion = Callable[[Array, Array], Float[Array, ""]]  # (y, t) -> what is made small, such as mean_squared_error
MOST = 2**31  # row numbers drawn at once are fewer
MakeOptimizer = Callable[[Any], optax.GradientTransformation]  # learning rate -> optimizer


class Optimizer(NamedTuple):
    """An optax optimizer by name, and the learning rate that it is usually run at."""

    make: MakeOptimizer
    learning_rate: float


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(optax.sgd, 0.1),
    "momentum": Optimizer(partial(optax.sgd, momentum=0.9), 0.01),
    "nesterov": Optimizer(partial(optax.sgd, momentum=0.9, nesterov=True), 0.01),
    "adagrad": Optimizer(optax.adagrad, 0.01),
    "rmsprop": Optimizer(optax.rmsprop, 0.001),
    "adam": Optimizer(optax.adam, 0.001),
    "adamw": Optimizer(optax.adamw, 0.001),
}


class TrainState(NamedTuple):
    """All that a step changes, and the key that all its randomness comes from."""

    params: Params
    net_state: Tree  # what the layers gather: running statistics
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Int[Array, ""]


class History(NamedTuple):
    """S steps, E evaluations: one before the first step, one every `eval_every` steps, one after the last."""

    loss: Float[Array | np.ndarray, " S"]  # of each step's batch, before its update, in nats
    eval_step: Int[Array | np.ndarray, " E"]  # steps done
    train_accuracy: Float[Array | np.ndarray, " E"]  # in [0, 1]
    test_accuracy: Float[Array | np.ndarray, " E"]


class Stage(NamedTuple):
    """A run as far as it has come: all that the next step needs, and what the steps until then have shown."""

    state: TrainState
    history: History


def draw_batches(key: PRNGKeyArray, samples: int, batch_size: int, steps: int) -> Int[Array, "S B"]:
    """Row numbers in [0, samples), one row a step: each batch is drawn with replacement, as the notebook draws.

    Raises:
        ValueError: A count is below 1, or they make 2³¹ row numbers or more.
    """
    check_counts(samples=samples, batch_size=batch_size, steps=steps)
    if steps * batch_size >= MOST:
        raise ValueError(f"steps, batch_size: {steps}, {batch_size}, expected fewer than {MOST:,} row numbers in all")
    return jax.random.randint(key, (steps, batch_size), 0, samples)


def init_train_state(
    net: Layer, optimizer: optax.GradientTransformation, params: Params, key: PRNGKeyArray, state: Tree | None = None
) -> TrainState:
    """Before the first step: the layers' state, the network's own by default, takes the parameters' dtype."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), net.state if state is None else state)
    return TrainState(params, state, optimizer.init(params), key, jnp.zeros((), jnp.int32))


def step_draws(net: Layer, key: PRNGKeyArray, step: int | Int[Array, ""], x: Any) -> Tree:
    """What the training step with this key and number draws for a batch of the shape of x, counting from 0.

    Plain arrays by layer name, {"Dropout1": {"mask": ...}}: a network built by hand can be given the same. The key
    does not change from step to step, so a network that draws nothing pays nothing.
    """
    return net.draw(jax.random.fold_in(key, step), x)


def loss(
    net: Layer,
    params: Params,
    x: Array,
    t: Array,
    draws: Tree | None = None,
    *,
    criterion: Criterion = softmax_cross_entropy,
    decay: float | Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """What training makes small: the criterion of `net.train`'s outputs, and weight decay where its strength is given.

    A network that draws, for Dropout, needs `draws`, as from `step_draws`.
    """
    return loss_and_state(net, params, net.state, x, t, draws or {}, criterion, decay)[0]


def train_step(
    net: Layer,
    optimizer: optax.GradientTransformation,
    now: TrainState,
    x: Array,
    t: Array,
    *,
    criterion: Criterion = softmax_cross_entropy,
    decay: float | Float[Array, ""] | None = None,
) -> tuple[TrainState, Float[Array, ""]]:
    """One update from the batch x (B, ...), t (B,) or (B, C); and the loss before it."""
    draws = step_draws(net, now.key, now.step, x)
    differentiate = jax.value_and_grad(loss_and_state, argnums=1, has_aux=True)
    (value, state), grads = differentiate(net, now.params, now.net_state, x, t, draws, criterion, decay)
    updates, opt_state = optimizer.update(grads, now.opt_state, now.params)
    return TrainState(optax.apply_updates(now.params, updates), state, opt_state, now.key, now.step + 1), value


def loss_and_state(
    net: Layer, params: Params, state: Tree, x: Array, t: Array, draws: Tree, criterion: Criterion, decay: Any
) -> tuple[Float[Array, ""], Tree]:
    """What a step differentiates, and the layers' new state beside it."""
    y, state = net.train(params, state, x, draws)
    value = criterion(y, t)
    return (value if decay is None else value + l2_penalty(params, decay)), state
