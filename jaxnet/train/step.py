"""The training step: the objective, the optimizers, and the state that a step updates."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnet.common.outline import outline
from jaxnet.common.validation import check_counts, check_key
from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.nn.losses import l2_penalty, softmax_cross_entropy

Criterion = Callable[[Array, Array], Float[Array, ""]]  # (y, t) -> a scalar loss, such as mean_squared_error
MakeOptimizer = Callable[[Any], optax.GradientTransformation]  # learning rate -> optimizer
Optimizer = str | MakeOptimizer | optax.GradientTransformation
MAX_ROW_NUMBERS = 2**31 - 1  # in one call of `draw_batches`, and the largest of them


class OptimizerDefaults(NamedTuple):
    """An optax optimizer and its default learning rate."""

    make: MakeOptimizer
    learning_rate: float


OPTIMIZERS: dict[str, OptimizerDefaults] = {
    "sgd": OptimizerDefaults(optax.sgd, 0.1),
    "momentum": OptimizerDefaults(partial(optax.sgd, momentum=0.9), 0.01),
    "nesterov": OptimizerDefaults(partial(optax.sgd, momentum=0.9, nesterov=True), 0.01),
    "adagrad": OptimizerDefaults(optax.adagrad, 0.01),
    "rmsprop": OptimizerDefaults(optax.rmsprop, 0.001),
    "adam": OptimizerDefaults(optax.adam, 0.001),
    "adamw": OptimizerDefaults(optax.adamw, 0.001),
}

SCHEDULES: dict[str, Callable[[Any, int], Any]] = {  # (first learning rate, steps) -> that of each step
    "constant": lambda learning_rate, _steps: learning_rate,
    "cosine": optax.cosine_decay_schedule,
}


class TrainState(NamedTuple):
    """The state that a training step updates, and the key of its randomness."""

    params: Params
    net_state: Tree  # the layers' running statistics
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Int[Array, ""]  # steps done

    def __repr__(self) -> str:
        """Returns the shapes of the fields."""
        return outline(self)


class Objective(NamedTuple):
    """The function that training minimizes: criterion(y, t) + weight_decay/2 Σ W², with y the network's output."""

    net: Layer
    criterion: Criterion = softmax_cross_entropy
    weight_decay: float | Float[Array, ""] | None = None

    def value(self, params: Params, net_state: Tree, x: Array, t: Array, noise: Tree) -> tuple[Float[Array, ""], Tree]:
        """Returns the objective on a batch, and the layers' new state."""
        y, net_state = self.net.train(params, net_state, x, noise)
        loss = self.criterion(y, t)
        if jnp.shape(loss) != ():
            raise ValueError(f"criterion: returns an array of shape {jnp.shape(loss)}, expected a single number")
        if self.weight_decay is not None:
            loss += l2_penalty(params, self.weight_decay)
        return loss, net_state


def params_dtype(params: Params) -> np.dtype[Any]:
    """Returns the dtype that a computation with these parameters has."""
    return jnp.result_type(*jax.tree.leaves(params))


def draw_batches(key: PRNGKeyArray, samples: int, batch_size: int, steps: int) -> Int[Array, "S B"]:
    """Draws the row numbers of each step's batch, uniformly in [0, samples) and with replacement.

    They take 4 bytes each; those of a long run fit in less memory as `RandomBatches`.

    Args:
        key: Determines the row numbers.
        samples: Number of rows to draw from, >= 1.
        batch_size: Rows in a batch, >= 1.
        steps: Number of batches, >= 1.

    Returns:
        One row for each step.

    Raises:
        ValueError: If a count is below 1, or `steps * batch_size` is 2³¹ or more.

    Example:
        >>> jaxnet.draw_batches(jax.random.key(0), samples=1000, batch_size=32, steps=500).shape
        (500, 32)
    """
    check_draw(key, samples, batch_size, steps)
    return jax.random.randint(key, (steps, batch_size), 0, samples)


def check_draw(key: PRNGKeyArray, samples: int, batch_size: int, steps: int) -> None:
    """Checks the arguments of `draw_batches`."""
    check_key("key", key)
    check_counts(samples=samples, batch_size=batch_size, steps=steps)
    if samples > MAX_ROW_NUMBERS:
        raise ValueError(f"samples: {samples}, expected at most {MAX_ROW_NUMBERS:,}, as row numbers have 32 bits")
    if steps * batch_size > MAX_ROW_NUMBERS:
        raise ValueError(
            f"steps, batch_size: {steps}, {batch_size}, expected fewer than {MAX_ROW_NUMBERS + 1:,} row numbers in all"
        )


