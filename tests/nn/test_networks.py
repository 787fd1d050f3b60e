"""Tests layers and networks as values: shapes, initial weights, descriptions, refused arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from conftest import hand_built, random_params

import jaxnet
import numpy_ref
from jaxnet.nn.tree_paths import leaves_by_path, tree_from_paths

KEY = jax.random.key(0)


def test_the_description_of_a_network_is_plain_data():
    assert jaxnet.two_layer_net(784, 50, 10).description == (
        "Sequential",
        (("Affine1", ("Affine", 784, 50)), ("Relu1", ("ReLU",)), ("Affine2", ("Affine", 50, 10))),
    )
    names = [name for name, _ in jaxnet.notebook_net(4, 3, 2).description[1]]
    assert names == ["Affine1", "Relu1", "Affine2", "Relu2"]
    names = [name for name, _ in jaxnet.multi_layer_net(4, [3, 3], 2, "tanh").description[1]]
    assert names == ["Affine1", "Tanh1", "Affine2", "Tanh2", "Affine3"]


def test_the_numpy_class_has_the_layers_of_the_jax_description():
    net = jaxnet.two_layer_net(6, 5, 4)
    by_description, by_class = hand_built(net, random_params(net)), numpy_ref.TwoLayerNet(6, 5, 4)
    assert [(name, type(layer)) for name, layer in by_description.layers.items()] == [
        (name, type(layer)) for name, layer in by_class.layers.items()
    ]


def test_networks_with_equal_descriptions_are_equal():
    net, same, other = jaxnet.two_layer_net(4, 3, 2), jaxnet.two_layer_net(4, 3, 2), jaxnet.two_layer_net(4, 4, 2)
    assert net == same
    assert hash(net) == hash(same)
    assert net != other
    assert net != jaxnet.notebook_net(4, 3, 2)


@pytest.mark.slow
def test_parameters_have_the_notebooks_tree_and_shapes():
    params = jaxnet.two_layer_net(7, 5, 3).init(KEY, 0.1)
    shapes = {name: leaf.shape for name, leaf in leaves_by_path(params).items()}
    assert shapes == {"Affine1.W": (7, 5), "Affine1.b": (5,), "Affine2.W": (5, 3), "Affine2.b": (3,)}
    np.testing.assert_array_equal(params["Affine1"]["b"], np.zeros(5))
    assert tree_from_paths(leaves_by_path(params)).keys() == params.keys()


@pytest.mark.parametrize(
    ("init_std", "expected"), [(0.1, 0.1), (0.0, 0.0), ("he", np.sqrt(2 / 400)), ("xavier", np.sqrt(2 / 700))]
)
def test_initial_weights_have_the_requested_standard_deviation(init_std, expected):
    W = jaxnet.nn.affine(400, 300).init(KEY, init_std)["W"]  # of 120,000 numbers, so std() is accurate to 0.2 %
    assert W.std() == pytest.approx(expected, rel=0.01)
    assert abs(W.mean()) <= 0.02 * expected


@pytest.mark.slow
def test_initial_weights_depend_on_the_key():
    net = jaxnet.two_layer_net(7, 5, 3)
    np.testing.assert_array_equal(net.init(KEY, 0.1)["Affine1"]["W"], net.init(KEY, 0.1)["Affine1"]["W"])
    assert (net.init(KEY, 0.1)["Affine1"]["W"] != net.init(jax.random.key(1), 0.1)["Affine1"]["W"]).all()


@pytest.mark.slow
def test_init_std_may_be_traced():
    net = jaxnet.two_layer_net(4, 3, 2)
    stacked = jax.vmap(lambda init_std: net.init(KEY, init_std))(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(stacked["Affine1"]["W"][1], 2 * stacked["Affine1"]["W"][0], rtol=1e-6)


@pytest.mark.slow
def test_infer_can_be_vmapped_over_parameters(rng):
    net, x = jaxnet.two_layer_net(4, 3, 2), jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
    several = [net.init(jax.random.key(i), 0.5) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    mapped = jax.jit(jax.vmap(net.infer, in_axes=(0, None, None)))(stacked, {}, x)
    np.testing.assert_allclose(mapped, [net.infer(params, {}, x) for params in several], rtol=1e-5, atol=1e-6)


def test_the_derivative_of_relu_at_0_is_0_in_numpy_and_jax():
    layer = numpy_ref.ReLU()
    layer.forward(np.zeros((1, 3)))
    np.testing.assert_array_equal(layer.backward(np.ones((1, 3))), np.zeros((1, 3)))
    relu = jaxnet.nn.relu()
    np.testing.assert_array_equal(jax.grad(lambda x: relu.infer({}, {}, x).sum())(jnp.zeros((1, 3))), np.zeros((1, 3)))


@pytest.mark.parametrize("scale", [1, 1e3, 1e30])
def test_the_loss_equals_scipys_and_its_gradient_is_finite_for_extreme_logits(rng, scale):
    logits = (scale * rng.standard_normal((6, 4))).astype(np.float32)
    t = rng.integers(0, 4, 6)
    expected = -scipy.special.log_softmax(logits.astype(np.float64), axis=1)[np.arange(6), t].mean()
    for labels in (jnp.asarray(t), jax.nn.one_hot(t, 4)):
        value, gradient = jax.value_and_grad(jaxnet.softmax_cross_entropy)(jnp.asarray(logits), labels)
        assert value == pytest.approx(expected, rel=1e-5)
        assert np.isfinite(gradient).all()


def test_accuracy_of_known_logits():
    logits = jnp.array([[1.0, 2], [3, 1], [0, 1]])
    assert jaxnet.accuracy(logits, jnp.array([1, 1, 1])) == pytest.approx(2 / 3)
    assert jaxnet.accuracy(logits, jax.nn.one_hot(jnp.array([1, 1, 1]), 2)) == pytest.approx(2 / 3)


def test_logits_that_are_not_numbers_predict_no_class():
    logits = jnp.array([[jnp.nan, 2], [3, 1], [0, jnp.nan]])
    assert jaxnet.accuracy(logits, jnp.array([0, 0, 1])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("sizes", [map(int, "45"), (n for n in (4, 5)), np.array([4, 5]), [np.int64(4), 5], (4, 5)])
def test_hidden_sizes_may_be_anything_that_is_iterated_over_once(sizes):
    assert jaxnet.multi_layer_net(3, sizes, 2) == jaxnet.multi_layer_net(3, [4, 5], 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxnet.two_layer_net(0, 5, 3), "input_size: 0, expected a whole number of at least 1"),
        (lambda: jaxnet.two_layer_net(7, -5, 3), "hidden_size: -5"),
        (lambda: jaxnet.multi_layer_net(7, [5, 0], 3), r"hidden_sizes\[1\]: 0"),
        (
            lambda: jaxnet.multi_layer_net(7, [5], 3, "rulu"),
            "activation: 'rulu', expected one of relu, leaky_relu, sigmoid",
        ),
        (
            lambda: jaxnet.nn.affine(2, 2).init(KEY, -1.0),
            "init_std: -1.0, expected a finite number >= 0, or .he. or .xavier.",
        ),
        (lambda: jaxnet.nn.affine(2, 2).init(KEY, float("nan")), "init_std: nan"),
        (lambda: jaxnet.nn.affine(2, 2).init(KEY, 1j), "init_std: 1j, expected a finite number >= 0"),
        (lambda: jaxnet.nn.affine(2, 2).init(KEY, np.ones((2, 2))), r"init_std: float64 of shape \(2, 2\), expected"),
        (lambda: jaxnet.nn.affine(2, 2).init(KEY, True), "init_std: True, expected a finite number"),
        (lambda: jaxnet.two_layer_net(2, 2, 2).init(5, 0.1), r"key: 5, expected a key, such as jax.random.key\(0\)"),
        (lambda: jaxnet.multi_layer_net(7, 5, 3), r"hidden_sizes: 5, expected a list of whole numbers, such as \[50\]"),
        (lambda: jaxnet.multi_layer_net(7, "55", 3), "hidden_sizes: '55', expected a list"),
        (lambda: jaxnet.multi_layer_net(7, [5], 3, dropout="0.5"), "rate: '0.5', expected a share in"),
        (
            lambda: jaxnet.two_layer_net(10**9, 10**9, 2),
            "in_size, out_size: 1000000000, 1000000000, expected sizes whose",
        ),
        (lambda: jaxnet.two_layer_net(10**400, 5, 2), "in_size, out_size: 1000"),
        (lambda: jaxnet.transformer(10**12, 64), "vocabulary, size: 1000000000000, 64, expected sizes whose product"),
        (lambda: jaxnet.simple_conv_net((1, 10**6, 10**6)), "in_size, out_size: 7499940000120, 100, expected sizes"),
        (lambda: jaxnet.nn.affine(2, 2).init(KEY, "He"), "init_std: 'He', expected a number, 'he' or 'xavier'"),
        (
            lambda: jaxnet.nn.affine(4, 3).infer(jaxnet.nn.affine(4, 3).init(KEY, 0.1), {}, jnp.ones((5, 3))),
            r"x: shape \(5, 3\), expected \(N, 4\)",
        ),
        (lambda: jaxnet.softmax_cross_entropy(jnp.ones((5, 3)), jnp.ones(4, int)), r"t: int32 of shape \(4,\)"),
        (lambda: jaxnet.accuracy(jnp.ones((5, 3)), jnp.ones(5)), r"t: float32 of shape \(5,\) does not label"),
    ],
)
def test_invalid_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_repr_of_a_network_is_a_table_of_layers_and_parameter_counts():
    D, M, C = 784, 50, 10
    table = [line.split() for line in repr(jaxnet.two_layer_net(D, M, C)).splitlines()]
    assert table[0] == ["layer", "kind", "parameters", "count"]
    assert [row[0] for row in table[1:4]] == ["Affine1", "Relu1", "Affine2"]
    assert [row[-1] for row in table[1:]] == [f"{n:,}" for n in (D * M + M, 0, M * C + C, D * M + M + M * C + C)]
    nested = repr(jaxnet.transformer(7, 6, size=8, heads=2, blocks=1))
    assert "\nMLP1.Affine1 " in nested
    assert repr(jaxnet.nn.leaky_relu(0.2)) == "LeakyReLU(0.2)"
