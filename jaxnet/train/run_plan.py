"""What the arguments of `fit` describe, checked before any work: the steps, the data, and the state they start from."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from jaxnet.common.validation import check_counts, check_key, native
from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer, Params, no_noise
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.train.compiled_steps import Hyperparameters, StepConfig, usual_form_of_steps
from jaxnet.train.matmul_layout import Form, possible_forms
from jaxnet.train.random_batches import Batches, checked_batches
from jaxnet.train.sample_sources import DeviceSamples, HostSamples, bytes_of
from jaxnet.train.step import Criterion, Optimizer, TrainState, init_train_state, params_dtype
from jaxnet.train.step_config import check_data, configure


class RunPlan(NamedTuple):
    """What the arguments of `fit` describe, after they were checked."""

    config: StepConfig
    hyperparameters: Hyperparameters
    data: Dataset
    batches: Batches
    first: TrainState
    max_steps: int  # between two evaluations

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the whole computation."""
        return params_dtype(self.first.params)

    def samples(self, max_bytes: int | None) -> DeviceSamples | HostSamples:
        """Returns the samples on the devices, or on the host if they have more bytes than are allowed."""
        data, devices = self.data, self.config.devices
        if max_bytes is None or bytes_of(data, len(data.x_train) + len(data.x_test), self.dtype) <= max_bytes:
            return DeviceSamples(data, self.batches, devices, self.dtype)
        return HostSamples(data, self.batches, devices, self.dtype, max_bytes)


def plan_run(
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
    form: Form | None = None,
) -> RunPlan:
    """Checks the arguments of a run, and returns what they describe. No data are copied to the devices.

    The arguments are those of `fit`.

    Raises:
        ValueError: If an argument is out of range or inconsistent with the others.

    Example:
        >>> data, net = jaxnet.data.digits(), jaxnet.two_layer_net(64, 50, 10)
        >>> batches = jaxnet.RandomBatches(jax.random.key(1), len(data.x_train), batch_size=100, steps=20)
        >>> plan = jaxnet.plan_run(net, net.init(jax.random.key(0), "he"), data, batches)
        >>> plan.dtype, plan.max_steps
        (dtype('float32'), 20)
    """
    config, hyperparameters = configure(
        net, params, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm,
        weight_decay=weight_decay, criterion=criterion, mesh=mesh,
    )  # fmt: skip
    check_counts(eval_every=eval_every)
    if isinstance(data, Dataset):
        data = Dataset(*map(native, data))
    check_data(net, params, data, config.devices)
    batches = checked_batches(batches, len(data.x_train))
    config.devices.check_batch_size(batches.shape[1])
    if form is None:
        form = usual_form_of_steps(config, params, batches.shape[1])
    elif form not in possible_forms(net):
        listed = ", ".join(map(str, possible_forms(net)))
        raise ValueError(f"form: {form}, expected one in which this device can compute the network: {listed}")
    first = _initial_state(config, hyperparameters, params, key)
    return RunPlan(config._replace(form=form), hyperparameters, data, batches, first, min(eval_every, len(batches)))


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
