"""A network: named layers one after the other, then softmax and cross-entropy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numpy_ref.functions import Array, one_hot
from numpy_ref.layers import Affine, Layer, ReLU, Sigmoid, SoftmaxWithLoss, Tanh
from numpy_ref.numerical import numerical_gradient

Tree = Mapping[str, Mapping[str, Array]]  # {"Affine1": {"W": ..., "b": ...}, ...}: parameters and gradients alike

LAYERS: dict[str, Any] = {layer.__name__: layer for layer in (Affine, ReLU, Sigmoid, Tanh)}


class Network:
    """Layers by name, in order, and softmax cross-entropy at their end.

    N samples of D features, C classes: x (N, D) finite and of the parameters' dtype; t class numbers (N,) or one-hot
    rows (N, C). Every method that takes a batch raises ValueError, naming x or t, where it does not fit.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = dict(layers)
        self.last = SoftmaxWithLoss()

    @property
    def params(self) -> dict[str, dict[str, Array]]:
        """The arrays that the layers compute with: change them in place to train."""
        return self._tree("")

    def predict(self, x: Array) -> Array:
        """The logits, (N, D) -> (N, C)."""
        self._check(x)
        return self._forward(x)

    def loss(self, x: Array, t: ArrayLike) -> float:
        """Mean cross-entropy over the batch, in nats."""
        self._check(x)
        return self._loss(x, t)

    def accuracy(self, x: Array, t: ArrayLike) -> float:
        """The share of samples whose largest logit is the true class's, in [0, 1]."""
        logits = self.predict(x)
        return float(np.mean(logits.argmax(axis=1) == one_hot(t, logits).argmax(axis=1)))

    def gradient(self, x: Array, t: ArrayLike) -> dict[str, dict[str, Array]]:
        """Of the loss by every parameter, by back propagation; the tree of `params`."""
        return self.value_and_gradient(x, t)[1]

    def value_and_gradient(self, x: Array, t: ArrayLike) -> tuple[float, dict[str, dict[str, Array]]]:
        """The loss, and its gradient from the same forward pass."""
        loss = self.loss(x, t)
        dout = self.last.backward()  # (N, C)
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        return loss, self._tree("d")

    def numerical_gradient(self, x: Array, t: ArrayLike) -> dict[str, dict[str, Array]]:
        """Of the loss by every parameter, by central differences: two forward passes an element."""
        self.loss(x, t)  # refuses a batch that does not fit, before the long work
        return {
            name: {leaf: numerical_gradient(lambda _: self._loss(x, t), array) for leaf, array in leaves.items()}
            for name, leaves in self.params.items()
        }

    def _forward(self, x: Array) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def _loss(self, x: Array, t: ArrayLike) -> float:
        return self.last.forward(self._forward(x), t)

    def _tree(self, prefix: str) -> dict[str, dict[str, Array]]:
        """{"Affine1": {"W": layer.W}} for prefix "", {"Affine1": {"W": layer.dW}} for prefix "d"."""
        return {
            name: {leaf: getattr(layer, prefix + leaf) for leaf in layer.parameters}
            for name, layer in self.layers.items()
            if layer.parameters
        }

    def _check(self, x: Array) -> None:
        features = next(iter(self.params.values()))["W"].shape[0]
        if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != features or len(x) == 0:
            raise ValueError(f"x: shape {np.shape(x)}, expected (N, {features}) with N >= 1, one sample a row")
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise ValueError(f"x[{row}, {column}]: {x[row, column]}, expected finite numbers; clean the data first")


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


def build_layers(description: tuple[Any, ...], params: Tree) -> dict[str, Layer]:
    """The layers of a network that jaxnet describes, each around a copy of its parameters.

    Args:
        description: ("Sequential", ((name, (class of the layer, *sizes)), ...)): plain data.
        params: {name: {"W": (D, M), "b": (M,)}, ...}, of whatever NumPy takes for arrays.

    Raises:
        ValueError: A layer is unknown here, or its parameters are missing or do not fit its sizes.
    """
    layers: dict[str, Layer] = {}
    for name, (kind, *sizes) in description[1]:
        if kind not in LAYERS:
            raise ValueError(f"description: {name} is a {kind!r}, expected one of {', '.join(LAYERS)}")
        given = params.get(name, {})
        if set(given) != set(LAYERS[kind].parameters):
            raise ValueError(f"params[{name!r}]: holds {sorted(given)}, expected {sorted(LAYERS[kind].parameters)}")
        if "W" in given and given["W"].shape != tuple(sizes):
            raise ValueError(f"params[{name!r}]['W']: shape {given['W'].shape}, expected {tuple(sizes)}")
        layers[name] = LAYERS[kind](**{leaf: np.array(array) for leaf, array in given.items()})
    return layers
