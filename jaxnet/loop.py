"""Training as compiled programs: one that makes steps, one that evaluates, and a loop in Python around the two.

The data lie on the device and the batches are drawn beforehand; what changes is an argument and a result. From one
evaluation to the next, or for about a second, nothing returns to Python, and then everything does: there a run can be
watched, saved, stopped and taken up again, without a bit of it changing.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxnet.checks import check_batches, check_count, check_labels, check_positive, check_samples
from jaxnet.datasets import Dataset
from jaxnet.devices import ONE_DEVICE, OneDevice, placement
from jaxnet.divergence import DivergedError, first_bad
from jaxnet.inference import by_chunks, chunk_of
from jaxnet.layers import Layer, Params, Tree, draw_nothing
from jaxnet.losses import correct, softmax_cross_entropy
from jaxnet.products import by_eigen, compiler_options, way_of
from jaxnet.resident import resident, samples
from jaxnet.training import OPTIMIZERS, Criterion, History, MakeOptimizer, TrainState, start, train_step

FIRST_STRIDE = 10  # steps until the program returns to Python for the first time
NO_CHECK = "promise_in_bounds"  # of row numbers: `fit` has looked
FETCHED = 4 * 2**20  # bytes of samples that are fetched at once, where those of several steps are
STRIDE_SECONDS = 1.0  # between two returns, about, however long an evaluation's distance is

OnEvaluation = Callable[[int, float, float, float], None]  # step, loss, train accuracy, test accuracy


class Stage(NamedTuple):
    """A run as far as it has come: all that the next step needs, and what the steps until then have shown."""

    state: TrainState
    history: History


class Settings(TypedDict, total=False):
    """How `fit` trains; see there."""

    optimizer: str | MakeOptimizer
    learning_rate: float | None
    clip_norm: float | None
    eval_every: int
    key: PRNGKeyArray | None
    resume: Stage | None
    criterion: Criterion
    decay: float
    mesh: Mesh | None


class Recipe(NamedTuple):
    """What a step does: another recipe is another program."""

    net: Layer
    make_optimizer: MakeOptimizer
    criterion: Criterion
    devices: OneDevice = ONE_DEVICE


class Rates(NamedTuple):
    """The numbers in it: another number is the same program; None and a number are two."""

    learning_rate: Float[Array, ""]
    clip_norm: Float[Array, ""] | None
    decay: Float[Array, ""] | None


def optimizer_of(recipe: Recipe, rates: Rates) -> optax.GradientTransformation:
    """The recipe's optimizer at these rates, behind the clipping if there is any."""
    optimizer = recipe.make_optimizer(rates.learning_rate)
    if rates.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(rates.clip_norm), optimizer)


def fetched(rows: Int[Array, "*S B"], x: Array, t: Array) -> tuple[Array, Array]:
    """The samples of these row numbers, and their labels, out of all that lie on the device, as they lie there."""
    return x.at[rows].get(mode=NO_CHECK), t.at[rows].get(mode=NO_CHECK)


def batch_of(
    batches: Int[Array, "S B"], step: Int[Array, ""], x: Array, t: Array, dtype: Any
) -> tuple[Float[Array, "B ..."], Array]:
    """The samples of a step's batch, as a network takes them, and their labels."""
    x_rows, t_rows = fetched(lax.dynamic_index_in_dim(batches, step, keepdims=False), x, t)
    return samples(x_rows, dtype), t_rows


def step_of(recipe: Recipe, rates: Rates, now: TrainState, x: Array, t: Array) -> tuple[TrainState, Float[Array, ""]]:
    """`train_step` as the recipe says."""
    optimizer = optimizer_of(recipe, rates)
    return train_step(recipe.net, optimizer, now, x, t, criterion=recipe.criterion, decay=rates.decay)


