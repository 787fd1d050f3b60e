"""One training loop for each library, as its own guide writes it, with the same network, parameters and batches.

A contender is a function from a problem to a training loop, which starts from the problem's initial parameters, makes
one step for each row of `batches`, and returns the weights of the first layer. It is compiled for a number of steps.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from threadpoolctl import threadpool_limits

import jaxnet
import numpy_ref
from jaxnet.data import Dataset
from jaxnet.nn.layers import Params

Train = Callable[[np.ndarray], np.ndarray]  # batches (S, B) -> weights of the first layer (D, H)
LEARNING_RATE = 0.1


class Problem(NamedTuple):
    """An affine network with ReLUs, its initial parameters, and float32 samples."""

    sizes: tuple[int, ...]  # inputs, hidden units of each layer, classes
    batch_size: int
    net: jaxnet.nn.Layer
    params: Params
    data: Dataset
    threads: int

    @property
    def leaves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """W (D, M) and b (M,) of each layer, in order."""
        return [tuple(np.asarray(layer[leaf]) for leaf in "Wb") for layer in self.params.values()]  # type: ignore[misc]


class Skip(Exception):
    """Raised when a contender cannot run on this machine, with the reason."""


def mean_cross_entropy(logits: Any, t: Any) -> Any:
    """Returns the loss of all contenders that optax or JAX differentiates."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, t).mean()


def fit(problem: Problem) -> Train:
    """Trains with `jaxnet.fit`. Its two evaluations are a fixed cost, which the timer subtracts."""
    data = jax.device_put(problem.data)

    def train(batches: np.ndarray) -> np.ndarray:
        options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "eval_every": len(batches)}
        state, _ = jaxnet.fit(problem.net, problem.params, data, jnp.asarray(batches), **options)
        return np.asarray(state.params["Affine1"]["W"])

    return train


