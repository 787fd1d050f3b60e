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
from jaxnet.inference import by_chunks
from jaxnet.layers import Layer, Params, Tree, draw_nothing
from jaxnet.losses import correct, softmax_cross_entropy, weight_decay

Criterion = Callable[[Array, Array], Float[Array, ""]]  # (y, t) -> what is made small, such as mean_squared_error
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


def start(
    net: Layer, optimizer: optax.GradientTransformation, params: Params, key: PRNGKeyArray, state: Tree | None = None
) -> TrainState:
    """Before the first step: the layers' state, the network's own unless given, takes the parameters' dtype."""
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
    return _loss_and_state(net, params, net.state, x, t, draws or {}, criterion, decay)[0]


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
    differentiate = jax.value_and_grad(_loss_and_state, argnums=1, has_aux=True)
    (value, state), grads = differentiate(net, now.params, now.net_state, x, t, draws, criterion, decay)
    updates, opt_state = optimizer.update(grads, now.opt_state, now.params)
    return TrainState(optax.apply_updates(now.params, updates), state, opt_state, now.key, now.step + 1), value


def _loss_and_state(
    net: Layer, params: Params, state: Tree, x: Array, t: Array, draws: Tree, criterion: Criterion, decay: Any
) -> tuple[Float[Array, ""], Tree]:
    y, state = net.train(params, state, x, draws)
    value = criterion(y, t)
    return (value if decay is None else value + weight_decay(params, decay)), state


@partial(jax.jit, static_argnames=("net", "make_optimizer", "eval_every", "on_evaluation", "criterion"))
def train_loop(
    net: Layer,
    params: Params,
    data: tuple[Array, Array, Array, Array],
    batches: Int[Array, "S B"],
    make_optimizer: MakeOptimizer,
    learning_rate: Float[Array, ""],
    eval_every: int,
    on_evaluation: OnEvaluation | None = None,
    *,
    key: PRNGKeyArray,
    state: Tree | None = None,
    criterion: Criterion = softmax_cross_entropy,
    decay: Float[Array, ""] | None = None,
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

    def step(now: TrainState, batch: Array) -> tuple[TrainState, Array]:
        return train_step(net, optimizer, now, x_train[batch], t_train[batch], criterion=criterion, decay=decay)

    def evaluate(now: TrainState) -> Array:  # of train and test, (2,)
        def hits(x: Array, t: Array) -> Array:
            return correct(net.infer(now.params, now.net_state, x), t)

        dtype = jnp.result_type(*jax.tree.leaves(params))
        pairs = ((x_train, t_train), (x_test, t_test))
        return jnp.stack([by_chunks(hits, x, t).mean(dtype=dtype) for x, t in pairs])

    def chunk(now: TrainState, batches: Array) -> tuple[TrainState, Array, Array]:
        now, losses = lax.scan(step, now, batches)
        accuracies = evaluate(now)
        if on_evaluation is not None:
            jax.debug.callback(partial(_call, on_evaluation), now.step, losses[-1], *accuracies, ordered=True)
        return now, losses, accuracies

    def skip(now: TrainState, batches: Array) -> tuple[TrainState, Array, Array]:
        _, losses, accuracies = jax.eval_shape(chunk, now, batches)
        return now, jnp.full(losses.shape, jnp.nan, losses.dtype), jnp.full(2, jnp.nan, accuracies.dtype)

    def chunk_while_finite(carry: tuple[TrainState, Array], batches: Array) -> Any:
        now, finite = carry
        now, losses, accuracies = lax.cond(finite, chunk, skip, now, batches)
        return (now, jnp.isfinite(losses[-1])), (losses, accuracies)

    first = start(net, optimizer, params, key, state)
    steps, batch_size = batches.shape
    left_over = steps % eval_every
    whole, rest = batches[: steps - left_over], batches[steps - left_over :]
    whole = whole.reshape(steps // eval_every, eval_every, batch_size)
    carry, (losses, accuracies) = lax.scan(chunk_while_finite, (first, jnp.array(True)), whole)
    losses, accuracies = losses.reshape(-1), jnp.concatenate([evaluate(first)[None], accuracies])
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
    key: PRNGKeyArray | None = None,
    state: Tree | None = None,
    criterion: Criterion = softmax_cross_entropy,
    decay: float = 0.0,
) -> tuple[TrainState, History]:
    """Train from `params`, one step for each row of `batches`, and look at the accuracies along the way.

    Args:
        net: Logits (N, C) from samples (N, ...), or (N, T, C) where each of T positions has a label.
        params: Where to start, as from `net.init`; their dtype is that of the whole computation.
        data: Samples (N, ...), finite floats, or integers for an Embedding; labels class numbers (N,) or one-hot rows
            (N, C). Arrays that already lie on the device (`jax.device_put(data)`) are not copied again.
        batches: Row numbers into `data.x_train`, one row a step, as from `draw_batches`.
        optimizer: A name in `OPTIMIZERS`, or a function from a learning rate to an optax optimizer. Give the same
            function object every time: another object is another program to compile.
        learning_rate: > 0; the usual one of the named optimizer unless given.
        clip_norm: > 0; a gradient whose norm over all leaves is larger is scaled down to it, before the optimizer sees
            it. None: never.
        eval_every: Steps between two evaluations of all of train and test, >= 1.
        on_evaluation: Called with (step, loss, train accuracy, test accuracy) while the program runs. Like the
            optimizer, the same function object every time.
        key: Where the randomness of the steps comes from, see `step_draws`; a network that draws needs one.
        state: Where the layers' state starts, such as that of an earlier run; the network's own unless given.
        criterion: What is made small, a function of (y, t). Like the optimizer, the same object every time.
        decay: λ >= 0, to add λ/2 Σ W² to it: see `weight_decay`.

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
    if not 0 <= decay < float("inf"):
        raise ValueError(f"decay: {decay}, expected a finite number >= 0")
    for name, x, t in (("train", data.x_train, data.t_train), ("test", data.x_test, data.t_test)):
        logits = jax.eval_shape(net.infer, params, net.state if state is None else state, x[:1])
        check_labels(f"data.t_{name}", t, (len(x), *logits.shape[1:]))
    check_batches("batches", batches, len(data.x_train))
    if key is None:
        if net.draw is not draw_nothing:
            raise ValueError("key: none is given, but the network draws, for Dropout; pass jax.random.key(seed)")
        key = jax.random.key(0)

    dtype = jnp.result_type(*jax.tree.leaves(params))
    on_device = tuple(jnp.asarray(a, dtype if jnp.issubdtype(a.dtype, jnp.floating) else None) for a in data)
    now, history = train_loop(
        net,
        params,
        on_device,
        jnp.asarray(batches),
        optimizer,
        jnp.asarray(learning_rate, dtype),
        eval_every,
        on_evaluation,
        key=key,
        state=state,
        criterion=criterion,
        decay=jnp.asarray(decay, dtype) if decay else None,
        clip_norm=None if clip_norm is None else jnp.asarray(clip_norm, dtype),
    )
    history = History(*(np.asarray(a) for a in history))
    _raise_if_diverged(now, history, learning_rate)
    return now, history


def _raise_if_diverged(now: TrainState, history: History, learning_rate: float) -> None:
    bad_losses = np.flatnonzero(~np.isfinite(history.loss))
    if bad_losses.size:
        step = int(bad_losses[0]) + 1
        what = f"the loss is {history.loss[step - 1]} at step {step}"
    elif not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(now.params)):
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
