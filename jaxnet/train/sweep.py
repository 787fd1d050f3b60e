"""Trains one network many times in one program, with every learning rate, initial standard deviation and seed.

All runs take the same batches. They differ in what is swept and in nothing else, and a batch's rows are gathered once
for all of them: the first product is one matrix by the first layers of all runs side by side.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxnet.common.outline import outline
from jaxnet.common.validation import check_counts, check_fits_dtype, check_positive
from jaxnet.data import Dataset
from jaxnet.nn.inference import chunk_of
from jaxnet.nn.layers import Layer, Params
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.train.compiled_steps import Hyperparameters, StepConfig, all_finite, count_correct
from jaxnet.train.device_data import TrainingData, to_device, to_floats
from jaxnet.train.matmul_layout import usual_form
from jaxnet.train.random_batches import MIN_BLOCK, Batches, PlacedBatches, checked_batches
from jaxnet.train.sharding import OneDevice, placement
from jaxnet.train.step import Criterion, MakeOptimizer, TrainState, init_train_state, params_dtype, update
from jaxnet.train.step_config import check_data, configure

CHUNK = MIN_BLOCK  # steps between two reports


class Sweep(NamedTuple):
    """The results of L learning rates, C initial standard deviations and K seeds, with the final accuracies."""

    learning_rate: Float[np.ndarray, " L"]
    init_std: Float[np.ndarray, " C"]
    seed: Int[np.ndarray, " K"]
    loss: Float[np.ndarray, "L C K S"]  # of each step's batch, in nats; nan once a run has diverged
    train_accuracy: Float[np.ndarray, "L C K"]  # in [0, 1]; nan where a run has diverged
    test_accuracy: Float[np.ndarray, "L C K"]
    diverged: np.ndarray  # (L, C, K): a loss or a value of the final state is nan or infinite

    def __repr__(self) -> str:
        """Returns the shapes of the fields."""
        return outline(self)


def sweep(
    net: Layer,
    data: Dataset,
    batches: Batches,
    *,
    learning_rates: Sequence[float],
    init_stds: Sequence[float] = (0.1,),
    seeds: Sequence[int] = (0,),
    optimizer: str | MakeOptimizer = "sgd",
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    criterion: Criterion = softmax_cross_entropy,
    mesh: Mesh | None = None,
    on_steps: Callable[[int], None] | None = None,
) -> Sweep:
    """Trains every combination, each as `fit` does from `net.init(jax.random.key(seed), init_std)`.

    Args:
        net: The network. Its noise, such as Dropout's masks, comes from `jax.random.key(0)` in all runs.
        data: As for `fit`.
        batches: Row numbers into `data.x_train`, one row for each step of all runs.
        learning_rates: Learning rates, each > 0 and finite.
        init_stds: Standard deviations of the initial weights, each > 0 and finite. Defaults to 0.1 alone.
        seeds: Whole numbers from 0 to 2³² - 1. Defaults to 0 alone.
        optimizer: A name in `OPTIMIZERS`, or a function from a learning rate to an optax optimizer. Defaults to "sgd".
        clip_norm: As for `fit`.
        weight_decay: As for `fit`.
        criterion: As for `fit`.
        mesh: Devices to divide the runs between, as from `jaxnet.train.sharding.mesh`. Each has all of the data and
            trains its own runs; nothing is communicated but their results. Every process passes the same arguments.
        on_steps: Called with the number of steps done after every 100 steps, and at the end.

    Returns:
        Losses and accuracies of every run.

    Raises:
        ValueError: If an argument is out of range, empty, or inconsistent with the others.

    Example:
        >>> data, net = jaxnet.data.digits(), jaxnet.two_layer_net(64, 50, 10)
        >>> batches = jaxnet.draw_batches(jax.random.key(0), len(data.x_train), batch_size=100, steps=100)
        >>> result = jaxnet.sweep(net, data, batches, learning_rates=[0.001, 0.1], init_stds=[0.1], seeds=[0, 1])
        >>> result.test_accuracy.shape
        (2, 1, 2)
        >>> bool(result.test_accuracy[1].min() > result.test_accuracy[0].max())
        True
    """
    grid: dict[str, Sequence[float]] = {"learning_rates": learning_rates, "init_stds": init_stds, "seeds": seeds}
    for name, values in grid.items():
        _check_swept(name, values)
    if isinstance(optimizer, optax.GradientTransformation):
        raise ValueError("optimizer: an optax.GradientTransformation, expected a name or a function of learning rates")
    devices, count = placement(mesh), math.prod(map(len, grid.values()))
    runs = list(product(*grid.values()))
    rates, stds, run_seeds = zip(*runs, *[runs[-1]] * (devices.divisible(count) - count), strict=True)
    params = jax.vmap(net.init)(jnp.stack([jax.random.key(seed) for seed in run_seeds]), jnp.array(stds, float))
    first_params = jax.tree.map(lambda leaf: leaf[0], params)
    check_data(net, first_params, data)
    batches = checked_batches(batches, len(data.x_train))
    config, hyperparameters = configure(
        net, first_params, optimizer=optimizer, learning_rate=1.0, clip_norm=clip_norm, weight_decay=weight_decay,
        criterion=criterion,
    )  # fmt: skip
    dtype = params_dtype(params)
    hyperparameters = hyperparameters._replace(learning_rate=jnp.array(rates, dtype))

    x_train, x_test = (to_device(x, dtype) for x in (data.x_train, data.x_test))
    x_train, t_train, x_test, t_test = devices.replicate(
        (x_train, jnp.asarray(data.t_train), x_test, jnp.asarray(data.t_test))
    )
    axes, state = _initial_states(config, hyperparameters, params)
    state, loss = _train(config, hyperparameters, axes, devices, state, (x_train, t_train), batches, on_steps=on_steps)
    results = _evaluate(net, axes, devices, state, ((x_train, t_train), (x_test, t_test)))

    loss, finite, *accuracies = (np.asarray(values)[:count] for values in (loss, *results))
    diverged = ~(np.isfinite(loss).all(axis=1) & finite)
    loss[np.maximum.accumulate(~np.isfinite(loss), axis=1)] = np.nan
    accuracies = [np.where(diverged, np.nan, accuracy) for accuracy in accuracies]
    shape = tuple(map(len, grid.values()))
    by_run = (values.reshape(*shape, *values.shape[1:]) for values in (loss, *accuracies, diverged))
    return Sweep(np.array(learning_rates), np.array(init_stds), np.array(seeds), *by_run)


def _check_swept(name: str, values: Sequence[Any]) -> None:
    if not len(values):
        raise ValueError(f"{name}: empty, expected at least one")
    for i, value in enumerate(values):
        if name == "seeds":
            check_counts(0, **{f"seeds[{i}]": value})
            if value >= 2**32:  # JAX's keys would take the remainder
                raise ValueError(f"seeds[{i}]: {value}, expected a whole number from 0 to 2^32 - 1")
        else:
            check_positive(f"{name}[{i}]", value)
            check_fits_dtype(f"{name}[{i}]", value, jnp.result_type(float))


def _initial_states(
    config: StepConfig, hyperparameters: Hyperparameters, params: Params
) -> tuple[TrainState, TrainState]:
    """Returns the axis of each leaf that counts the runs (None where all runs share it), and the states of all runs.

    It is the axis before the last, (784, R, 50), so that x by the weights of all runs is one matrix product.
    """

    def initial_state(learning_rate: Array, params: Params) -> TrainState:
        _, optimizer = config.build(hyperparameters._replace(learning_rate=learning_rate))
        return init_train_state(config.net, optimizer, params, jax.random.key(0))

    rates: Any = hyperparameters.learning_rate
    shapes = jax.eval_shape(initial_state, rates[0], jax.tree.map(lambda leaf: leaf[0], params))
    axes = jax.tree.map(lambda leaf: max(0, leaf.ndim - 1), shapes)._replace(key=None, step=None)
    return axes, jax.vmap(initial_state, out_axes=axes)(rates, params)


def _train(
    config: StepConfig,
    hyperparameters: Hyperparameters,
    axes: TrainState,
    devices: OneDevice,
    state: TrainState,
    samples: tuple[Array, Array],
    batches: Batches,
    *,
    on_steps: Callable[[int], None] | None,
) -> tuple[TrainState, np.ndarray]:
    """Trains all runs; returns their final states, and their losses (R, S)."""

    def run_chunk(
        hyperparameters: Hyperparameters, state: TrainState, data: TrainingData, stop: Int[Array, ""]
    ) -> tuple[TrainState, Float[Array, "{CHUNK} R"]]:
        """Makes the steps of the runs of a device up to but not including `stop`, at most CHUNK."""
        rates: Any = hyperparameters.learning_rate
        first, dtype = state.step, rates.dtype

        def step(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, losses = carry
            x, t = data.gather(lax.dynamic_index_in_dim(data.batches, state.step - data.first_step, keepdims=False))
            x = to_floats(x, dtype)

            def step_of_run(learning_rate: Array, state: TrainState) -> tuple[TrainState, Array]:
                return update(*config.build(hyperparameters._replace(learning_rate=learning_rate)), state, x, t)

            new_state, loss = jax.vmap(step_of_run, (0, axes), (axes, 0))(rates, state)
            return new_state, lax.dynamic_update_index_in_dim(losses, loss, state.step - first, 0)

        losses = jnp.full((CHUNK, len(rates)), jnp.nan, dtype)
        return lax.while_loop(lambda carry: carry[0].step < stop, step, (state, losses))

    whole = jax.tree.map(lambda _: None, hyperparameters)
    hyperparameter_axes = whole._replace(learning_rate=0)
    divided = devices.map_along(run_chunk, (hyperparameter_axes, axes, None, None), (axes, 1))

    @jax.jit
    def program(*arguments: Any) -> tuple[TrainState, Array]:
        state, losses = divided(*arguments)
        return state, devices.constrain_whole(losses)

    hyperparameters = devices.place_along(hyperparameters, hyperparameter_axes)
    state = devices.place_along(state, axes)
    losses, steps, placed = [], len(batches), PlacedBatches(batches, devices.replicate)
    for done in range(0, steps, CHUNK):
        stop = min(done + CHUNK, steps)
        data = TrainingData(*samples, *placed.of_steps(done, stop))
        state, chunk_losses = program(hyperparameters, state, data, stop)
        losses.append(np.asarray(chunk_losses)[: stop - done].T)
        if on_steps is not None:
            on_steps(stop)
    return state, np.concatenate(losses, axis=1)


def _evaluate(
    net: Layer, axes: TrainState, devices: OneDevice, state: TrainState, samples: tuple[tuple[Array, Array], ...]
) -> tuple[Array, ...]:
    """Returns for each run whether its final state is finite, and its training and test accuracies.

    A device evaluates its runs one by one: on a CPU, XLA's convolution by the weights of several runs is slow.
    """

    def evaluate_runs(state: TrainState, samples: tuple[tuple[Array, Array], ...]) -> tuple[Array, ...]:
        arrays, arrays_axes = ((tree.params, tree.net_state, tree.opt_state) for tree in (state, axes))
        runs = jax.tree.map(lambda leaf, axis: jnp.moveaxis(leaf, axis, 0), arrays, arrays_axes)

        def evaluate_run(run: tuple[Any, ...]) -> tuple[Array, ...]:
            params, net_state, _ = run
            layouts = [usual_form(net, params, chunk_of(x)).layout for x, _ in samples]
            counts = [
                count_correct(net, params, net_state, x, t, len(x), layout=layout)
                for layout, (x, t) in zip(layouts, samples, strict=True)
            ]
            return all_finite(run), *(right / predictions for right, predictions in counts)

        results: tuple[Array, ...] = lax.map(evaluate_run, runs)
        return results

    divided = devices.map_along(evaluate_runs, (axes, None), 0)
    program = jax.jit(lambda *arguments: devices.constrain_whole(divided(*arguments)))
    results: tuple[Array, ...] = program(state, samples)
    return results
