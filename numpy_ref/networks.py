"""A network: named layers one after the other, and a loss at their end."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numpy_ref import attention, convolution, layers, normalization
from numpy_ref.layers import Array, Layer, Residual, Sequential, Tree
from numpy_ref.losses import MeanSquaredError, SoftmaxWithLoss, one_hot
from numpy_ref.numerical import numerical_gradient
from numpy_ref.tree_paths import leaves_by_path, map_leaves

__all__ = ["Network", "TwoLayerNet", "build_layers"]

CHUNK = 1000  # samples that are predicted at once, so that a convolution's columns fit in memory
COMPOSED: dict[str, type[Sequential]] = {"Sequential": Sequential, "Residual": Residual}
LAYERS: dict[str, Any] = {  # the class of each kind of layer in a description: every exported layer, by its name
    name: getattr(module, name)
    for module in (layers, convolution, normalization, attention)
    for name in module.__all__
    if name not in ("Layer", *COMPOSED) and isinstance(getattr(module, name), type)
}


class Network:
    """A network: named layers, one after the other, and a loss.

    A batch is x (N, ...), finite and of the parameters' dtype, with class numbers or one-hot rows t, (N,) or (N, C).
    Every method that takes a batch raises ValueError, naming x or t, if it does not fit.

    Args:
        layers: The layers in their order, as from `build_layers`.
        last: The loss, a function of outputs and t. Defaults to `SoftmaxWithLoss()`.
        weight_decay: The strength λ >= 0 of λ/2 Σ W² in the loss, over parameters named W..., no biases. Defaults to 0.

    Raises:
        ValueError: If `weight_decay` is negative or not finite.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        last: SoftmaxWithLoss | MeanSquaredError | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"weight_decay: {weight_decay}, expected a finite number >= 0")
        self.body, self.last, self.weight_decay = Sequential(layers), last or SoftmaxWithLoss(), weight_decay

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name."""
        return self.body.layers

    @property
    def params(self) -> dict[str, Any]:
        """The arrays that the layers compute with: change them in place to train."""
        return self.body.param_tree()

    @property
    def state(self) -> dict[str, Any]:
        """The statistics that training gathers for inference, such as running means."""
        return self.body.state_tree()

    def draw_noise(self, rng: np.random.Generator, x: Array) -> dict[str, Any]:
        """Draws the random arrays of a training step at x, such as Dropout's masks, by layer."""
        return self.body.draw_noise(rng, x)

    def set_noise(self, noise: Tree) -> None:
        """Sets the random arrays for every later `loss` and `gradient`."""
        self.body.set_noise(noise)

    def predict(self, x: Array) -> Array:
        """Returns the logits in inference, (N, ...) -> (N, C)."""
        self._check(x)
        return np.concatenate([self.body.infer(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])

    def loss(self, x: Array, t: ArrayLike) -> float:
        """Returns the training loss, averaged over the batch. As any forward pass in training, it updates `state`."""
        self._check(x)
        return self._loss(x, t)

    def accuracy(self, x: Array, t: ArrayLike) -> float:
        """Returns the share of samples whose largest logit is the true class's, in [0, 1]; those with nan are wrong."""
        logits = self.predict(x)
        correct = logits.argmax(axis=-1) == one_hot(t, logits).argmax(axis=-1)
        return float(np.mean(correct & ~np.isnan(logits).any(axis=-1)))

    def gradient(self, x: Array, t: ArrayLike) -> dict[str, Any]:
        """Returns the gradient of the loss with respect to `params`, in the same tree, by back propagation."""
        return self.value_and_gradient(x, t)[1]

    def value_and_gradient(self, x: Array, t: ArrayLike) -> tuple[float, dict[str, Any]]:
        """Returns the loss, and its gradient from the same forward pass."""
        loss = self.loss(x, t)
        self.body.backward(self.last.backward())
        return loss, map_leaves(self._decayed, self.params, self.body.grad_tree())

    def numerical_gradient(self, x: Array, t: ArrayLike) -> dict[str, Any]:
        """Returns the gradient of the loss by central differences: two forward passes for each element of `params`."""
        twin = copy.deepcopy(self)  # so that the forward passes leave this network's statistics alone
        twin.loss(x, t)  # raises for a batch that does not fit, before the long work
        return map_leaves(lambda _, array: numerical_gradient(lambda _: twin._loss(x, t), array), twin.params)

    def _loss(self, x: Array, t: ArrayLike) -> float:
        loss = self.last.forward(self.body.forward(x), t)
        if self.weight_decay:
            weights = [W for path, W in leaves_by_path(self.params).items() if path.split(".")[-1].startswith("W")]
            loss += self.weight_decay / 2 * sum((W**2).sum() for W in weights)
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

    `net.layers["Relu2"] = ReLU()` adds the ReLU that the notebook has at the end, so that no logit is negative.

    Args:
        input_size: D >= 1, features of a sample; `hidden_size` M >= 1, hidden units; `output_size` C >= 1, classes.
        weight_init_std: Standard deviation of the normal weights, >= 0. Biases start at zero. Defaults to 0.1.
        seed: A seed or Generator for `numpy.random.default_rng`. The same seed draws the same weights.
        params: Parameters to copy instead, {"Affine1": {"W": (D, M), "b": (M,)}, "Affine2": ...}.

    Raises:
        ValueError: If a size or the standard deviation is out of range, or `params` do not fit the sizes.
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
        affine1, affine2 = ("Affine", input_size, hidden_size), ("Affine", hidden_size, output_size)
        if params is None:
            rng = np.random.default_rng(seed)
            params = {
                name: {"W": weight_init_std * rng.standard_normal((D, M)), "b": np.zeros(M)}
                for name, (_, D, M) in (("Affine1", affine1), ("Affine2", affine2))
            }
        description = "Sequential", (("Affine1", affine1), ("Relu1", ("ReLU",)), ("Affine2", affine2))
        super().__init__(build_layers(description, params))


def build_layers(description: tuple[Any, ...], params: Tree, state: Tree | None = None) -> dict[str, Layer]:
    """Builds the layers of a network from jaxnet's description of it, each with a copy of its arrays.

    Args:
        description: ("Sequential", ((name, (kind of layer, *sizes)), ...)); a Residual has such pairs for its sizes.
        params: {name: {"W": (D, M), "b": (M,)}, ...}, nested as the description is, of anything `numpy.asarray` takes.
        state: {name: {"mean": (D,), "var": (D,)}, ...}. Defaults to means of 0 and variances of 1, as before training.

    Raises:
        ValueError: If a kind of layer is unknown, or its arrays are missing or do not fit its sizes.

    Example:
        >>> params = {"Affine1": {"W": [[1.0, 2.0]], "b": [0.5, 0.5]}}
        >>> layers = build_layers(("Sequential", (("Affine1", ("Affine", 1, 2)), ("Relu1", ("ReLU",)))), params)
        >>> layers["Affine1"].forward(np.array([[3.0]]))
        array([[3.5, 6.5]])
    """
    built: dict[str, Layer] = {}
    for name, (kind, *sizes) in description[1]:
        own_params, own_state = params.get(name, {}), (state or {}).get(name, {})
        if kind in COMPOSED:
            built[name] = COMPOSED[kind](build_layers((kind, *sizes), own_params, own_state))
        elif kind in LAYERS:
            built[name] = _build_layer(name, LAYERS[kind], sizes, own_params, own_state)
        else:
            raise ValueError(f"description: {name} is a {kind!r}, expected one of {', '.join((*LAYERS, *COMPOSED))}")
    return built


def _build_layer(name: str, layer: Any, sizes: list[Any], params: Tree, state: Tree) -> Layer:
    if set(params) != set(layer.parameters):
        raise ValueError(f"params[{name!r}]: holds {sorted(params)}, expected {sorted(layer.parameters)}")
    shapes, options = layer.spec(*sizes)
    arrays = {leaf: np.array(array) for leaf, array in params.items()}
    for leaf in layer.statistics:
        initial = np.full(shapes[leaf], leaf == "var", next(iter(arrays.values())).dtype)
        arrays[leaf] = np.array(state.get(leaf, initial))
    for leaf, array in arrays.items():
        if array.shape != shapes[leaf]:
            raise ValueError(f"params[{name!r}][{leaf!r}]: shape {array.shape}, expected {shapes[leaf]}")
    built: Layer = layer(*(arrays[leaf] for leaf in shapes), *options)
    return built