def run_steps(
    recipe: Recipe,
    rates: Rates,
    now: TrainState,
    x: Array,
    t: Array,
    batches: Int[Array, "S B"],
    stop: Int[Array, ""],
    length: int,
) -> tuple[TrainState, Float[Array, " {length}"], Bool[Array, ""]]:
    """Steps now.step, ..., stop - 1, at most `length` of them, each on its row of `batches`.

    Returns the state after them, their losses with nan behind the last, and whether all parameters are finite. Where
    to stop is traced, so that a chunk cut short is no program of its own.
    """
    first, dtype = now.step, jnp.result_type(*jax.tree.leaves(now.params))
    way = way_of(recipe.net, batches.shape[1])
    block = steps_fetched(recipe, now.params, batches, x)
    recipe = recipe._replace(net=way.net(recipe.net))

    def steps(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        begin = jnp.minimum(carry[0].step, len(batches) - block)
        x_rows, t_rows = fetched(lax.dynamic_slice_in_dim(batches, begin, block), x, t)  # (block, B, ...)

        def step(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            now, losses = way.turn(carry[0]), carry[1]
            here = now.step - begin if block > 1 else 0
            x_batch, t_batch = (lax.dynamic_index_in_dim(a, here, keepdims=False) for a in (x_rows, t_rows))
            batch = recipe.devices.split((samples(x_batch, dtype), t_batch))
            after, loss = step_of(recipe, rates, now, *batch)
            return way.turn(after), lax.dynamic_update_index_in_dim(losses, loss.astype(dtype), now.step - first, 0)

        end = jnp.minimum(stop, begin + block)
        return lax.while_loop(lambda carry: carry[0].step < end, step, carry) if block > 1 else step(carry)

    empty = jnp.full(length, jnp.nan, dtype)
    now, losses = lax.while_loop(lambda carry: carry[0].step < stop, steps, (way.turn(now), empty))
    return recipe.devices.whole((way.turn(now), losses, all_finite(now.params)))


def steps_fetched(recipe: Recipe, params: Params, batches: Int[Array, "S B"], x: Array) -> int:
    """Of how many steps the samples are fetched at once, so that the memory answers many reads side by side.

    Of one alone beside Eigen's products: without this work in every step its second thread falls asleep between two of
    them, and is woken in 30 microseconds. Of one alone over many devices, which then hold no more than that.
    """
    if recipe.devices != ONE_DEVICE or by_eigen(recipe.net, params, batches.shape[1]):
        return 1
    each = batches.shape[1] * math.prod(x.shape[1:]) * x.dtype.itemsize
    return max(1, min(len(batches), FETCHED // each))


def all_finite(params: Params) -> Bool[Array, ""]:
    """Neither nan nor infinite, in any leaf."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def evaluate(
    net: Layer, params: Params, net_state: Tree, x: Array, t: Array, count: int | None = None,
    devices: OneDevice = ONE_DEVICE,
) -> Float[Array, ""]:  # fmt: skip
    """Accuracy in inference, in [0, 1], of the first so many, or all, of the samples that lie on the device."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    way = way_of(net, chunk_of(x))
    lying, net = way.turn(params), way.net(net)

    def hits(x: Array, t: Array) -> Array:
        return correct(net.infer(way.turn(lying), net_state, samples(x, dtype)), t)

    return devices.each(partial(by_chunks, hits))(x, t)[:count].mean(dtype=dtype)


def compiled(function: Callable[..., Any], net: Layer, params: Params, rows: int, *static: str) -> Callable[..., Any]:
    """The function as one program, which takes so many rows at once through the network."""
    return _compiled(function, tuple(compiler_options(net, params, rows).items()), static)


@cache
def _compiled(
    function: Callable[..., Any], options: tuple[tuple[str, str], ...], static: tuple[str, ...]
) -> Callable[..., Any]:
    return jax.jit(function, static_argnames=static, compiler_options=dict(options))


def fit(
    net: Layer,
    params: Params,
    data: Dataset,
    batches: Int[Array, "S B"],
    *,
    on_evaluation: OnEvaluation | None = None,
    **settings: Unpack[Settings],
) -> Stage:
    """Train from `params`, one step for each row of `batches`, and look at the accuracies along the way.

    Args:
        net: Logits (N, C) from samples (N, ...), or (N, T, C) where each of T positions has a label.
        params: Where to start, as from `net.init`; their dtype is that of the whole computation.
        data: Samples (N, ...), finite floats, or integers for an Embedding; labels class numbers (N,) or one-hot rows
            (N, C). Arrays that already lie on the device (`jax.device_put(data)`) are not copied again.
        batches: Row numbers into `data.x_train`, one row a step, as from `draw_batches`.
        on_evaluation: Called with (step, loss, train accuracy, test accuracy) after each evaluation but the first.
        settings: The rest, by name:

            - `optimizer`: A name in `OPTIMIZERS`, sgd unless given, or a function from a learning rate to an optax
              optimizer. Give the same function object every time: another object is another program to compile.
            - `learning_rate`: > 0; the usual one of the named optimizer unless given.
            - `clip_norm`: > 0; a gradient whose norm over all leaves is larger is scaled down to it, before the
              optimizer sees it. Never, unless given.
            - `eval_every`: Steps between two evaluations of all of train and test, >= 1; 100 unless given.
            - `key`: Where the randomness of the steps comes from, see `step_draws`; a network that draws needs one.
            - `resume`: An earlier stage of the same run, to go on from, bit for bit as if it had never ended; `params`
              and `key` are then the stage's.
            - `criterion`: What is made small, a function of (y, t), `softmax_cross_entropy` unless given. Like the
              optimizer, the same object every time.
            - `decay`: λ >= 0, to add λ/2 Σ W² to it: see `weight_decay`.
            - `mesh`: As from `devices.mesh`, to share the data and every batch out over its devices, which must divide
              the batch size; every process gives the same arguments. The numbers are those of one device but for
              rounding.

    Returns:
        The final state, and the history as NumPy arrays.

    Raises:
        ValueError: An argument is out of range or does not fit the others.
        DivergedError: A value, a gradient or a parameter is nan or infinite.
    """
    for stage in stages(net, params, data, batches, **settings):
        history = stage.history
        if on_evaluation is not None and 0 < history.eval_step[-1] == len(history.loss):
            seen = history.loss[-1], history.train_accuracy[-1], history.test_accuracy[-1]
            on_evaluation(int(history.eval_step[-1]), *map(float, seen))
    return stage


def stages(
    net: Layer, params: Params, data: Dataset, batches: Int[Array, "S B"], **settings: Unpack[Settings]
) -> Iterator[Stage]:
    """As `fit`, but hands out the run as it goes: after every evaluation, and about once a second in between.

    The first is what it begins with; `history.eval_step[-1]` says whether a stage has been evaluated. Whoever iterates
    may save a stage, or stop.

    Raises:
        ValueError: At once, where an argument is out of range or does not fit the others.
        DivergedError: While iterating.
    """
    recipe, rates = recipe_of(net, params, settings)
    check_count("eval_every", eval_every := settings.get("eval_every", 100))
    check_data(net, params, data, recipe.devices)
    check_batches("batches", batches, len(data.x_train))
    recipe.devices.check_batch_size(batches.shape[1])
    first = beginning(net, params, **settings)
    resume = settings.get("resume") or Stage(first, _no_history(first))
    return _stages(recipe, rates, resume, data, jnp.asarray(batches), eval_every)


def beginning(net: Layer, params: Params, **settings: Unpack[Settings]) -> TrainState:
    """What `fit` begins with, given the same.

    Raises:
        ValueError: An argument is out of range or does not fit the others.
    """
    recipe, rates = recipe_of(net, params, settings)
    key = settings.get("key")
    if key is None:
        if net.draw is not draw_nothing:
            raise ValueError("key: none is given, but the network draws, for Dropout; pass jax.random.key(seed)")
        key = jax.random.key(0)
    return start(net, optimizer_of(recipe, rates), params, key)


def recipe_of(net: Layer, params: Params, settings: Settings) -> tuple[Recipe, Rates]:
    """What a step does, as the settings say.

    Raises:
        ValueError: One of them is out of range.
    """
    optimizer, learning_rate = settings.get("optimizer", "sgd"), settings.get("learning_rate")
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer: {optimizer!r}, expected one of {', '.join(OPTIMIZERS)}, or a function")
        optimizer, usual = OPTIMIZERS[optimizer]
        learning_rate = usual if learning_rate is None else learning_rate
    check_positive("learning_rate", learning_rate)
    clip_norm, decay = settings.get("clip_norm"), settings.get("decay", 0.0)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    if decay:
        check_positive("decay", decay)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    numbers = {"learning_rate": learning_rate, "clip_norm": clip_norm, "decay": decay or None}
    for name, number in numbers.items():
        if number is not None and number > float(np.finfo(dtype).max):
            raise ValueError(f"{name}: {number}, expected a number that {dtype} can hold")
    criterion, devices = settings.get("criterion", softmax_cross_entropy), placement(settings.get("mesh"))
    recipe = Recipe(net, optimizer, criterion, devices)
    return recipe, Rates(*(None if number is None else jnp.asarray(number, dtype) for number in numbers.values()))  # type: ignore[arg-type]


def check_data(net: Layer, params: Params, data: Dataset, devices: OneDevice = ONE_DEVICE) -> None:
    """Samples that the network takes, and labels of what it makes of them; of the rows that this process holds.

    Raises:
        ValueError: They are not.
    """
    for name, x, t in (("train", data.x_train, data.t_train), ("test", data.x_test, data.t_test)):
        for piece, rows in devices.held(len(x)):
            check_samples(f"data.x_{name}{piece}", x[rows])
            logits = jax.eval_shape(net.infer, params, net.state, x[:1])
            check_labels(f"data.t_{name}{piece}", t[rows], (len(x[rows]), *logits.shape[1:]))


def _stages(
    recipe: Recipe, rates: Rates, stage: Stage, data: Dataset, batches: Int[Array, "S B"], eval_every: int
) -> Iterator[Stage]:
    dtype = jnp.result_type(*jax.tree.leaves(stage.state.params))
    devices = recipe.devices
    x_train, x_test = (resident(devices.rows(x), dtype) for x in (data.x_train, data.x_test))
    t_train, t_test = (jnp.asarray(devices.rows(t)) for t in (data.t_train, data.t_test))
    now, rates, batches = devices.copied((stage.state, rates, batches))
    steps, length = len(batches), min(eval_every, len(batches))

    run = compiled(run_steps, recipe.net, now.params, batches.shape[1], "recipe", "length")
    look = compiled(evaluate, recipe.net, now.params, chunk_of(x_train), "net", "count", "devices")

    def advance(now: TrainState, stop: int) -> tuple[TrainState, Array, Array]:
        return run(recipe, rates, now, x_train, t_train, batches, stop, length=length)

    def evaluated(now: TrainState, history: History) -> History:
        of = partial(look, recipe.net, now.params, now.net_state, devices=devices)
        train, test = of(x_train, t_train, count=len(data.x_train)), of(x_test, t_test, count=len(data.x_test))
        new = history.loss[:0], int(now.step), train, test
        return History(*(np.append(old, np.asarray(more, old.dtype)) for old, more in zip(history, new, strict=True)))

    history = stage.history
    if not len(history.eval_step):
        history = evaluated(now, history)
    yield Stage(now, history)
    done, stride = int(now.step), FIRST_STRIDE
    while done < steps:
        next_evaluation = min((done // eval_every + 1) * eval_every, steps)
        stop, started = min(done + stride, next_evaluation), time.perf_counter()
        after, losses, finite = advance(now, stop)
        seen = np.asarray(losses)[: stop - done]
        history = history._replace(loss=np.append(history.loss, seen))
        if not (finite and np.isfinite(seen).all()):
            raise _diverged(recipe, rates, now, history, advance, lambda rows: (x_train[rows], t_train[rows]), batches)
        now, done = after, stop
        if done == next_evaluation:
            history = evaluated(now, history)
        yield Stage(now, history)
        slow = devices.any(time.perf_counter() - started > STRIDE_SECONDS)
        stride = max(1, stride // 2 if slow else min(2 * stride, length))


def _no_history(first: TrainState) -> History:
    dtype = jnp.result_type(*jax.tree.leaves(first.params))
    return History(np.zeros(0, dtype), np.zeros(0, np.int32), np.zeros(0, dtype), np.zeros(0, dtype))


def _diverged(
    recipe: Recipe,
    rates: Rates,
    now: TrainState,
    history: History,
    advance: Callable[[TrainState, int], tuple[TrainState, Array, Array]],
    pick: Callable[[Array], tuple[Array, Array]],
    batches: Int[Array, "S B"],
) -> DivergedError:
    """Goes through the last steps once more, one at a time, to the one that went wrong."""
    look = partial(first_bad, recipe.net, optimizer_of(recipe, rates), criterion=recipe.criterion, decay=rates.decay)
    dtype = jnp.result_type(*jax.tree.leaves(now.params))
    last = int(np.append(np.flatnonzero(~np.isfinite(history.loss)), len(history.loss) - 1)[0])  # it shows here at last
    what = f"the loss is {history.loss[last]}"
    while True:
        step = int(now.step)
        x, t = pick(batches[step])
        found = look(now, samples(x, dtype), t)
        if found is not None or step == last:  # or seen in the compiled loop alone, which rounds in other places
            what = found or what
            break
        now, _, _ = advance(now, step + 1)
    step += 1
    seen = history.eval_step < step
    history = History(history.loss[: step - 1], *(a[seen] for a in history[1:]))
    if step == 1:
        cause = "the initial parameters already overflow: lower the initial scale"
    else:
        rate, before, after = float(rates.learning_rate), history.loss[0], history.loss[-1]
        cause = (
            f"the loss was {before:.4g} at step 1 and {after:.4g} at step {step - 1}: "
            f"the learning rate {rate:g} is probably too high, try {min(rate / 10, 0.1):g}"
        )
    return DivergedError(f"training diverged: {what} at step {step}; {cause}", step, what, history, now)
