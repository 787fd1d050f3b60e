"""Training as one compiled program: a scan over evaluations around a scan over steps.

The data lie on the device, the batches are drawn before the loop and handed in, and what changes is an argument and a
result. Nothing returns to Python between the first step and the last, unless somebody asks to watch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnet.checks import check_batches, check_count, check_labels, check_samples
from jaxnet.datasets import Dataset
from jaxnet.layers import Layer, Params
from jaxnet.losses import accuracy
from jaxnet.networks import loss

MakeOptimizer = Callable[[Any], optax.GradientTransformation]  # learning rate -> optimizer
OnEvaluation = Callable[[int, float, float, float], None]  # step, loss, train accuracy, test accuracy


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
    """All that a step changes."""

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]


class History(NamedTuple):
    """S steps, E evaluations: one before the first step, one every `eval_every` steps, one after the last."""

    loss: Float[Array | np.ndarray, " S"]  # of each step's batch, before its update, in nats
    eval_step: Int[Array | np.ndarray, " E"]  # steps done
    train_accuracy: Float[Array | np.ndarray, " E"]  # in [0, 1]
    test_accuracy: Float[Array | np.ndarray, " E"]


class DivergedError(ArithmeticError):
    """The loss became nan or infinite. `step` is the first bad step, counted from 1; `history` ends before it."""

    def __init__(self, message: str, step: int, history: History) -> None:
        super().__init__(message)
        self.step, self.history = step, history


def draw_batches(key: PRNGKeyArray, samples: int, batch_size: int, steps: int) -> Int[Array, "S B"]:
    """Row numbers in [0, samples), one row a step: each batch is drawn with replacement, as the notebook draws.

    Raises:
        ValueError: A count is below 1.
    """
    for name, value in {"samples": samples, "batch_size": batch_size, "steps": steps}.items():
        check_count(name, value)
    return jax.random.randint(key, (steps, batch_size), 0, samples)


def train_step(
    net: Layer, optimizer: optax.GradientTransformation, state: TrainState, x: Array, t: Array
) -> tuple[TrainState, Float[Array, ""]]:
    """One update from the batch x (B, D), t (B,) or (B, C); and the loss before it."""
    value, grads = jax.value_and_grad(partial(loss, net))(state.params, x, t)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), value


@partial(jax.jit, static_argnames=("net", "make_optimizer", "eval_every", "on_evaluation"))
def train_loop(
    net: Layer,
    params: Params,
    data: tuple[Array, Array, Array, Array],
    batches: Int[Array, "S B"],
    make_optimizer: MakeOptimizer,
    learning_rate: Float[Array, ""],
    eval_every: int,
    on_evaluation: OnEvaluation | None = None,
    clip_norm: Float[Array, ""] | None = None,
) -> tuple[TrainState, History]:
    """`fit` without its edges: pure, and compiled as a whole, once for each network, optimizer and set of shapes.

    The learning rate and the clip norm are traced, so that another number is not another program. Once a loss is not
    finite, the chunks that are left are skipped, and the history is nan from there on.
    """
    x_train, t_train, x_test, t_test = data
    optimizer = make_optimizer(learning_rate)
    if clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)

    def step(state: TrainState, batch: Array) -> tuple[TrainState, Array]:
        return train_step(net, optimizer, state, x_train[batch], t_train[batch])

    def evaluate(state: TrainState) -> Array:  # of train and test, (2,)
        train = accuracy(net.apply(state.params, x_train), t_train)
        test = accuracy(net.apply(state.params, x_test), t_test)
        return jnp.stack([train, test])

    def chunk(state: TrainState, batches: Array) -> tuple[TrainState, Array, Array]:
        state, losses = lax.scan(step, state, batches)
        accuracies = evaluate(state)
        if on_evaluation is not None:
            jax.debug.callback(partial(_call, on_evaluation), state.step, losses[-1], *accuracies, ordered=True)
        return state, losses, accuracies

    def skip(state: TrainState, batches: Array) -> tuple[TrainState, Array, Array]:
        _, losses, accuracies = jax.eval_shape(chunk, state, batches)
        return state, jnp.full(losses.shape, jnp.nan, losses.dtype), jnp.full(2, jnp.nan, accuracies.dtype)

    def chunk_while_finite(carry: tuple[TrainState, Array], batches: Array) -> Any:
        state, finite = carry
        state, losses, accuracies = lax.cond(finite, chunk, skip, state, batches)
        return (state, jnp.isfinite(losses[-1])), (losses, accuracies)

    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    steps, batch_size = batches.shape
    left_over = steps % eval_every
    whole, rest = batches[: steps - left_over], batches[steps - left_over :]
    whole = whole.reshape(steps // eval_every, eval_every, batch_size)
    carry, (losses, accuracies) = lax.scan(chunk_while_finite, (state, jnp.array(True)), whole)
    losses, accuracies = losses.reshape(-1), jnp.concatenate([evaluate(state)[None], accuracies])
    if left_over:
        carry, (last_losses, last_accuracies) = chunk_while_finite(carry, rest)
        losses, accuracies = jnp.append(losses, last_losses), jnp.concatenate([accuracies, last_accuracies[None]])
    eval_step = jnp.minimum(jnp.arange(len(accuracies)) * eval_every, steps)
    return carry[0], History(losses, eval_step, accuracies[:, 0], accuracies[:, 1])


def fit(
    net: Layer,
    params: Params,
    data: Dataset,
    batches: Int[Array, "S B"],
    *,
    optimizer: str | MakeOptimizer = "sgd",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    eval_every: int = 100,
    on_evaluation: OnEvaluation | None = None,
) -> tuple[TrainState, History]:
    """Train from `params`, one step for each row of `batches`, and look at the accuracies along the way.

    Args:
        net: Logits (N, C) from samples (N, D).
        params: Where to start, as from `net.init`; their dtype is that of the whole computation.
        data: Samples (N, D), finite; labels class numbers (N,) or one-hot rows (N, C). Arrays that already lie on the
            device (`jax.device_put(data)`) are not copied again.
        batches: Row numbers into `data.x_train`, one row a step, as from `draw_batches`.
        optimizer: A name in `OPTIMIZERS`, or a function from a learning rate to an optax optimizer. Give the same
            function object every time: another object is another program to compile.
        learning_rate: > 0; the usual one of the named optimizer unless given.
        clip_norm: > 0; a gradient whose norm over all leaves is larger is scaled down to it, before the optimizer sees
            it. None: never.
        eval_every: Steps between two evaluations of all of train and test, >= 1.
        on_evaluation: Called with (step, loss, train accuracy, test accuracy) while the program runs. Like the
            optimizer, the same function object every time.

    Returns:
        The final state, and the history as NumPy arrays.

    Raises:
        ValueError: An argument is out of range or does not fit the others.
        DivergedError: A loss or a final parameter is nan or infinite.
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer: {optimizer!r}, expected one of {', '.join(OPTIMIZERS)}, or a function")
        optimizer, usual = OPTIMIZERS[optimizer]
        learning_rate = usual if learning_rate is None else learning_rate
    if learning_rate is None or not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate: {learning_rate}, expected a finite number > 0")
    if clip_norm is not None and not 0 < clip_norm < float("inf"):
        raise ValueError(f"clip_norm: {clip_norm}, expected a finite number > 0, or None")
    check_count("eval_every", eval_every)
    check_samples("data.x_train", data.x_train)
    check_samples("data.x_test", data.x_test)
    classes = jax.eval_shape(net.apply, params, data.x_train[:1]).shape[1]
    check_labels("data.t_train", data.t_train, len(data.x_train), classes)
    check_labels("data.t_test", data.t_test, len(data.x_test), classes)
    check_batches("batches", batches, len(data.x_train))

    dtype = jnp.result_type(*jax.tree.leaves(params))
    train = jnp.asarray(data.x_train, dtype), jnp.asarray(data.t_train)
    test = jnp.asarray(data.x_test, dtype), jnp.asarray(data.t_test)
    rate = jnp.asarray(learning_rate, dtype)
    norm = None if clip_norm is None else jnp.asarray(clip_norm, dtype)
    state, history = train_loop(
        net, params, (*train, *test), jnp.asarray(batches), optimizer, rate, eval_every, on_evaluation, norm
    )
    history = History(*(np.asarray(a) for a in history))
    _raise_if_diverged(state, history, learning_rate)
    return state, history


def _raise_if_diverged(state: TrainState, history: History, learning_rate: float) -> None:
    bad_losses = np.flatnonzero(~np.isfinite(history.loss))
    if bad_losses.size:
        step = int(bad_losses[0]) + 1
        what = f"the loss is {history.loss[step - 1]} at step {step}"
    elif not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)):
        step = len(history.loss)
        what = f"the parameters are no longer finite after the last step, {step}"
    else:
        return
    seen = history.eval_step < step
    before = History(history.loss[: step - 1], *(a[seen] for a in history[1:]))
    if step == 1:
        cause = "the initial parameters already overflow: lower the initial scale"
    else:
        cause = (
            f"it was {before.loss[0]:.4g} at step 1 and {before.loss[-1]:.4g} at step {step - 1}: "
            f"the learning rate {learning_rate:g} is probably too high, try {min(learning_rate / 10, 0.1):g}"
        )
    raise DivergedError(f"training diverged: {what}; {cause}", step, before)


def _call(on_evaluation: OnEvaluation, step: Array, loss: Array, train: Array, test: Array) -> None:
    on_evaluation(int(step), float(loss), float(train), float(test))
