"""Training with Equinox and optax, as in https://docs.kidger.site/equinox/examples/mnist/, with rows from NumPy."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet.cli.bench.problem import LEARNING_RATE, Problem, counterparts, mean_cross_entropy

KEY = jax.random.key(0)  # of weights that are replaced
SAMPLES = "samples"  # the axis of vmap, over which BatchNorm averages


class Position(eqx.Module):  # type: ignore[misc]
    """Adds the embedding of each position: x (T, D)."""

    P: Any

    def __call__(self, x: Any, *, key: Any = None) -> Any:  # noqa: ARG002, `eqx.nn.Sequential` passes it
        """Maps x (T, D) to y (T, D)."""
        return x + self.P[: len(x)]


class Attention(eqx.Module):  # type: ignore[misc]
    """Causal self-attention."""

    attention: eqx.nn.MultiheadAttention

    def __call__(self, x: Any, *, key: Any = None) -> Any:  # noqa: ARG002, `eqx.nn.Sequential` passes it
        """Maps x (T, D) to y (T, D)."""
        return self.attention(x, x, x, mask=jnp.tri(len(x), dtype=bool))


class EachPosition(eqx.Module):  # type: ignore[misc]
    """Applies a layer of vectors, or of ids, to each position."""

    layer: Any

    def __call__(self, x: Any, *, key: Any = None) -> Any:  # noqa: ARG002, `eqx.nn.Sequential` passes it
        """Maps x (T, ...) to y (T, ...)."""
        return jax.vmap(self.layer)(x)


class Residual(eqx.Module):  # type: ignore[misc]
    """Adds its input to the output of its layers."""

    layers: eqx.nn.Sequential

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        """Maps x to x + f(x)."""
        return x + self.layers(x, key=key)


def _set(layer: Any, **arrays: np.ndarray) -> Any:
    """Returns the layer with arrays in the place of its own of these names."""
    values = [jnp.asarray(array) for array in arrays.values()]
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in arrays], layer, values)


def _attention(params: Any, size: int, heads: int) -> Any:
    attention = eqx.nn.MultiheadAttention(heads, size, key=KEY)
    weights = [jnp.asarray(params[name].T) for name in ("Wq", "Wk", "Wv", "Wo")]
    return Attention(
        eqx.tree_at(
            lambda a: [p.weight for p in (a.query_proj, a.key_proj, a.value_proj, a.output_proj)], attention, weights
        )
    )


def _batch_norm(params: Any, size: int, momentum: float, eps: float) -> Any:
    layer = eqx.nn.BatchNorm(size, SAMPLES, eps, momentum=momentum, mode="batch")
    return _set(layer, weight=params["gamma"], bias=params["beta"])


LAYERS: dict[str, Callable[..., Any]] = {
    "Affine": lambda p, D, M: _set(eqx.nn.Linear(D, M, key=KEY), weight=p["W"].T, bias=p["b"]),
    "Attention": _attention,
    "BatchNorm": _batch_norm,
    "Convolution": lambda p, *sizes: _set(eqx.nn.Conv2d(*sizes, key=KEY), weight=p["W"], bias=p["b"][:, None, None]),
    "Dropout": lambda _, rate: eqx.nn.Dropout(rate),
    "Embedding": lambda p, *_: EachPosition(eqx.nn.Embedding(weight=jnp.asarray(p["E"]))),
    "Flatten": lambda _: eqx.nn.Lambda(jnp.ravel),
    "GELU": lambda _: eqx.nn.Lambda(jax.nn.gelu),
    "LayerNorm": lambda p, size, eps: EachPosition(
        _set(eqx.nn.LayerNorm(size, eps), weight=p["gamma"], bias=p["beta"])
    ),
    "MaxPool": lambda _, size, stride, padding: eqx.nn.MaxPool2d(size, stride, padding),
    "PositionalEmbedding": lambda p, *_: Position(jnp.asarray(p["P"])),
    "ReLU": lambda _: eqx.nn.Lambda(jax.nn.relu),
    "Residual": lambda layers: Residual(eqx.nn.Sequential(layers)),
}
OF_TEXT = LAYERS | {"Affine": lambda *sizes: EachPosition(LAYERS["Affine"](*sizes))}


def build(problem: Problem) -> tuple[Any, Any]:
    """Returns the network with the problem's parameters, and its state."""
    table = OF_TEXT if problem.has_text else LAYERS
    return eqx.nn.make_with_state(
        lambda: eqx.nn.Sequential(counterparts("Equinox", table, problem.net.description[1], problem.params))
    )()


def train_equinox(problem: Problem) -> Any:
    """Trains with a compiled step for each batch."""

    def loss(model: Any, state: Any, x: Any, t: Any, key: Any) -> Any:
        def forward(x: Any, key: Any) -> Any:
            return model(x, state, key=key)

        logits, new_state = jax.vmap(forward, axis_name=SAMPLES, out_axes=(0, None))(x, jax.random.split(key, len(x)))
        return mean_cross_entropy(logits, t), new_state

    optimizer = optax.sgd(LEARNING_RATE)

    @eqx.filter_jit  # type: ignore[untyped-decorator]
    def make_step(model: Any, state: Any, opt_state: Any, x: Any, t: Any, key: Any) -> Any:
        key, step_key = jax.random.split(key)
        (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, x, t, step_key)
        updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, opt_state, value, key

    initial = build(problem)
    x_train, t_train = problem.data.x_train, problem.data.t_train

    def train(batches: np.ndarray) -> np.ndarray:
        (model, state), key = initial, KEY
        opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
        for batch in batches:
            model, state, opt_state, _, key = make_step(model, state, opt_state, x_train[batch], t_train[batch], key)
        weights = np.asarray(jax.tree.leaves(eqx.filter(model, eqx.is_array))[0])
        return weights.T if weights.ndim == 2 and not problem.has_text else weights

    return train
