"""Training: a loop in Python around two compiled programs, one that makes steps and one that evaluates.

The data lie on the device and the batches are drawn beforehand; what changes is an argument and a result. From one
evaluation to the next, or for about a second, nothing returns to Python, and then everything does: there a run can be
watched, saved, stopped and taken up again, without a bit of it changing.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxnet.data import Dataset
from jaxnet.nn.inference import chunk_of
from jaxnet.nn.layers import Layer, Params, draw_nothing
from jaxnet.train.compiled_steps import Rates, Recipe, compiled, evaluate, optimizer_of, run_steps
from jaxnet.train.device_data import to_device, to_floats
from jaxnet.train.divergence import DivergedError, first_bad
from jaxnet.train.step import History, Stage, TrainState, init_train_state
from jaxnet.train.step_config import Settings, check_data, recipe_of
from jaxnet.tree_paths import flatten
from jaxnet.validation import check_batches, check_counts

FIRST_STRIDE = 10  # steps until the program returns to Python for the first time
STRIDE_SECONDS = 1.0  # between two returns, about, however long an evaluation's distance is

OnEvaluation = Callable[[int, float, float, float], None]  # step, loss, train accuracy, test accuracy


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

            - `optimizer`: A name in `OPTIMIZERS`, sgd by default, or a function from a learning rate to an optax
              optimizer, whose state is finite from the start. Give the same function object every time: another
              object is another program to compile.
            - `learning_rate`: > 0; by default the usual one of the named optimizer.
            - `clip_norm`: > 0; a gradient whose norm over all leaves is larger is scaled down to it, before the
              optimizer sees it. Never, by default.
            - `eval_every`: Steps between two evaluations of all of train and test, >= 1; 100 by default.
            - `key`: Where the randomness of the steps comes from, see `step_draws`; a network that draws needs one.
            - `resume`: An earlier stage of the same run, to go on from, bit for bit as if it had never ended; `params`
              and `key` are then the stage's.
            - `criterion`: What is made small, a function of (y, t), `softmax_cross_entropy` by default. Like the
              optimizer, the same object every time.
            - `decay`: λ >= 0, to add λ/2 Σ W² to it: see `l2_penalty`.
            - `mesh`: As from `devices.mesh`, to share the data and every batch out over its devices, which must divide
              the batch size; every process gives the same arguments. The numbers are those of one device but for
              rounding.

    Returns:
        The final state, and the history as NumPy arrays.

    Raises:
        TypeError: There is no setting of this name.
        ValueError: An argument is out of range or does not fit the others.
        DivergedError: A value, a gradient or a parameter is nan or infinite.
    """
    resume = settings.get("resume")
    done = len(resume.history.loss) if resume else 0
    for stage in stages(net, params, data, batches, **settings):
        history = stage.history
        if on_evaluation is not None and done < history.eval_step[-1] == len(history.loss):
            seen = history.loss[-1], history.train_accuracy[-1], history.test_accuracy[-1]
            on_evaluation(int(history.eval_step[-1]), *map(float, seen))
    return stage


def stages(
    net: Layer, params: Params, data: Dataset, batches: Int[Array, "S B"], **settings: Unpack[Settings]
) -> Iterator[Stage]:
    """Trains as `fit` does, and yields the run as it goes: after every evaluation, and about once a second in between.

    The first stage is where training begins; `history.eval_step[-1]` says whether a stage has been evaluated. The
    caller may save a stage, or stop.

    Raises:
        ValueError: At once, where an argument is out of range or does not fit the others.
        DivergedError: While iterating.
    """
    recipe, rates = recipe_of(net, params, settings)
    eval_every = settings.get("eval_every", 100)
    check_counts(eval_every=eval_every)
    check_data(net, params, data, recipe.devices)
    check_batches("batches", batches, len(data.x_train))
    batches = jnp.asarray(batches)
    recipe.devices.check_batch_size(batches.shape[1])
    first = initial_state(net, params, **settings)
    resume = settings.get("resume") or Stage(first, _no_history(first))
    if _form(resume.state) != _form(first):
        raise ValueError("resume: a stage of another network or optimizer, expected one of this run")
    if resume.state.step > len(batches):
        raise ValueError(
            f"resume: a stage after {resume.state.step} steps, expected at most the {len(batches)} of batches"
        )
    return _stages(recipe, rates, resume, data, batches, eval_every)


def initial_state(net: Layer, params: Params, **settings: Unpack[Settings]) -> TrainState:
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
    return init_train_state(net, optimizer_of(recipe, rates), params, key)


def _stages(
    recipe: Recipe, rates: Rates, stage: Stage, data: Dataset, batches: Int[Array, "S B"], eval_every: int
) -> Iterator[Stage]:
    dtype = jnp.result_type(*jax.tree.leaves(stage.state.params))
    devices = recipe.devices
    x_train, x_test = (to_device(devices.rows(x), dtype) for x in (data.x_train, data.x_test))
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


def _form(state: TrainState) -> tuple[Any, list[tuple[Any, ...]]]:
    """Its tree, and each leaf's shape and dtype."""
    leaves, tree = jax.tree.flatten(state)
    return tree, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


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
        found = look(now, to_floats(x, dtype), t)
        if found is not None or step == last:  # or seen in the compiled loop alone, which rounds in other places
            what = found or what
            break
        now, _, _ = advance(now, step + 1)
    step += 1
    seen = history.eval_step < step
    history = History(history.loss[: step - 1], *(a[seen] for a in history[1:]))
    message = f"training diverged: {what} at step {step}; {_cause(what, history, rates, now.params)}"
    return DivergedError(message, step, what, history, now)


def _cause(what: str, history: History, rates: Rates, params: Params) -> str:
    """What to try, as the losses before the bad step and what went bad in it tell."""
    loss, rate = history.loss, float(rates.learning_rate)
    if not len(loss) and what.split(", updated,")[0] not in flatten(params):  # which alone the rate has a part in
        return "that is what the run began with: lower the initial scale, or look for samples out of range"
    seen = f"the loss was {loss[0]:.4g} at step 1" if len(loss) else ""
    seen += f" and {loss[-1]:.4g} at step {len(loss)}" if len(loss) > 1 else ""
    advice = f"the learning rate {rate:g} is probably too high, try {min(rate / 10, 0.1):g}"
    return f"{seen}: {advice}" if seen else advice
