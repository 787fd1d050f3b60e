"""The compiled programs of a run: one makes steps, one evaluates. They take what changes and return what changed."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxnet.nn.inference import by_chunks
from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.nn.losses import correct
from jaxnet.train.device_data import BlockOfSteps, TrainingData, to_floats
from jaxnet.train.matmul_layout import Form, Layout, usual_form
from jaxnet.train.sharding import ONE_DEVICE, OneDevice
from jaxnet.train.step import Criterion, MakeOptimizer, Objective, TrainState, params_dtype, update

GATHERED_BYTES = 4 * 2**20  # of samples, where those of several steps are gathered together


class Hyperparameters(NamedTuple):
    """The numbers in a step: a different number is the same program, but a number instead of None is not."""

    learning_rate: Float[Array, ""] | None
    clip_norm: Float[Array, ""] | None
    weight_decay: Float[Array, ""] | None


class StepConfig(NamedTuple):
    """What is static in a step: a different value is a different program."""

    net: Layer
    optimizer: MakeOptimizer | optax.GradientTransformation
    criterion: Criterion
    devices: OneDevice = ONE_DEVICE
    form: Form = Form()

    def build(self, hyperparameters: Hyperparameters) -> tuple[Objective, optax.GradientTransformation]:
        """Returns the objective of a step and its optimizer, preceded by clipping where there is a `clip_norm`."""
        learning_rate, clip_norm, weight_decay = hyperparameters
        optimizer = self.optimizer
        if not isinstance(optimizer, optax.GradientTransformation):
            optimizer = optimizer(learning_rate)
        if clip_norm is not None:
            optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
        return Objective(self.net, self.criterion, weight_decay), optimizer


class _Carry(NamedTuple):
    state: TrainState  # its matrices in the program's layout
    losses: Array

    def advance(self, stop: Int[Array, ""], step: Callable[["_Carry"], "_Carry"]) -> "_Carry":
        """Makes the steps before `stop`."""
        return lax.while_loop(lambda carry: carry.state.step < stop, step, self)


def run_steps(
    config: StepConfig,
    hyperparameters: Hyperparameters,
    state: TrainState,
    data: TrainingData | BlockOfSteps,
    stop: Int[Array, ""],
    max_steps: int,
) -> tuple[TrainState, Float[Array, " {max_steps}"], Bool[Array, ""]]:
    """Makes the steps from `state.step` up to but not including `stop`, which is traced, at most `max_steps`.

    Returns:
        The state after the last step, the losses (nan beyond the last step), and whether the state is finite.
    """
    first, dtype = state.step, params_dtype(state.params)
    block = steps_per_gather(config, data)
    devices, layout = config.devices, config.form.layout
    config = config._replace(net=layout.network(config.net))

    def step(carry: _Carry, x: Array, t: Array) -> _Carry:
        batch = devices.constrain_rows((to_floats(x, dtype), t))
        state, loss = update(*config.build(hyperparameters), layout.convert(carry.state), *batch)
        done = carry.state.step - first
        losses = lax.dynamic_update_index_in_dim(carry.losses, loss.astype(dtype), done, 0)
        return _Carry(layout.convert(devices.constrain_state(state)), losses)

    def block_of_steps(carry: _Carry) -> _Carry:
        start = jnp.minimum(carry.state.step - data.first_step, data.steps - block)
        samples = data.of_steps(start, block)  # (block, B, ...), (block, B)
        if block == 1:
            return step(carry, *(a[0] for a in samples))

        def step_in_block(carry: _Carry) -> _Carry:
            i = carry.state.step - data.first_step - start
            return step(carry, *(lax.dynamic_index_in_dim(a, i, keepdims=False) for a in samples))

        return carry.advance(jnp.minimum(stop, data.first_step + start + block), step_in_block)

    carry = _Carry(layout.convert(state), jnp.full(max_steps, jnp.nan, dtype)).advance(stop, block_of_steps)
    state = layout.convert(carry.state)
    finite = all_finite((state.params, state.net_state, state.opt_state))
    return devices.constrain_result(state), *devices.constrain_whole((carry.losses, finite))


def steps_per_gather(config: StepConfig, data: TrainingData | BlockOfSteps) -> int:
    """Returns the number of steps whose rows are gathered together, so that memory serves many reads in parallel.

    It is 1 where rows need no gathering, over several devices, so that none holds more rows than it needs, and where
    Eigen multiplies: without a gather between two products, its second thread would fall asleep and take some 25
    microseconds to wake.
    """
    gathered = isinstance(data, TrainingData) and config.devices == ONE_DEVICE
    if not gathered or config.form.uses_eigen:
        return 1
    return max(1, min(data.steps, GATHERED_BYTES // (math.prod(data.batch_shape) * data.x.dtype.itemsize)))


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Returns whether every leaf of floats is finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()


def count_correct(
    net: Layer,
    params: Params,
    net_state: Tree,
    x: Array,
    t: Array,
    count: int | Int[Array, ""],
    *,
    devices: OneDevice = ONE_DEVICE,
    layout: Layout = Layout.AS_WRITTEN,
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns how many predictions in inference are correct, of the first `count` samples, and how many there are."""
    dtype = params_dtype(params)
    net = layout.network(net)

    def are_correct(stored: tuple[Params, Tree], x: Array, t: Array) -> Array:
        def of_chunk(x: Array, t: Array) -> Array:
            params, net_state = stored
            return correct(net.infer(layout.convert(params), net_state, to_floats(x, dtype)), t)

        return by_chunks(of_chunk, x, t)

    are_right = devices.map_rows(are_correct, (layout.convert(params), net_state), x, t)  # (N,), or (N, T)
    counted = jnp.arange(len(are_right)) < count
    predictions = count * math.prod(are_right.shape[1:])
    return (are_right & jnp.expand_dims(counted, range(1, are_right.ndim))).sum(), jnp.asarray(predictions)


def usual_form_of_steps(config: StepConfig, params: Params, rows: int) -> Form:
    """Returns the usually fastest form for steps of so many rows; over several devices, layers as they are written.

    The form for a CPU takes a few images at a time, which would be gathered from all devices.
    """
    form = usual_form(config.net, params, rows)
    is_divided = form.layout is Layout.FOR_CPU and config.devices != ONE_DEVICE
    return form._replace(layout=Layout.AS_WRITTEN) if is_divided else form


@cache
def compiled_in(form: Form, function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """Returns a function compiled with the library that belongs to a form; `static` names arguments."""
    return jax.jit(function, static_argnames=static, compiler_options=form.compiler_options)
