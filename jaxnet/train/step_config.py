"""What `fit` and `sweep` are given, looked at before any work: settings, parameters, data."""

from functools import cache
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from jaxnet.data import Dataset
from jaxnet.nn.layers import Layer, Params
from jaxnet.nn.losses import softmax_cross_entropy
from jaxnet.train.compiled_steps import Rates, Recipe
from jaxnet.train.sharding import ONE_DEVICE, OneDevice, placement
from jaxnet.train.step import OPTIMIZERS, Criterion, MakeOptimizer, Stage
from jaxnet.tree_paths import flatten
from jaxnet.validation import check_holds, check_labels, check_not_negative, check_positive, check_samples


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


def recipe_of(net: Layer, params: Params, settings: Settings) -> tuple[Recipe, Rates]:
    """What a step does, as the settings say.

    Raises:
        TypeError: There is no setting of this name.
        ValueError: One of them is out of range, or the parameters are not the network's.
    """
    if unknown := settings.keys() - Settings.__annotations__.keys():
        raise TypeError(f"{min(unknown)}: no setting, expected some of {', '.join(Settings.__annotations__)}")
    check_params(net, params)
    optimizer, learning_rate = settings.get("optimizer", "sgd"), settings.get("learning_rate")
    if isinstance(optimizer, str) and optimizer in OPTIMIZERS:
        optimizer, usual = OPTIMIZERS[optimizer]
        learning_rate = usual if learning_rate is None else learning_rate
    if not callable(optimizer):
        raise ValueError(f"optimizer: {optimizer!r}, expected one of {', '.join(OPTIMIZERS)}, or a function")
    check_positive("learning_rate", learning_rate)
    clip_norm, decay = settings.get("clip_norm"), settings.get("decay", 0.0)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    check_not_negative("decay", decay)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    numbers = {"learning_rate": learning_rate, "clip_norm": clip_norm, "decay": decay or None}
    for name, number in numbers.items():
        if number is not None:
            check_holds(name, number, dtype)
    criterion, devices = settings.get("criterion", softmax_cross_entropy), placement(settings.get("mesh"))
    recipe = Recipe(net, optimizer, criterion, devices)
    return recipe, Rates(*(None if number is None else jnp.asarray(number, dtype) for number in numbers.values()))  # type: ignore[arg-type]


def check_params(net: Layer, params: Params) -> None:
    """Parameters of the names and shapes that the network begins with.

    Raises:
        ValueError: They are not, or it is no network.
    """
    if not isinstance(net, Layer):
        raise ValueError(f"net: {type(net).__name__}, expected a network, such as two_layer_net(784, 50, 10)")
    wanted = _shapes(net)
    found = {name: np.shape(leaf) for name, leaf in flatten(params).items()} if isinstance(params, dict) else {}
    for name in wanted | found:
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"params: {name} is {found.get(name, 'not there')}, expected {wanted.get(name, 'no such leaf')}; "
                "pass what `net.init` of this network returns"
            )
    for name, leaf in flatten(params).items():
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"params: {name} is {dtype}, expected floats; pass what `net.init` of this network returns"
            )


@cache
def _shapes(net: Layer) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda key: net.init(key, 1.0), jax.random.key(0))
    return {name: leaf.shape for name, leaf in flatten(params).items()}


def check_data(net: Layer, params: Params, data: Dataset, devices: OneDevice = ONE_DEVICE) -> None:
    """Samples that the network takes, and labels of what it makes of them; of the rows that this process holds.

    Raises:
        ValueError: They are not.
    """
    if not isinstance(data, Dataset):
        raise ValueError(f"data: {type(data).__name__}, expected a Dataset(x_train, t_train, x_test, t_test)")
    for field, array in data._asdict().items():
        if not getattr(array, "ndim", 0):
            raise ValueError(f"data.{field}: {type(array).__name__}, expected an array with an entry for each sample")
    dtype = jnp.result_type(*jax.tree.leaves(params))
    for name, x, t in (("train", data.x_train, data.t_train), ("test", data.x_test, data.t_test)):
        for piece, rows in devices.held(len(x)):
            check_samples(f"data.x_{name}{piece}", x[rows], dtype)
            try:
                logits = jax.eval_shape(net.infer, params, net.state, x[:1])
            except ValueError as error:
                raise ValueError(f"data.x_{name}: the network does not take it: {error}") from error
            check_labels(f"data.t_{name}{piece}", t[rows], (len(x[rows]), *logits.shape[1:]))
