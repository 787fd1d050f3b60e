"""Checks the arguments of `fit` and `sweep` before any work, and builds the configuration of their steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxnet.common.validation import (
    check_fits_dtype,
    check_ids,
    check_labels,
    check_not_negative,
    check_positive,
    check_samples,
)
from jaxnet.data import Dataset
from jaxnet.nn.description import symbol_count
from jaxnet.nn.layers import Layer, Params
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.nn.summary import param_shapes
from jaxnet.nn.tree_paths import leaves_by_path
from jaxnet.train.compiled_steps import Hyperparameters, StepConfig
from jaxnet.train.sharding import ONE_DEVICE, OneDevice, placement
from jaxnet.train.step import OPTIMIZERS, Criterion, MakeOptimizer, Optimizer, params_dtype


def configure(
    net: Layer,
    params: Params,
    *,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    criterion: Criterion = softmax_cross_entropy,
    mesh: Mesh | None = None,
) -> tuple[StepConfig, Hyperparameters]:
    """Returns what a step does, from arguments as for `fit`, which it checks."""
    check_params(net, params)
    optimizer, learning_rate = _choose_optimizer(optimizer, learning_rate)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    check_not_negative("weight_decay", weight_decay)
    if not callable(criterion):
        raise ValueError(f"criterion: {criterion!r}, expected a function of (y, t), such as jaxnet.mean_squared_error")
    dtype = params_dtype(params)

    def scalar(name: str, value: float | None) -> Any:
        if value is not None:
            check_fits_dtype(name, value, dtype)
        return None if value is None else jnp.asarray(value, dtype)

    config = StepConfig(net, optimizer, criterion, placement(mesh))
    return config, Hyperparameters(
        scalar("learning_rate", learning_rate),
        scalar("clip_norm", clip_norm),
        scalar("weight_decay", weight_decay or None),  # none is a program without the term
    )


def _choose_optimizer(
    optimizer: Any, learning_rate: float | None
) -> tuple[MakeOptimizer | optax.GradientTransformation, float | None]:
    if isinstance(optimizer, optax.GradientTransformation):
        if learning_rate is not None:
            raise ValueError(
                f"learning_rate: {learning_rate!r}, expected none beside an optax.GradientTransformation, which has "
                "its own; pass a function, such as optimizer=optax.adam, to set it here"
            )
        return optimizer, None
    if isinstance(optimizer, str) and optimizer in OPTIMIZERS:
        optimizer, default = OPTIMIZERS[optimizer]
        learning_rate = default if learning_rate is None else learning_rate
    if not callable(optimizer):
        raise ValueError(
            f"optimizer: {optimizer!r}, expected one of {', '.join(OPTIMIZERS)}, an optax.GradientTransformation, or "
            "a function from a learning rate to one"
        )
    check_positive("learning_rate", learning_rate)
    return optimizer, learning_rate


def check_params(net: Layer, params: Params) -> None:
    """Raises ValueError if parameters have not the names and shapes of the network's own, or are no floats."""
    if not isinstance(net, Layer):
        raise ValueError(f"net: {type(net).__name__}, expected a network, such as two_layer_net(784, 50, 10)")
    advice = "pass what `net.init` of this network returns"
    expected, leaves = param_shapes(net), leaves_by_path(params) if isinstance(params, dict) else {}
    actual = {name: np.shape(leaf) for name, leaf in leaves.items()}
    for name in expected | actual:
        if expected.get(name) != actual.get(name):
            shapes = f"{actual.get(name, 'missing')}, expected {expected.get(name, 'no such leaf')}"
            raise ValueError(f"params: {name} is {shapes}; {advice}")
    for name, leaf in leaves.items():
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"params: {name} is {dtype}, expected floats; {advice}")


def check_data(net: Layer, params: Params, data: Dataset, devices: OneDevice = ONE_DEVICE) -> None:
    """Raises ValueError if rows that this process holds do not fit the network, or labels do not fit its outputs."""
    if not isinstance(data, Dataset):
        raise ValueError(f"data: {type(data).__name__}, expected a Dataset(x_train, t_train, x_test, t_test)")
    for field, array in data._asdict().items():
        if not getattr(array, "ndim", 0):
            raise ValueError(f"data.{field}: {type(array).__name__}, expected an array with an entry for each sample")
    dtype, symbols = params_dtype(params), symbol_count(net)
    for name, x, t in (("train", data.x_train, data.t_train), ("test", data.x_test, data.t_test)):
        for suffix, rows in devices.held_rows(len(x)):
            check_samples(f"data.x_{name}{suffix}", x[rows], dtype)
            if symbols is not None:
                check_ids(f"data.x_{name}{suffix}", x[rows], symbols)
            try:
                logits = jax.eval_shape(net.infer, params, net.state, x[:1])
            except ValueError as error:
                raise ValueError(f"data.x_{name}: the network does not accept it: {error}") from error
            check_labels(f"data.t_{name}{suffix}", t[rows], (len(x[rows]), *logits.shape[1:]))
