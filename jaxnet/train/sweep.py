"""Many runs of one network at once: every learning rate with every initial scale and every seed, in one program.

All runs take the same batches, so that they differ in what is swept and in nothing else, and so that a batch's rows are
fetched once for all of them: the first product is one matrix by all the first layers side by side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer, Params
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.train.compiled_steps import Rates, Recipe, all_finite, evaluate, fetched, optimizer_of, step_of
from jaxnet.train.device_data import to_device, to_floats
from jaxnet.train.step import Criterion, MakeOptimizer, TrainState, init_train_state
from jaxnet.train.step_config import Settings, check_data, recipe_of
from jaxnet.validation import check_batches, check_counts, check_holds, check_positive

STRIDE = 100  # steps between two reports


class Sweep(NamedTuple):
    """L learning rates, C initial scales, K seeds; accuracies of the final parameters."""

    learning_rate: Float[np.ndarray, " L"]
    scale: Float[np.ndarray, " C"]
    seed: Int[np.ndarray, " K"]
    loss: Float[np.ndarray, "L C K S"]  # of each step's batch, in nats; nan once a run has diverged
    train_accuracy: Float[np.ndarray, "L C K"]  # in [0, 1]
    test_accuracy: Float[np.ndarray, "L C K"]
    diverged: np.ndarray  # (L, C, K): a loss or a final parameter is nan or infinite


def sweep(
    net: Layer,
    data: Dataset,
    batches: Int[Array, "S B"],
    *,
    learning_rates: Sequence[float],
    scales: Sequence[float] = (0.1,),
    seeds: Sequence[int] = (0,),
    optimizer: str | MakeOptimizer = "sgd",
    clip_norm: float | None = None,
    decay: float = 0.0,
    criterion: Criterion = softmax_cross_entropy,
    on_steps: Callable[[int], None] | None = None,
) -> Sweep:
    """Train every combination, each as `fit` would from `net.init(jax.random.key(seed), scale)`.

    Args:
        net: As `fit` takes it. What it draws, for Dropout, comes from `jax.random.key(0)`, the same for all runs.
        data: As `fit` takes it.
        batches: Row numbers into `data.x_train`, one row a step, for all runs alike.
        learning_rates: Each > 0 and finite.
        scales: Standard deviations of the initial weights, each > 0 and finite.
        seeds: Whole numbers >= 0.
        optimizer: As `fit` takes it; so `clip_norm`, `decay` and `criterion`.
        clip_norm: See `fit`.
        decay: See `fit`.
        criterion: See `fit`.
        on_steps: Called with the number of steps done, now and then.

    Raises:
        ValueError: An argument is out of range, empty, or does not fit the others.
    """
    for name, values in {"learning_rates": learning_rates, "scales": scales, "seeds": seeds}.items():
        if not len(values):
            raise ValueError(f"{name}: none is given, expected at least one")
        for i, value in enumerate(values):
            if name == "seeds":
                check_counts(0, **{f"seeds[{i}]": value})  # type: ignore[arg-type]
            else:
                check_positive(f"{name}[{i}]", value)
                check_holds(f"{name}[{i}]", value, jnp.result_type(float))
    runs = list(product(learning_rates, scales, seeds))
    rates, stds = (jnp.array([float(run[i]) for run in runs]) for i in range(2))
    keys = jnp.stack([jax.random.key(seed) for _, _, seed in runs])

    params = jax.vmap(net.init)(keys, stds)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    check_data(net, one, data)
    check_batches("batches", batches, len(data.x_train))
    settings: Settings = {"optimizer": optimizer, "clip_norm": clip_norm, "decay": decay, "criterion": criterion}
    recipe, shared = recipe_of(net, one, settings | {"learning_rate": 1.0})
    dtype = jnp.result_type(*jax.tree.leaves(params))
    shared = shared._replace(learning_rate=rates.astype(dtype))
    axes = jax.tree.map(_side_by_side, jax.eval_shape(partial(_begin, recipe, shared), shared.learning_rate[0], one))
    axes = axes._replace(key=None, step=None)
    now = jax.vmap(partial(_begin, recipe, shared), out_axes=axes)(shared.learning_rate, params)
    x_train, x_test = (to_device(x, dtype) for x in (data.x_train, data.x_test))
    t_train, t_test, batches = (jnp.asarray(a) for a in (data.t_train, data.t_test, batches))
    steps = jax.jit(partial(_steps_of_all, recipe, axes))
    losses, length = [], len(batches)
    for done in range(0, length, STRIDE):
        stop = min(done + STRIDE, length)
        now, loss = steps(shared, now, x_train, t_train, batches, stop)
        losses.append(np.asarray(loss)[: stop - done].T)
        if on_steps is not None:
            on_steps(stop)
    look = jax.jit(jax.vmap(partial(evaluate, net), (axes.params, axes.net_state, None, None)))
    grid = len(learning_rates), len(scales), len(seeds)
    loss = np.concatenate(losses, axis=1)
    parts, places = (now.params, now.net_state, now.opt_state), (axes.params, axes.net_state, axes.opt_state)
    finite = jax.vmap(all_finite, (places,))(parts)
    bad = ~(np.isfinite(loss).all(axis=1) & np.asarray(finite))
    loss[np.maximum.accumulate(~np.isfinite(loss), axis=1)] = np.nan
    train, test = (
        np.where(bad, np.nan, look(now.params, now.net_state, x, t)) for x, t in ((x_train, t_train), (x_test, t_test))
    )
    return Sweep(
        np.array(learning_rates), np.array(scales), np.array(seeds),
        loss.reshape(*grid, length), train.reshape(grid), test.reshape(grid), bad.reshape(grid),
    )  # fmt: skip


def _begin(recipe: Recipe, rates: Rates, learning_rate: Array, params: Params) -> TrainState:
    """Of one run."""
    optimizer = optimizer_of(recipe, rates._replace(learning_rate=learning_rate))
    return init_train_state(recipe.net, optimizer, params, jax.random.key(0))


def _side_by_side(leaf: Any) -> int:
    """Which axis of a leaf of all runs counts the runs: (784, R, 50), so that x by it is one matrix product."""
    return max(0, leaf.ndim - 1)


def _steps_of_all(
    recipe: Recipe, axes: TrainState, rates: Rates, now: TrainState, x: Array, t: Array, batches: Array, stop: Array
) -> tuple[TrainState, Float[Array, "{STRIDE} R"]]:
    """As `run_steps`, of every run at once: at most STRIDE steps, and their losses."""
    first, dtype = now.step, rates.learning_rate.dtype

    def step(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        now, losses = carry
        x_rows, t_rows = fetched(lax.dynamic_index_in_dim(batches, now.step, keepdims=False), x, t)
        x_rows = to_floats(x_rows, dtype)

        def one(learning_rate: Array, now: TrainState) -> tuple[TrainState, Array]:
            return step_of(recipe, rates._replace(learning_rate=learning_rate), now, x_rows, t_rows)

        now, loss = jax.vmap(one, (0, axes), (axes, 0))(rates.learning_rate, now)
        return now, lax.dynamic_update_index_in_dim(losses, loss, now.step - 1 - first, 0)

    losses = jnp.full((STRIDE, len(rates.learning_rate)), jnp.nan, dtype)
    return lax.while_loop(lambda carry: carry[0].step < stop, step, (now, losses))
