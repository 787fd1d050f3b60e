"""Training with NumPy layers of other projects, from folders with their repositories.

They are those of Saito's *Deep Learning from Scratch* (https://github.com/oreilly-japan/deep-learning-from-scratch) and
of numpy-ml (https://github.com/ddbourgin/numpy-ml). Neither is a package that pip installs for this version of Python.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jaxnet.cli.bench.contenders import Train
from jaxnet.cli.bench.problem import LEARNING_RATE, Problem, Skip, channels_last, counterparts


@contextmanager
def importable(folder: Path, *packages: str) -> Iterator[None]:
    """Lets modules be imported from a folder, those of these packages without running the `__init__.py` of the package.

    That of numpy_ml imports `collections.Hashable`, which Python 3.10 removed, for modules that no layer needs.
    """
    path = str(folder.resolve())
    for name in packages:
        package = ModuleType(name)
        package.__path__ = [str(folder.resolve().joinpath(*name.split(".")))]
        sys.modules[name] = package
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)


def train_book(problem: Problem, folder: Path) -> Train:
    """Trains with the layers of `common/layers.py`, put together as in the book's chapters 5, 7 and 8."""
    with importable(folder):
        book = import_module("common.layers")

    table: dict[str, Callable[..., Any]] = {
        "Affine": lambda p, *_: book.Affine(p["W"].copy(), p["b"].copy()),
        "Convolution": lambda p, *sizes: book.Convolution(p["W"].copy(), p["b"].copy(), *sizes[3:]),  # stride, padding
        "Dropout": lambda _, rate: book.Dropout(rate),
        "MaxPool": lambda _, size, stride, padding: book.Pooling(size, size, stride, padding),
        "ReLU": lambda _: book.Relu(),
    }
    pairs = [pair for pair in problem.net.description[1] if pair[1] != ("Flatten",)]  # the book's Affine flattens
    counterparts("the book", table, pairs, problem.params)  # raises for a layer that it lacks

    def train(batches: np.ndarray) -> np.ndarray:
        layers, last = counterparts("the book", table, pairs, problem.params), book.SoftmaxWithLoss()
        with_weights = [layer for layer in layers if hasattr(layer, "W")]
        with threadpool_limits(problem.threads, user_api="blas"):
            for batch in batches:
                y = problem.data.x_train[batch]
                for layer in layers:
                    y = layer.forward(y)
                last.forward(y, problem.data.t_train[batch])
                dout = last.backward()
                for layer in reversed(layers):
                    dout = layer.backward(dout)
                for layer in with_weights:
                    layer.W -= LEARNING_RATE * layer.dW
                    layer.b -= LEARNING_RATE * layer.db
        return np.asarray(with_weights[0].W)

    return train


def train_numpy_ml(problem: Problem, folder: Path) -> Train:
    """Trains with numpy-ml's layers, which take images (N, H, W, C), and have an activation and an optimizer each."""
    with importable(folder, "numpy_ml", "numpy_ml.neural_nets"):
        library = import_module("numpy_ml.neural_nets.layers")
        sgd = import_module("numpy_ml.neural_nets.optimizers").SGD
    problem = channels_last(problem)
    x_train, t_train = problem.data.x_train, problem.data.t_train
    activated = activated_layers(problem)

    def make_layers() -> list[Any]:
        layers = []
        for name, description in problem.net.description[1]:
            if description[0] not in ("ReLU", "Dropout"):  # of rate 0, as the weights are compared
                options = {"act_fn": "relu" if name in activated else None, "optimizer": sgd(lr=LEARNING_RATE)}
                layers.append(numpy_ml_layer(library, description, problem.params.get(name, {}), options))
        return layers

    make_layers()  # raises for a layer that it lacks

    def train(batches: np.ndarray) -> np.ndarray:
        layers = make_layers()
        with threadpool_limits(problem.threads, user_api="blas"):
            for batch in batches:
                y, t = x_train[batch], t_train[batch]
                for layer in layers:
                    y = layer.forward(y)
                e = np.exp(y - y.max(axis=1, keepdims=True))
                dout = (e / e.sum(axis=1, keepdims=True) - np.eye(y.shape[1])[t]) / len(t)
                for layer in reversed(layers):
                    dout = layer.backward(dout)
                for layer in layers:
                    layer.update()
        W = next(layer.parameters["W"] for layer in layers if "W" in layer.parameters)
        return np.asarray(W.transpose(3, 2, 0, 1) if W.ndim == 4 else W)

    return train


def activated_layers(problem: Problem) -> set[str]:
    """Returns the names of the layers that a ReLU follows."""
    pairs = problem.net.description[1]
    return {name for (name, _), (_, after) in pairwise(pairs) if after == ("ReLU",)}


def numpy_ml_layer(library: Any, description: tuple[Any, ...], params: Any, options: dict[str, Any]) -> Any:
    """Returns numpy-ml's layer of a description, with a copy of these parameters.

    Raises:
        Skip: If it has no such layer.
    """
    match description:
        case "Affine", D, M:
            layer = library.FullyConnected(M, **options)
            layer.n_in = D
        case "Convolution", C, F, K, stride, padding:
            layer = library.Conv2D(F, (K, K), pad=padding, stride=stride, **options)
            layer.in_ch = C
            params = params | {"W": params["W"].transpose(2, 3, 1, 0)}  # (F, C, K, K) -> (K, K, C, F)
        case "MaxPool", size, stride, padding:
            return library.Pool2D((size, size), stride=stride, pad=padding)
        case ("Flatten",):
            return library.Flatten()
        case _:
            raise Skip(f"numpy-ml has no layer like {description[0]}")
    layer._init_params()
    for name, array in params.items():
        layer.parameters[name] = array.reshape(layer.parameters[name].shape).copy()
    return layer
