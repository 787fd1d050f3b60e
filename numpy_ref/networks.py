"""A network: named layers one after the other, and a loss at their end."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numpy_ref.attention import Attention, Embedding, Position
from numpy_ref.convolution import AveragePool, Convolution, MaxPool
from numpy_ref.functions import Array, one_hot
from numpy_ref.layers import (
    GELU,
    Affine,
    Dropout,
    Flatten,
    Layer,
    MeanSquaredError,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
)
from numpy_ref.normalization import BatchNorm, LayerNorm
from numpy_ref.numerical import numerical_gradient
from numpy_ref.trees import Tree, leaves, map_leaves

CHUNK = 1000  # samples that are predicted at once, so that a convolution's columns fit in memory

# By what a description calls a layer: its class; and from the sizes there, the shapes of its arrays and what else its
# constructor takes.
LAYERS: dict[str, tuple[Any, Any]] = {
    "Affine": (Affine, lambda D, M: ({"W": (D, M), "b": (M,)}, ())),
    "ReLU": (ReLU, lambda: ({}, ())),
    "Sigmoid": (Sigmoid, lambda: ({}, ())),
    "Tanh": (Tanh, lambda: ({}, ())),
    "GELU": (GELU, lambda: ({}, ())),
    "Flatten": (Flatten, lambda: ({}, ())),
    "Dropout": (Dropout, lambda rate: ({}, (rate,))),
    "BatchNorm": (BatchNorm, lambda D, *options: (dict.fromkeys(("gamma", "beta", "mean", "var"), (D,)), options)),
    "LayerNorm": (LayerNorm, lambda D, *options: ({"gamma": (D,), "beta": (D,)}, options)),
    "Convolution": (
        Convolution,
        lambda C, F, K, stride, padding: ({"W": (F, C, K, K), "b": (F,)}, (stride, padding)),
    ),
    "MaxPool": (MaxPool, lambda *options: ({}, options)),
    "AveragePool": (AveragePool, lambda *options: ({}, options)),
    "Embedding": (Embedding, lambda V, D: ({"E": (V, D)}, ())),
    "Position": (Position, lambda T, D: ({"P": (T, D)}, ())),
    "Attention": (Attention, lambda D, heads: (dict.fromkeys(("Wq", "Wk", "Wv", "Wo"), (D, D)), (heads,))),
}
COMPOSED: dict[str, Any] = {"Sequential": Sequential, "Residual": Residual}


class Network:
    """Layers by name, in order, and a loss: softmax cross-entropy by default.

    N samples, C classes: x (N, ...) finite and of the parameters' dtype; t class numbers (N,) or one-hot rows (N, C).
    Every method that takes a batch raises ValueError, naming x or t, where it does not fit.

    Args:
        layers: In their order, as from `build_layers`.
        last: The loss, of outputs and t; `SoftmaxWithLoss()` by default.
        weight_decay: λ >= 0; the loss has λ/2 Σ W² added to it, over the weights: what begins with W, so not biases.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        last: SoftmaxWithLoss | MeanSquaredError | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"weight_decay: {weight_decay}, expected a finite number >= 0")
        self.body, self.last, self.weight_decay = (Sequential(layers), last or SoftmaxWithLoss(), weight_decay)

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name."""
        return self.body.layers

    @property
    def params(self) -> dict[str, Any]:
        """The arrays that the layers compute with: change them in place to train."""
        return self.body.tree("parameters")

    @property
    def state(self) -> dict[str, Any]:
        """What training has gathered for inference, such as running means."""
        return self.body.tree("statistics")

    def draw(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:
        """What a step of training at x needs of randomness, such as Dropout's masks, by name of the layer."""
        return self.body.draw(rng, x)

    def give(self, draws: Tree) -> None:
        """The random arrays that `loss` and `gradient` take from here on."""
        self.body.give(draws)

    def predict(self, x: Array) -> Array:
        """The logits in inference, (N, ...) -> (N, C)."""
        self._check(x)
        return np.concatenate([self.body.infer(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])

    def loss(self, x: Array, t: ArrayLike) -> float:
        """What training makes small, averaged over the batch. Like every forward pass it moves running statistics."""
        self._check(x)
        return self._loss(x, t)

    def accuracy(self, x: Array, t: ArrayLike) -> float:
        """The share of samples whose largest logit is the true class's, in [0, 1]."""
        logits = self.predict(x)
        return float(np.mean(logits.argmax(axis=-1) == one_hot(t, logits).argmax(axis=-1)))

    def gradient(self, x: Array, t: ArrayLike) -> dict[str, Any]:
        """Of the loss by every parameter, by back propagation; the tree of `params`."""
        return self.value_and_gradient(x, t)[1]

    def value_and_gradient(self, x: Array, t: ArrayLike) -> tuple[float, dict[str, Any]]:
        """The loss, and its gradient from the same forward pass."""
        loss = self.loss(x, t)
        self.body.backward(self.last.backward())
        return loss, map_leaves(self._decayed, self.params, self.body.tree("parameters", "d"))

    def numerical_gradient(self, x: Array, t: ArrayLike) -> dict[str, Any]:
        """Of the loss by every parameter, by central differences: two forward passes an element."""
        twin = copy.deepcopy(self)  # its running statistics move, this network's do not
        twin.loss(x, t)  # refuses a batch that does not fit, before the long work
        return map_leaves(lambda _, array: numerical_gradient(lambda _: twin._loss(x, t), array), twin.params)

    def _loss(self, x: Array, t: ArrayLike) -> float:
        loss = self.last.forward(self.body.forward(x), t)
        if self.weight_decay:
            loss += self.weight_decay / 2 * sum((W**2).sum() for name, W in leaves(self.params) if name.startswith("W"))
        return loss

    def _decayed(self, name: str, W: Array, dW: Array) -> Array:
        return dW + self.weight_decay * W if self.weight_decay and name.startswith("W") else dW

    def _check(self, x: Array) -> None:
        if not isinstance(x, np.ndarray) or x.ndim == 0 or len(x) == 0:
            raise ValueError(f"x: {type(x).__name__} of shape {np.shape(x)}, expected an array (N, ...) with N >= 1")
        if not np.isfinite(x).all():
            i = tuple(map(int, np.argwhere(~np.isfinite(x))[0]))
            raise ValueError(f"x[{', '.join(map(str, i))}]: {x[i]}, expected finite numbers; clean the data first")


class TwoLayerNet(Network):
    """The notebook's network in the book's order: Affine1, Relu1, Affine2, then softmax and cross-entropy.

    The notebook adds a ReLU at the end, so that no logit can be negative: `net.layers["Relu2"] = ReLU()`.

    Args:
        input_size: D >= 1, features of a sample.
        hidden_size: M >= 1, units of the hidden layer.
        output_size: C >= 1, classes.
        weight_init_std: Standard deviation of the normal weights, >= 0. Biases start at zero.
        seed: What `numpy.random.default_rng` takes, a Generator included; the same seed draws the same weights.
        params: Ready parameters instead, {"Affine1": {"W": (D, M), "b": (M,)}, "Affine2": ...}; they are copied.

    Raises:
        ValueError: A size or the scale is out of range, or `params` do not fit the sizes.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.1,
        *,
        seed: int | np.random.Generator = 0,
        params: Tree | None = None,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        for argument, size in sizes.items():
            if size < 1:
                raise ValueError(f"{argument}: {size}, expected at least 1")
        if not 0 <= weight_init_std < np.inf:
            raise ValueError(f"weight_init_std: {weight_init_std}, expected a finite standard deviation >= 0")
        if params is None:
            rng = np.random.default_rng(seed)
            W1 = weight_init_std * rng.standard_normal((input_size, hidden_size))
            W2 = weight_init_std * rng.standard_normal((hidden_size, output_size))
            params = {
                "Affine1": {"W": W1, "b": np.zeros(hidden_size)},
                "Affine2": {"W": W2, "b": np.zeros(output_size)},
            }
        description = (
            "Sequential",
            (
                ("Affine1", ("Affine", input_size, hidden_size)),
                ("Relu1", ("ReLU",)),
                ("Affine2", ("Affine", hidden_size, output_size)),
            ),
        )
        super().__init__(build_layers(description, params))


def build_layers(description: tuple[Any, ...], params: Tree, state: Tree | None = None) -> dict[str, Layer]:
    """The layers of a network that jaxnet describes, each around a copy of its arrays.

    Args:
        description: ("Sequential", ((name, (kind of layer, *sizes)), ...)): plain data. A kind may be "Residual" or
            "Sequential" again, with such pairs for its sizes.
        params: {name: {"W": (D, M), "b": (M,)}, ...}, nested as the description is, anything `numpy.asarray` accepts.
        state: {name: {"mean": (D,), "var": (D,)}, ...}; 0 and 1, as before any training, by default.

    Raises:
        ValueError: A layer is unknown here, or its parameters are missing or do not fit its sizes.
    """
    layers: dict[str, Layer] = {}
    for name, (kind, *sizes) in description[1]:
        given, gathered = params.get(name, {}), (state or {}).get(name, {})
        if kind in COMPOSED:
            layers[name] = COMPOSED[kind](build_layers((kind, *sizes), given, gathered))
            continue
        if kind not in LAYERS:
            raise ValueError(f"description: {name} is a {kind!r}, expected one of {', '.join((*LAYERS, *COMPOSED))}")
        layer, shapes_and_options = LAYERS[kind]
        shapes, options = shapes_and_options(*sizes)
        if set(given) != set(layer.parameters):
            raise ValueError(f"params[{name!r}]: holds {sorted(given)}, expected {sorted(layer.parameters)}")
        arrays = {leaf: np.array(array) for leaf, array in given.items()}
        for leaf in layer.statistics:
            initial = np.full(shapes[leaf], leaf == "var", next(iter(arrays.values())).dtype)
            arrays[leaf] = np.array(gathered.get(leaf, initial))
        for leaf, array in arrays.items():
            if array.shape != shapes[leaf]:
                raise ValueError(f"params[{name!r}][{leaf!r}]: shape {array.shape}, expected {shapes[leaf]}")
        layers[name] = layer(*(arrays[leaf] for leaf in shapes), *options)
    return layers