def init_train_state(
    net: Layer,
    optimizer: str | optax.GradientTransformation,
    params: Params,
    key: PRNGKeyArray,
    net_state: Tree | None = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        net: The network.
        optimizer: The optimizer that `train_step` will be called with.
        params: Initial parameters, as from `net.init`.
        key: Source of the randomness of every step.
        net_state: The layers' initial state. Defaults to the network's own, in the parameters' dtype.

    Raises:
        ValueError: If there is no optimizer of this name.
    """
    dtype = params_dtype(params)
    net_state = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), net.state if net_state is None else net_state)
    return TrainState(params, net_state, _transformation(optimizer).init(params), key, jnp.zeros((), jnp.int32))


def step_noise(net: Layer, key: PRNGKeyArray, step: int | Int[Array, ""], x: Any) -> Tree:
    """Returns the random arrays of one training step, such as the masks of Dropout, by layer name.

    The same arrays can be given to a network built by hand. The key is folded with the step number and does not
    change, so a network without randomness does no work for it.

    Args:
        net: The network.
        key: The key of the run.
        step: Number of the step, from 0.
        x: The batch; only its shape matters.
    """
    return net.draw_noise(jax.random.fold_in(key, step), x)


def loss(
    net: Layer,
    params: Params,
    x: Array,
    t: Array,
    noise: Tree | None = None,
    *,
    criterion: Criterion = softmax_cross_entropy,
    weight_decay: float | Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Computes what training minimizes on a batch: criterion(y, t) + weight_decay/2 Σ W².

    Args:
        net: The network, whose output in training is y.
        params: Its parameters.
        x: Samples (N, ...).
        t: Labels (N,), or one-hot rows (N, C).
        noise: Random arrays, as from `step_noise`. Required by a network with Dropout.
        criterion: Function of (y, t). Defaults to `softmax_cross_entropy`.
        weight_decay: Strength λ of the weight decay, which covers weights but not biases. Defaults to none.
    """
    return Objective(net, criterion, weight_decay).value(params, net.state, x, t, noise or {})[0]


def train_step(
    net: Layer,
    optimizer: str | optax.GradientTransformation,
    state: TrainState,
    x: Array,
    t: Array,
    *,
    criterion: Criterion = softmax_cross_entropy,
    weight_decay: float | Float[Array, ""] | None = None,
) -> tuple[TrainState, Float[Array, ""]]:
    """Makes one optimizer step on a batch.

    Args:
        net: The network.
        optimizer: Any `optax.GradientTransformation`, or a name in `OPTIMIZERS` for one at its default learning rate.
        state: The state before the step, as from `init_train_state` with the same optimizer.
        x: Samples (B, ...).
        t: Labels (B,), or one-hot rows (B, C).
        criterion: As for `loss`.
        weight_decay: As for `loss`.

    Returns:
        The state after the step, and the loss before it.

    Raises:
        ValueError: If there is no optimizer of this name.

    Example:
        >>> net, optimizer = jaxnet.two_layer_net(4, 3, 2), optax.adam(1e-3)
        >>> state = jaxnet.init_train_state(net, optimizer, net.init(jax.random.key(0), "he"), jax.random.key(1))
        >>> state, loss = jaxnet.train_step(net, optimizer, state, jnp.ones((5, 4)), jnp.zeros(5, int))
        >>> int(state.step)
        1
    """
    return update(Objective(net, criterion, weight_decay), _transformation(optimizer), state, x, t)


def update(
    objective: Objective, optimizer: optax.GradientTransformation, state: TrainState, x: Array, t: Array
) -> tuple[TrainState, Float[Array, ""]]:
    """Makes one optimizer step on a batch; returns the state after it and the objective before it."""
    noise = step_noise(objective.net, state.key, state.step, x)

    def value(params: Params) -> tuple[Float[Array, ""], Tree]:
        return objective.value(params, state.net_state, x, t, noise)

    (loss, net_state), grads = jax.value_and_grad(value, has_aux=True)(state.params)
    optimizer = optax.with_extra_args_support(optimizer)
    updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params, value=loss, grad=grads, value_fn=lambda params: value(params)[0]
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, net_state, opt_state, state.key, state.step + 1), loss


def _transformation(optimizer: str | optax.GradientTransformation) -> optax.GradientTransformation:
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    if optimizer not in OPTIMIZERS:
        names = ", ".join(OPTIMIZERS)
        raise ValueError(f"optimizer: {optimizer!r}, expected an optax.GradientTransformation or one of {names}")
    return OPTIMIZERS[optimizer].make(OPTIMIZERS[optimizer].learning_rate)