def plain_scan(problem: Problem) -> Train:
    """Trains as a JAX user would: `lax.scan` over steps that gather rows, differentiate and update."""

    def loss(leaves: Any, x: Any, t: Any) -> Any:
        for W, b in leaves[:-1]:
            x = jax.nn.relu(x @ W + b)
        W, b = leaves[-1]
        return mean_cross_entropy(x @ W + b, t)

    @jax.jit
    def run(leaves: Any, x_train: Any, t_train: Any, batches: Any) -> Any:
        def step(leaves: Any, batch: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(leaves, x_train[batch], t_train[batch])
            return jax.tree.map(lambda leaf, grad: leaf - LEARNING_RATE * grad, leaves, grads), value

        return lax.scan(step, leaves, batches)

    leaves, data = jax.device_put((problem.leaves, problem.data))
    return lambda batches: np.asarray(run(leaves, data.x_train, data.t_train, jnp.asarray(batches))[0][0][0])


def by_hand(problem: Problem) -> Train:
    """Trains with `numpy_ref.train`, the loop written by hand, without its evaluations."""

    def train(batches: np.ndarray) -> np.ndarray:
        network = numpy_ref.Network(numpy_ref.build_layers(problem.net.description, problem.params))
        network.accuracy = lambda *_: 0.0  # type: ignore[method-assign]
        with threadpool_limits(problem.threads, user_api="blas"):
            numpy_ref.train(network, *problem.data, batches, LEARNING_RATE, eval_every=len(batches))
        return network.params["Affine1"]["W"]

    return train


def pytorch(problem: Problem, *, fused: bool | None = None, compiled: bool = False) -> Train:
    """Trains with PyTorch, eager or compiled, with its default SGD or the fused one."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read at import; otherwise it forks workers
    import torch

    if compiled and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "c++"))):
        raise Skip("torch.compile needs a C++ compiler on the PATH")
    torch.set_num_threads(problem.threads)
    layers: list[Any] = []
    for fan_in, fan_out in pairwise(problem.sizes):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, fused=fused)
    x_train, t_train = torch.from_numpy(problem.data.x_train), torch.from_numpy(problem.data.t_train).long()

    def step(x: Any, t: Any) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), t).backward()
        optimizer.step()

    if compiled:
        torch._dynamo.reset()
        step = torch.compile(step, dynamic=False)

    def train(batches: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            for layer, (W, b) in zip(model[::2], problem.leaves, strict=True):
                layer.weight.copy_(torch.tensor(W.T))
                layer.bias.copy_(torch.tensor(b))
        for batch in torch.from_numpy(batches.astype(np.int64)):
            step(x_train[batch], t_train[batch])
        return np.array(model[0].weight.detach().numpy().T)

    return train


def equinox(problem: Problem) -> Train:
    """Trains with Equinox and optax, as in https://docs.kidger.site/equinox/examples/mnist/, with rows from NumPy."""
    import equinox as eqx

    class Model(eqx.Module):  # type: ignore[misc]
        layers: list[Any]

        def __call__(self, x: Any) -> Any:
            for layer in self.layers[:-1]:
                x = jax.nn.relu(layer(x))
            return self.layers[-1](x)

    def loss(model: Any, x: Any, t: Any) -> Any:
        return mean_cross_entropy(jax.vmap(model)(x), t)

    optimizer = optax.sgd(LEARNING_RATE)

    @eqx.filter_jit  # type: ignore[untyped-decorator]
    def make_step(model: Any, opt_state: Any, x: Any, t: Any) -> Any:
        value, grads = eqx.filter_value_and_grad(loss)(model, x, t)
        updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, value

    layers = [eqx.nn.Linear(*pair, key=jax.random.key(0)) for pair in pairwise(problem.sizes)]
    leaves = [jnp.asarray(leaf) for W, b in problem.leaves for leaf in (W.T, b)]
    model = Model(layers)
    initial = eqx.tree_at(lambda m: [leaf for layer in m.layers for leaf in (layer.weight, layer.bias)], model, leaves)
    x_train, t_train = problem.data.x_train, problem.data.t_train

    def train(batches: np.ndarray) -> np.ndarray:
        model, opt_state = initial, optimizer.init(eqx.filter(initial, eqx.is_array))
        for batch in batches:
            model, opt_state, _ = make_step(model, opt_state, x_train[batch], t_train[batch])
        return np.asarray(model.layers[0].weight).T

    return train


def flax_nnx(problem: Problem) -> Train:
    """Trains with Flax NNX and optax, as in https://flax.readthedocs.io/en/latest/mnist_tutorial.html."""
    from flax import nnx

    @nnx.jit  # type: ignore[untyped-decorator]
    def train_step(model: Any, optimizer: Any, x: Any, t: Any) -> Any:
        def loss(model: Any) -> Any:
            return mean_cross_entropy(model(x), t)

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    x_train, t_train = problem.data.x_train, problem.data.t_train

    def train(batches: np.ndarray) -> np.ndarray:
        layers: list[Any] = []
        for (fan_in, fan_out), (W, b) in zip(pairwise(problem.sizes), problem.leaves, strict=True):
            layers += [nnx.Linear(fan_in, fan_out, rngs=nnx.Rngs(0)), nnx.relu]
            layers[-2].kernel[...], layers[-2].bias[...] = W, b
        model = nnx.Sequential(*layers[:-1])
        optimizer = nnx.Optimizer(model, optax.sgd(LEARNING_RATE), wrt=nnx.Param)
        for batch in batches:
            train_step(model, optimizer, x_train[batch], t_train[batch])
        return np.asarray(layers[0].kernel[...])

    return train


def scikit_learn(problem: Problem) -> Train:
    """Trains with `MLPClassifier.partial_fit`: plain gradient descent without weight decay or shuffling."""
    from sklearn.neural_network import MLPClassifier

    x_train, t_train = problem.data.x_train, problem.data.t_train
    classes = np.arange(problem.sizes[-1])

    def train(batches: np.ndarray) -> np.ndarray:
        model = MLPClassifier(
            problem.sizes[1:-1], solver="sgd", alpha=0.0, batch_size=problem.batch_size,
            learning_rate_init=LEARNING_RATE, momentum=0.0, nesterovs_momentum=False, shuffle=False,
        )  # fmt: skip
        with warnings.catch_warnings(), threadpool_limits(problem.threads, user_api="blas"):
            warnings.simplefilter("ignore")  # of classes that a batch lacks, and of convergence
            first = batches[0]
            model.partial_fit(x_train[first], t_train[first], classes=classes)  # creates parameters of its own
            for W, b, initial in zip(model.coefs_, model.intercepts_, problem.leaves, strict=True):
                W[:], b[:] = initial
            for batch in batches:
                model.partial_fit(x_train[batch], t_train[batch])
        return model.coefs_[0]

    return train


CONTENDERS: dict[str, Callable[[Problem], Train]] = {
    "jaxnet.fit": fit,
    "plain-scan": plain_scan,
    "numpy_ref": by_hand,
    "torch": pytorch,
    "torch-fused": partial(pytorch, fused=True),
    "torch-compile": partial(pytorch, compiled=True),
    "equinox": equinox,
    "flax-nnx": flax_nnx,
    "scikit-learn": scikit_learn,
}
