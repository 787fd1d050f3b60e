"""What training compiles: one program that makes steps, and one that evaluates. What changes is argument and result."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxnet.nn.inference import by_chunks, chunk_of
from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.nn.losses import correct
from jaxnet.train.device_data import to_floats
from jaxnet.train.matmul_layout import by_eigen, compiler_options, way_of
from jaxnet.train.sharding import ONE_DEVICE, OneDevice
from jaxnet.train.step import Criterion, MakeOptimizer, TrainState, train_step

NO_CHECK = "promise_in_bounds"  # of row numbers: `fit` has looked
FETCHED = 4 * 2**20  # bytes of samples that are fetched at once, where those of several steps are


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

    Returns the state after them, their losses with nan behind the last, and whether all of the state is finite. Where
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
            batch = recipe.devices.split((to_floats(x_batch, dtype), t_batch))
            after, loss = step_of(recipe, rates, now, *batch)
            return way.turn(after), lax.dynamic_update_index_in_dim(losses, loss.astype(dtype), now.step - first, 0)

        end = jnp.minimum(stop, begin + block)
        return lax.while_loop(lambda carry: carry[0].step < end, step, carry) if block > 1 else step(carry)

    empty = jnp.full(length, jnp.nan, dtype)
    now, losses = lax.while_loop(lambda carry: carry[0].step < stop, steps, (way.turn(now), empty))
    return recipe.devices.whole((way.turn(now), losses, all_finite((now.params, now.net_state, now.opt_state))))


def steps_fetched(recipe: Recipe, params: Params, batches: Int[Array, "S B"], x: Array) -> int:
    """Of how many steps the samples are fetched at once, so that the memory answers many reads side by side.

    Of one alone beside Eigen's products: without this work in every step its second thread falls asleep between two of
    them, and wakes in some 25 microseconds. Of one alone over many devices, which then hold no more than that.
    """
    if recipe.devices != ONE_DEVICE or by_eigen(recipe.net, params, batches.shape[1]):
        return 1
    each = batches.shape[1] * math.prod(x.shape[1:]) * x.dtype.itemsize
    return max(1, min(len(batches), FETCHED // each))


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Returns whether every leaf of floats is finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()


def evaluate(
    net: Layer, params: Params, net_state: Tree, x: Array, t: Array, count: int | None = None,
    devices: OneDevice = ONE_DEVICE,
) -> Float[Array, ""]:  # fmt: skip
    """Returns the accuracy in inference, in [0, 1], of the first `count` samples on the device, or of all."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    way = way_of(net, chunk_of(x))
    lying, net = way.turn(params), way.net(net)

    def hits(x: Array, t: Array) -> Array:
        return correct(net.infer(way.turn(lying), net_state, to_floats(x, dtype)), t)

    return devices.each(partial(by_chunks, hits))(x, t)[:count].mean(dtype=dtype)


def compiled(function: Callable[..., Any], net: Layer, params: Params, rows: int, *static: str) -> Callable[..., Any]:
    """Returns the function as one program, which takes a fixed number of rows at once through the network."""
    return _compiled(function, tuple(compiler_options(net, params, rows).items()), static)


@cache
def _compiled(
    function: Callable[..., Any], options: tuple[tuple[str, str], ...], static: tuple[str, ...]
) -> Callable[..., Any]:
    return jax.jit(function, static_argnames=static, compiler_options=dict(options))
