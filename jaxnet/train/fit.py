"""Training: a loop in Python around two compiled programs, one that makes steps and one that evaluates.

The data is on the device and the batches are drawn in advance. Control returns to Python after each evaluation, or
after about a second. At these points a run can be watched, saved, stopped and resumed without changing its results.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PRNGKeyArray

from jaxnet.common.validation import check_counts, check_key, native
from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer, Params, no_noise
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.train.compiled_steps import (
    Hyperparameters,
    StepConfig,
    compiled_in,
    count_correct,
    run_steps,
    usual_form_of_steps,
)
from jaxnet.train.device_data import to_floats
from jaxnet.train.divergence import DivergedError, diverged_error, nonfinite_finder
from jaxnet.train.history import GrowingHistory, History, Progress
from jaxnet.train.matmul_layout import usual_form
from jaxnet.train.random_batches import Batches, checked_batches
from jaxnet.train.sample_sources import DeviceSamples, HostSamples, Part, bytes_of, require_grain
from jaxnet.train.step import Criterion, Optimizer, TrainState, init_train_state, params_dtype
from jaxnet.train.step_config import check_data, configure

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
        max_data_bytes=max_data_bytes, resume=resume,
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
    config, hyperparameters = configure(
        net, params, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm,
        weight_decay=weight_decay, criterion=criterion, mesh=mesh,
    )  # fmt: skip
    check_counts(eval_every=eval_every)
    if resume is not None and not isinstance(resume, Progress):
        raise ValueError(f"resume: {resume!r}, expected the progress of an earlier run, such as `fit` returns")
    if isinstance(data, Dataset):
        data = Dataset(*map(native, data))
    if max_data_bytes is not None:
        check_counts(max_data_bytes=max_data_bytes)
        require_grain()
    check_data(net, params, data, config.devices)
    batches, dtype = checked_batches(batches, len(data.x_train)), params_dtype(params)
    config.devices.check_batch_size(batches.shape[1])
    config = config._replace(form=usual_form_of_steps(config, params, batches.shape[1]))
    first = _initial_state(config, hyperparameters, params, key)
    none = np.zeros(0, dtype)
    progress = resume or Progress(first, History(none, none.astype(np.int32), none, none))
    if _structure(progress.state) != _structure(first):
        raise ValueError("resume: the progress of another network or optimizer, expected that of this run")
    _check_resumed(progress, len(batches))
    state = config.devices.place_state(progress.state)
    hyperparameters = config.devices.replicate(hyperparameters)
    samples: DeviceSamples | HostSamples
    if max_data_bytes is None or bytes_of(data, len(data.x_train) + len(data.x_test), dtype) <= max_data_bytes:
        samples = DeviceSamples(data, batches, config.devices, dtype)
    else:
        samples = HostSamples(data, batches, config.devices, dtype, max_data_bytes)
    programs = _Programs(config, hyperparameters, state.params, samples, batches.shape, min(eval_every, len(batches)))
    return _iterate(programs, state, progress.history, eval_every)


def initial_state(
    net: Layer,
    params: Params,
    *,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    key: PRNGKeyArray | None = None,
) -> TrainState:
    """Returns the state that `fit` starts from with these arguments.

    Raises:
        ValueError: If an argument is out of range or inconsistent with the others.
    """
    configured = configure(net, params, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm)
    return _initial_state(*configured, params, key)


def _initial_state(
    config: StepConfig, hyperparameters: Hyperparameters, params: Params, key: PRNGKeyArray | None
) -> TrainState:
    if key is None:
        if config.net.draw_noise is not no_noise:
            raise ValueError("key: None, but the network draws random numbers; pass jax.random.key(seed)")
        key = jax.random.key(0)
    check_key("key", key)
    return init_train_state(config.net, config.build(hyperparameters)[1], params, key)


def _iterate(programs: "_Programs", state: TrainState, start: History, eval_every: int) -> Iterator[Progress]:
    devices, steps, done, chunk = programs.config.devices, programs.steps, int(state.step), FIRST_CHUNK
    evaluations = 1 + math.ceil(steps / eval_every) - done // eval_every
    record = GrowingHistory(start, steps - done, evaluations)
    if not len(start.eval_step):
        record.append_evaluation(*programs.evaluate(state))
    yield Progress(state, record.history())
    while done < steps:
        next_evaluation = min((done // eval_every + 1) * eval_every, steps)
        stop, started = min(done + chunk, next_evaluation), time.perf_counter()
        new_state, losses, finite = programs.advance(state, stop)
        record.append_losses(losses)
        if not (finite and np.isfinite(losses).all()):
            raise programs.replay(state, record.history())
        state, done = new_state, stop
        if done == next_evaluation:
            record.append_evaluation(*programs.evaluate(state))
        yield Progress(state, record.history())
        slow = devices.any(time.perf_counter() - started > CHUNK_SECONDS)
        chunk = max(1, chunk // 2 if slow else min(2 * chunk, programs.max_steps))


class _Programs:
    """The two compiled programs of a run, with the samples that they read."""

    def __init__(
        self,
        config: StepConfig,
        hyperparameters: Hyperparameters,
        params: Params,
        samples: DeviceSamples | HostSamples,
        batches_shape: tuple[int, ...],
        max_steps: int,
    ) -> None:
        self.steps, self.dtype = batches_shape[0], params_dtype(params)
        self.config, self.hyperparameters, self.samples, self.max_steps = config, hyperparameters, samples, max_steps
        self._run = compiled_in(config.form, run_steps, "config", "max_steps")
        evaluation = usual_form(config.net, params, samples.rows_at_a_time)
        compiled = compiled_in(evaluation, count_correct, "net", "devices", "layout")
        self._count_correct = partial(compiled, config.net, devices=config.devices, layout=evaluation.layout)

    def advance(self, state: TrainState, stop: int) -> tuple[TrainState, Float[np.ndarray, " K"], bool]:
        """Makes the steps from `state.step` up to but not including `stop`.

        Returns:
            The state after the last step, the losses, and whether the state is finite.
        """
        done, losses, finite = int(state.step), [], True
        for data, end in self.samples.of_steps(done, stop):
            arguments = self.config, self.hyperparameters, state, data, end
            state, some_losses, some_finite = self._run(*arguments, max_steps=self.max_steps)
            losses.append(np.asarray(some_losses)[: end - done])
            done, finite = end, finite and bool(some_finite)
        return state, np.concatenate(losses), finite

    def evaluate(self, state: TrainState) -> tuple[float, float]:
        """Returns the accuracies of this state, in [0, 1], on the training and the test samples."""

        def accuracy(parts: Iterator[Part]) -> float:
            total = np.zeros(2, np.int64)
            for x, t, rows in parts:
                total += np.array(self._count_correct(state.params, state.net_state, x, t, rows))
            return float(total[0] / total[1])

        train, test = map(accuracy, self.samples.evaluated())
        return train, test

    def replay(self, state: TrainState, history: History) -> DivergedError:
        """Repeats the steps after `state` one by one, to the first with a non-finite value, and returns the error."""
        objective, optimizer = self.config.build(self.hyperparameters)
        first_nonfinite = nonfinite_finder(objective, optimizer)
        last = next(iter(np.flatnonzero(~np.isfinite(history.loss))), len(history.loss) - 1)  # a fault shows by then
        while True:
            x, t = self.samples.of_step(int(state.step))
            what = first_nonfinite(state, to_floats(x, self.dtype), t)
            if what is None and state.step == last:  # the compiled loop rounds differently
                what = f"the loss is {history.loss[last]}"
            if what is not None:
                rate = self.hyperparameters.learning_rate
                return diverged_error(what, history, state, None if rate is None else float(rate))
            state, _, _ = self.advance(state, int(state.step) + 1)


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
