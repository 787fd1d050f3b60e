"""Layers as a CPU computes them equal those that readers see, which are checked against NumPy, up to rounding."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import exhaustive, random_params

import jaxnet
from jaxnet.nn import (
    attention,
    average_pool,
    batch_norm,
    convolution,
    dropout,
    embedding,
    flatten,
    group_norm,
    max_pool,
    relu,
    residual,
    sequential,
)
from jaxnet.nn.cpu_layers import for_cpu, is_faster_for_cpu
from jaxnet.train.step import step_noise


def chain(*layers):
    return sequential({f"{layer.description[0]}{i}": layer for i, layer in enumerate(layers, start=1)})


BLOCK = {"Convolution": convolution(4, 4, 3, padding=1), "BatchNorm": batch_norm(4), "ReLU": relu()}
NETWORKS = {  # with the shape of a batch
    "simple": (jaxnet.simple_conv_net((1, 10, 9), 5, 3, 7, 4), (6, 1, 10, 9)),
    "deep": (jaxnet.deep_conv_net((2, 8, 8), (3,), 6, 5), (5, 2, 8, 8)),
    "a single convolution": (convolution(3, 5, 2), (4, 3, 6, 5)),
    "one image": (convolution(3, 5, 2), (1, 3, 6, 5)),
    "1 by 1": (convolution(3, 5, 1), (4, 3, 6, 5)),
    "padding of more than a window": (convolution(2, 3, 2, padding=4), (3, 2, 4, 5)),
    "strides": (chain(convolution(2, 3, 3, 2), relu(), convolution(3, 4, 2)), (3, 2, 9, 8)),
    "statistics and masks": (
        chain(
            *(convolution(1, 4, 3), batch_norm(4), dropout(0.4), convolution(4, 6, 2), group_norm(2, 6), relu()),
            *(flatten(), batch_norm(54)),
        ),
        (7, 1, 6, 6),
    ),
    "pools": (
        chain(max_pool(2, 1), convolution(2, 3, 2), average_pool(3, 2, padding=1), max_pool(3, 2, padding=1)),
        (3, 2, 9, 9),
    ),
    "residual connections": (
        chain(convolution(1, 4, 3), residual(BLOCK), residual({"GN": group_norm(2, 4)})),
        (3, 1, 6, 5),
    ),
    "transformer": (jaxnet.transformer(7, 5, 8, heads=2, blocks=2), (3, 5)),
    "attention": (attention(6, 3), (4, 5, 6)),
    "embedding of few rows": (embedding(5, 3), (4, 6)),
    "embedding of many rows": (embedding(600, 3), (4, 6)),
    "several chunks of images": (convolution(40, 40, 3, padding=1), (9, 40, 32, 30)),
    "pooled": (chain(convolution(1, 3, 2, padding=1), relu(), max_pool(3)), (4, 1, 9, 7)),
    "pooled, several chunks": (chain(convolution(20, 40, 3, padding=1), relu(), max_pool(2)), (9, 20, 33, 30)),
    "pooled within a connection": (
        residual({"C": convolution(2, 2, 3), "R": relu(), "P": max_pool(1), "again": convolution(2, 2, 3, padding=2)}),
        (3, 2, 6, 5),
    ),
    "a pool of 289 places": (chain(convolution(2, 3, 2), relu(), max_pool(17)), (3, 2, 19, 37)),
    "overlapping pool": (chain(convolution(2, 3, 2), relu(), max_pool(2, 1)), (3, 2, 6, 5)),
}


SMALL = "a single convolution", "pooled", "attention", "embedding of few rows"
LARGE = "pooled, several chunks", "statistics and masks", "residual connections", "transformer", "simple"


@pytest.mark.parametrize(
    "name",
    [
        *SMALL,
        *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
        *(exhaustive(name) for name in NETWORKS if name not in SMALL + LARGE),
    ],
)
def test_outputs_gradients_and_statistics_are_equal(name, x64):
    net, shape = NETWORKS[name]
    rng = np.random.default_rng(0)
    params, x = random_params(net), jnp.asarray(rng.standard_normal(shape))
    if any("Embedding" in part for part in (net.description[0], *net.layers)):
        x = jnp.asarray(rng.integers(0, 5, shape))
    noise = step_noise(net, jax.random.key(0), 0, x)
    dout = rng.standard_normal(jax.eval_shape(net.infer, params, net.state, x).shape)

    def results(net):
        def loss(params, x):
            y, state = net.train(params, net.state, x, noise)
            return (y * dout).sum(), state

        gradients, state = jax.grad(loss, argnums=(0, 1) if x.dtype == float else (0,), has_aux=True)(params, x)
        return net.infer(params, net.state, x), net.train(params, net.state, x, noise)[0], gradients, state

    expected, actual = (
        jax.tree.leaves(jax.jit(lambda: results(net))()),
        jax.tree.leaves(jax.jit(lambda: results(for_cpu(net)))()),
    )
    largest = max(np.abs(b).max() for b in expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * largest)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_pooled_convolution_chooses_the_same_of_equal_elements(x64, channels):
    """Uses whole numbers, so that windows have equal maxima, zeros after ReLU among them; and nan, the largest."""
    net, rng = chain(convolution(channels, 3, 2), relu(), max_pool(2)), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.round(2 * leaf), random_params(net))
    x = rng.integers(-1, 2, (8, channels, 9, 9)).astype(float)
    x[0, 0, :2, :2] = np.nan

    def gradient(net):
        return jax.jit(jax.grad(lambda x: (net.infer(params, {}, x) ** 2).sum()))(jnp.asarray(x))

    np.testing.assert_array_equal(gradient(for_cpu(net)), gradient(net))
    y, expected = (form.infer(params, {}, jnp.asarray(x)) for form in (for_cpu(net), net))
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(expected).sum() == 3  # in each filter
    assert (expected == 0).any()


@pytest.mark.slow
def test_images_are_copied_into_another_order_only_at_both_ends():
    """Counts what XLA copies in the program of a gradient by the parameters, with five layers of images."""
    net = jaxnet.deep_conv_net((1, 12, 12), (8,), 6, 5)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), 0.1))
    x = jax.ShapeDtypeStruct((5, 1, 12, 12), jnp.float32)

    def copies(net):
        gradient = jax.grad(lambda params, x: net.infer(params, net.state, x).sum())
        program = jax.jit(gradient).lower(params, x).compile().as_text()
        return re.findall(r"f32\[(5,[\d,]+)\]\S* (?:copy|transpose)\(", program)

    assert {*copies(for_cpu(net))} == {"5,6,6,8", "5,8,6,6"}  # those at the end; the image has one channel
    assert len(copies(net)) > 20


def test_only_convolutions_and_attention_gain():
    assert is_faster_for_cpu(jaxnet.transformer(5, 4, 8, 2, 1))
    assert not is_faster_for_cpu(jaxnet.multi_layer_net(4, [3, 3], 2, batch_norm=True))


@pytest.mark.slow
def test_ids_out_of_range_give_nan_and_no_gradient(x64):
    for layer in (embedding(4, 3), embedding(600, 3)):
        E, ids = random_params(layer)["E"], jnp.array([[0, 9999, -1, 2]])
        y, gradient = (
            [form.infer({"E": E}, {}, ids), jax.grad(lambda E: jnp.nansum(form.infer({"E": E}, {}, ids)))(E)]  # noqa: B023
            for form in (layer, for_cpu(layer))
        )
        jax.tree.map(np.testing.assert_array_equal, y, gradient)


def test_images_that_do_not_fit_are_refused_by_their_shape():
    net = for_cpu(convolution(3, 5, 2))
    params = random_params(net)
    for shape, expected in {
        (4, 2, 6, 5): r"\(4, 2, 6, 5\), expected \(N, 3, H, W\)",
        (4, 3, 1, 5): "at least 2",
    }.items():
        with pytest.raises(ValueError, match=expected):
            net.infer(params, {}, jnp.zeros(shape))
    with pytest.raises(ValueError, match=r"x: shape \(4, 3\), expected \(N, 3, H, W\)"):
        net.infer(params, {}, jnp.zeros((4, 3)))
    pooled = for_cpu(chain(convolution(3, 5, 2), relu(), max_pool(4)))
    with pytest.raises(ValueError, match=r"\(4, 5, 3, 6\), expected .* with H and W at least 4"):
        pooled.infer({"Convolution1": params}, {}, jnp.zeros((4, 3, 4, 7)))
