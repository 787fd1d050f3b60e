"""Training: a loop in Python around two compiled programs, one that makes steps and one that evaluates.

The data is on the device and the batches are drawn in advance. Control returns to Python after each evaluation, or
after about a second. At these points a run can be watched, saved, stopped and resumed without changing its results.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from jaxnet.common.validation import check_counts
from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer, Params
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.train.compiled_run import CompiledRun
from jaxnet.train.history import GrowingHistory, History, Progress
from jaxnet.train.matmul_layout import Form
from jaxnet.train.random_batches import Batches
from jaxnet.train.run_plan import plan_run
from jaxnet.train.sample_sources import require_grain
from jaxnet.train.step import Criterion, Optimizer, TrainState

FIRST_CHUNK = 10  # steps before control first returns to Python
CHUNK_SECONDS = 1.0  # approximate time between returns to Python, where evaluations are further apart


def fit(
    net: Layer,
    params: Params,
    data: Dataset,
    batches: Batches,
    *,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    criterion: Criterion = softmax_cross_entropy,
    eval_every: int = 100,
    key: PRNGKeyArray | None = None,
    mesh: Mesh | None = None,
    max_data_bytes: int | None = None,
    form: Form | None = None,
    resume: Progress | None = None,
    on_evaluation: Callable[[int, float, float, float], None] | None = None,
) -> Progress:
    """Trains a network, one step for each row of `batches`, and evaluates its accuracy along the way.

    Args:
        net: A network with logits (N, C) for samples (N, ...), or (N, T, C) where each of T positions has a label.
        params: Initial parameters, as from `net.init`. Their dtype is that of the whole computation.
        data: Samples (N, ...), finite floats, or integers for an Embedding; labels are class numbers (N,) or one-hot
            rows (N, C). Arrays on the device, as from `jax.device_put(data)`, are not copied again.
        batches: Row numbers into `data.x_train`, one row for each step, as from `draw_batches`, or `RandomBatches`,
            which a long run draws a block at a time.
        optimizer: A name in `OPTIMIZERS`, a function from a learning rate to an optax optimizer, or an
            `optax.GradientTransformation`, such as `optax.adam(1e-3)`. Its state must stay finite; another object is
            compiled for anew. Defaults to "sgd".
        learning_rate: Learning rate > 0. Defaults to the one in `OPTIMIZERS`; required by an optimizer that is a
            function, refused beside a transformation, which has its own.
        clip_norm: Global norm > 0 that larger gradients are scaled down to. Defaults to no clipping.
        weight_decay: Strength λ >= 0 of the term λ/2 Σ W² in the loss, see `jaxnet.nn.l2_penalty`. Defaults to 0.
        criterion: Function of (y, t) to minimize; another object is compiled for anew. Defaults to cross-entropy.
        eval_every: Steps >= 1 between evaluations of all training and test samples. Defaults to 100.
        key: Source of the randomness of the steps, see `step_noise`. Required by networks with Dropout.
        mesh: Devices to divide the data and each batch between, as from `jaxnet.train.sharding.mesh`. Their number
            must divide the batch size. Every process passes the same arguments. Results differ by rounding only.
        max_data_bytes: Bytes of samples that the devices may hold. Larger data, such as memory maps, stay on the host,
            and a thread reads those of the next steps meanwhile, by the package grain; the numbers are the same.
            Defaults to no limit.
        form: Form in which the products of a step are computed, as from `fastest_form`; results differ by rounding
            only. Defaults to the one that is usually the fastest, see `jaxnet.train.matmul_layout.usual_form`.
        resume: The progress of an earlier run with the same arguments, to continue bit for bit as if it had not
            stopped; its state replaces `params` and `key`. Defaults to a new run.
        on_evaluation: Called with (step, loss, train accuracy, test accuracy) after every evaluation but the first.

    Returns:
        The final state, and the history as NumPy arrays.

    Raises:
        ValueError: If an argument is out of range or inconsistent with the others.
        DivergedError: If a value, a gradient or a parameter becomes nan or infinite.

    Example:
        >>> data, net = jaxnet.data.digits(), jaxnet.two_layer_net(64, 50, 10)
        >>> params = net.init(jax.random.key(0), "he")
        >>> batches = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), batch_size=100, steps=300)
        >>> state, history = jaxnet.fit(net, params, data, batches, optimizer=optax.adam(1e-2))
        >>> bool(history.test_accuracy[-1] > 0.95)
        True
    """
    run = iter_fit(
        net, params, data, batches, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm,
        weight_decay=weight_decay, criterion=criterion, eval_every=eval_every, key=key, mesh=mesh,
        max_data_bytes=max_data_bytes, form=form, resume=resume,
    )  # fmt: skip
    done = len(resume.history.loss) if resume else 0
    for progress in run:
        history = progress.history
        if on_evaluation is not None and done < history.eval_step[-1] == len(history.loss):
            latest = history.loss[-1], history.train_accuracy[-1], history.test_accuracy[-1]
            on_evaluation(int(history.eval_step[-1]), *map(float, latest))
    return progress


def iter_fit(
    net: Layer,
    params: Params,
    data: Dataset,
    batches: Batches,
    *,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    criterion: Criterion = softmax_cross_entropy,
    eval_every: int = 100,
    key: PRNGKeyArray | None = None,
    mesh: Mesh | None = None,
    max_data_bytes: int | None = None,
    form: Form | None = None,
    resume: Progress | None = None,
) -> Iterator[Progress]:
    """Trains as `fit` does, and yields the progress after every evaluation and about once a second in between.

    The arguments are those of `fit`. The caller may save what is yielded, or stop.

    Returns:
        An iterator that begins before the first step. `history.eval_step[-1] == len(history.loss)` after evaluations.

    Raises:
        ValueError: If an argument is out of range or inconsistent with the others; raised before the iteration.
        DivergedError: If a value becomes nan or infinite; raised during the iteration.

    Example:
        >>> data, net = jaxnet.data.digits(), jaxnet.two_layer_net(64, 50, 10)
        >>> params = net.init(jax.random.key(0), "he")
        >>> batches = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), batch_size=100, steps=300)
        >>> for progress in jaxnet.iter_fit(net, params, data, batches):
        ...     if progress.history.test_accuracy[-1] > 0.5:
        ...         break
        >>> len(progress.history.loss)
        100
    """
    if resume is not None and not isinstance(resume, Progress):
        raise ValueError(f"resume: {resume!r}, expected the progress of an earlier run, such as `fit` returns")
    if max_data_bytes is not None:
        check_counts(max_data_bytes=max_data_bytes)
        require_grain()
    plan = plan_run(
        net, params, data, batches, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm,
        weight_decay=weight_decay, criterion=criterion, eval_every=eval_every, key=key, mesh=mesh, form=form,
    )  # fmt: skip
    none = np.zeros(0, plan.dtype)
    progress = resume or Progress(plan.first, History(none, none.astype(np.int32), none, none))
    if _structure(progress.state) != _structure(plan.first):
        raise ValueError("resume: the progress of another network or optimizer, expected that of this run")
    _check_resumed(progress, len(plan.batches))
    state = plan.config.devices.place_state(progress.state)
    return _iterate(CompiledRun(plan, plan.samples(max_data_bytes)), state, progress.history, eval_every)


def _iterate(run: CompiledRun, state: TrainState, start: History, eval_every: int) -> Iterator[Progress]:
    devices, steps, done, chunk = run.config.devices, run.steps, int(state.step), FIRST_CHUNK
    evaluations = 1 + math.ceil(steps / eval_every) - done // eval_every
    record = GrowingHistory(start, steps - done, evaluations)
    if not len(start.eval_step):
        record.append_evaluation(*run.evaluate(state))
    yield Progress(state, record.history())
    while done < steps:
        next_evaluation = min((done // eval_every + 1) * eval_every, steps)
        stop, started = min(done + chunk, next_evaluation), time.perf_counter()
        new_state, losses, finite = run.advance(state, stop)
        record.append_losses(losses)
        if not (finite and np.isfinite(losses).all()):
            raise run.replay(state, record.history())
        state, done = new_state, stop
        if done == next_evaluation:
            record.append_evaluation(*run.evaluate(state))
        yield Progress(state, record.history())
        slow = devices.any(time.perf_counter() - started > CHUNK_SECONDS)
        chunk = max(1, chunk // 2 if slow else min(2 * chunk, run.max_steps))


def _check_resumed(progress: Progress, steps: int) -> None:
    done, history = int(progress.state.step), progress.history
    if done > steps:
        raise ValueError(f"resume: a run after {done} steps, expected at most the {steps} of batches")
    if len(history.loss) != done:
        raise ValueError(f"resume: a history of {len(history.loss)} losses, expected one for each of {done} steps")
    if len(set(map(len, history[1:]))) > 1:
        lengths = ", ".join(str(len(values)) for values in history[1:])
        raise ValueError(f"resume: eval_step and the accuracies have {lengths} entries, expected as many of each")


def _structure(state: TrainState) -> tuple[Any, list[tuple[Any, ...]]]:
    """Returns the structure of a state, with the shape and dtype of each leaf."""
    leaves, tree = jax.tree.flatten(state)
    return tree, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
