"""One training loop for each library, as its own guide writes it, with the same network, parameters and batches.

A contender is a function from a problem to a training loop, which starts from the problem's initial parameters, makes
one step for each row of `batches`, and returns the first weights. It is compiled for a number of steps. Those that need
a library that may be missing are each in a module named after it, which is imported when they are called.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from threadpoolctl import threadpool_limits

import jaxnet
import numpy_ref
from jaxnet.cli.bench.problem import LEARNING_RATE, Problem, Skip, first_weights, mean_cross_entropy

Train = Callable[[np.ndarray], np.ndarray]  # batches (S, B) -> first weights, in the shape that jaxnet has them
Predict = Callable[[np.ndarray, int], Any]  # samples, batch size -> logits


def fit(problem: Problem) -> Train:
    """Trains with `jaxnet.fit`. Its two evaluations are a fixed cost, which the timer subtracts."""
    data = jax.device_put(problem.data)

    def train(batches: np.ndarray) -> np.ndarray:
        options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "eval_every": len(batches), "key": jax.random.key(0)}
        state, _ = jaxnet.fit(problem.net, problem.params, data, jnp.asarray(batches), **options)
        return np.asarray(first_weights(problem.net, jax.device_get(state.params)))

    return train


def plain_scan(problem: Problem) -> Train:
    """Trains as a JAX user would: `lax.scan` over steps that gather rows, differentiate and update."""
    net = problem.net

    def loss(params: Any, state: Any, x: Any, t: Any, noise: Any) -> Any:
        logits, state = net.train(params, state, x, noise)
        return mean_cross_entropy(logits, t), state

    @jax.jit
    def run(params: Any, state: Any, x_train: Any, t_train: Any, batches: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            params, state, key = carry
            key, step_key = jax.random.split(key)
            x, t = x_train[batch], t_train[batch]
            noise = net.draw_noise(step_key, x)
            (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state, x, t, noise)
            params = jax.tree.map(lambda leaf, grad: leaf - LEARNING_RATE * grad, params, grads)
            return (params, state, key), value

        return lax.scan(step, (params, state, jax.random.key(0)), batches)

    initial = jax.device_put((problem.params, problem.state, problem.data.x_train, problem.data.t_train))
    return lambda batches: np.asarray(first_weights(net, jax.device_get(run(*initial, jnp.asarray(batches))[0][0])))


def by_hand(problem: Problem) -> Train:
    """Trains with `numpy_ref.train`, the loop written by hand, without its evaluations."""

    def train(batches: np.ndarray) -> np.ndarray:
        network = numpy_ref.Network(numpy_ref.build_layers(problem.net.description, problem.params))
        network.accuracy = lambda *_: 0.0  # type: ignore[method-assign]
        rng, x_train = np.random.default_rng(0), problem.data.x_train
        noise = (network.draw_noise(rng, x_train[batch]) for batch in batches)
        with threadpool_limits(problem.threads, user_api="blas"):
            numpy_ref.train(network, *problem.data, batches, LEARNING_RATE, eval_every=len(batches), noise=noise)
        return np.asarray(first_weights(problem.net, network.params))

    return train


def scikit_learn(problem: Problem) -> Train:
    """Trains with `MLPClassifier.partial_fit`: plain gradient descent without weight decay or shuffling."""
    from sklearn.neural_network import MLPClassifier

    kinds = [layer.description[0] for layer in problem.net.layers.values()]
    if kinds != (["Affine", "ReLU"] * len(kinds))[: len(kinds)] or kinds[-1] != "Affine":
        raise Skip("scikit-learn has affine layers with ReLUs between them, and no others")
    x_train, t_train = problem.data.x_train, problem.data.t_train
    leaves = [problem.params[name] for name in problem.net.layers if name in problem.params]
    *hidden, outputs = (len(layer["b"]) for layer in leaves)

    def train(batches: np.ndarray) -> np.ndarray:
        model = MLPClassifier(
            tuple(hidden), solver="sgd", alpha=0.0, batch_size=problem.batch_size,
            learning_rate_init=LEARNING_RATE, momentum=0.0, nesterovs_momentum=False, shuffle=False,
        )  # fmt: skip
        with warnings.catch_warnings(), threadpool_limits(problem.threads, user_api="blas"):
            warnings.simplefilter("ignore")  # of classes that a batch lacks, and of convergence
            first = batches[0]
            model.partial_fit(x_train[first], t_train[first], classes=np.arange(outputs))  # draws parameters of its own
            for W, b, initial in zip(model.coefs_, model.intercepts_, leaves, strict=True):
                W[:], b[:] = initial["W"], initial["b"]
            for batch in batches:
                model.partial_fit(x_train[batch], t_train[batch])
        return model.coefs_[0]

    return train


def predict_jaxnet(problem: Problem) -> Predict:
    """Returns `jaxnet.predict`, which chooses its batches itself."""
    params, state = jax.device_put((problem.params, problem.state))
    return lambda x, _batch_size: np.asarray(jaxnet.predict(problem.net, params, state, x))


def imported(module: str, function: str, **options: Any) -> Callable[[Problem], Any]:
    """Returns a contender of a module that is imported when it is called."""
    return lambda problem: getattr(import_module(f"jaxnet.cli.bench.{module}"), function)(problem, **options)


CONTENDERS: dict[str, Callable[[Problem], Train]] = {
    "jaxnet.fit": fit,
    "plain-scan": plain_scan,
    "numpy_ref": by_hand,
    "torch": imported("with_torch", "train_torch"),
    "torch-fused": imported("with_torch", "train_torch", fused=True),
    "torch-compile": imported("with_torch", "train_torch", compiled=True),
    "torch-channels-last": imported("with_torch", "train_torch", images_last=True),
    "equinox": imported("with_equinox", "train_equinox"),
    "flax-nnx": imported("with_flax", "train_flax"),
    "keras": imported("with_keras", "train_keras"),
    "scikit-learn": scikit_learn,
}
PREDICTORS: dict[str, Callable[[Problem], Predict]] = {
    "jaxnet.predict": predict_jaxnet,
    "torch": imported("with_torch", "predict_torch"),
    "torch-compile": imported("with_torch", "predict_torch", compiled=True),
    "torch-channels-last": imported("with_torch", "predict_torch", images_last=True),
}
