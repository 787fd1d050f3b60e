import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet
import numpy_ref


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x64():
    """Double precision, for the test that asks for it and no other."""
    with jax.enable_x64(True):
        yield


def away_from_kinks(rng, shape, gap=0.1):
    """Normal numbers, none nearer to 0 than `gap`: no step of a difference quotient crosses a ReLU's kink."""
    x = rng.standard_normal(shape)
    return x + gap * np.sign(x)


def hand_built(net, params):
    return numpy_ref.Network(numpy_ref.build_layers(net.description, params))


def random_params(net, key=0, dtype=np.float64):
    """Weights and biases alike are normal: a bias of zero would hide what is wrong with it."""
    params = net.init(jax.random.key(key), 0.5)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key + 1), len(leaves))
    return jax.tree.unflatten(
        tree, [np.asarray(0.5 * jax.random.normal(k, a.shape), dtype) for k, a in zip(keys, leaves, strict=True)]
    )


def a_dataset(rng, samples=60, features=12, classes=5):
    """Clusters that a small network can learn."""
    centres = rng.standard_normal((classes, features))

    def draw(n):
        t = rng.integers(0, classes, n)
        return (centres[t] + 0.5 * rng.standard_normal((n, features))).astype(np.float32), t.astype(np.int32)

    return jaxnet.Dataset(*draw(samples), *draw(samples // 2))


def tree_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, jax.tree.map(jnp.asarray, other))
