"""Tests that the networks of the book's chapters 6 to 8 and the transformer train alike in NumPy and JAX, and learn."""

from functools import partial

import jax
import numpy as np
import pytest
from conftest import noise_of, random_params, sampled

import jaxnet
import numpy_ref
from jaxnet.crosscheck import check_network
from jaxnet.nn.tree_paths import leaves_by_path

pytestmark = pytest.mark.slow

KEY = jax.random.key(9)
STEPS, RATE = 60, 0.1

NETWORKS = {
    "deep, BatchNorm": jaxnet.multi_layer_net(12, [9, 8, 7], 4, "tanh", batch_norm=True),
    "deep, Dropout": jaxnet.multi_layer_net(12, [16, 16], 4, "gelu", dropout=0.2),
    "deep, both": jaxnet.multi_layer_net(12, [16, 16], 4, batch_norm=True, dropout=0.2),
    "simple conv": jaxnet.simple_conv_net((1, 10, 10), filters=4, hidden_size=8, output_size=4),
    "deep conv": jaxnet.deep_conv_net((1, 6, 6), filters=(3, 4), hidden_size=16, output_size=4, dropout=0.1),
    "transformer": jaxnet.transformer(5, 7, size=8, heads=2, blocks=1, dropout=0.1),
}


def draw_problem(rng, name, samples):
    """Returns clusters of vectors or images, or cyclic sequences in which each character determines the next one."""
    if name == "transformer":
        x = (rng.integers(0, 5, (samples, 1)) + 2 * np.arange(8)) % 5  # (N, T + 1)
        return x[:, :-1], x[:, 1:]
    shape = {"simple conv": (1, 10, 10), "deep conv": (1, 6, 6)}.get(name, (12,))
    t = rng.integers(0, 4, samples)
    centres = 1.5 * np.random.default_rng(1).standard_normal((4, *shape))
    return centres[t] + 0.5 * rng.standard_normal((samples, *shape)), t


@pytest.fixture
def problem(rng):
    def make(name):
        return jaxnet.Dataset(*draw_problem(rng, name, 40), *draw_problem(rng, name, 20))

    return make


@pytest.mark.parametrize("name", sampled(NETWORKS, 4))
def test_numpy_and_jax_have_one_trajectory_and_learn(problem, name, x64):
    """Starts from Xavier weights. With He weights, the transformer amplifies rounding errors by 1e7 at this rate."""
    net, data = NETWORKS[name], problem(name)
    params = jax.tree.map(np.float64, jax.device_get(net.init(jax.random.key(0), "xavier")))
    batches = np.asarray(jaxnet.draw_batches(jax.random.key(1), 40, 10, STEPS))
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), weight_decay=1e-3)
    by_hand = numpy_ref.train(
        network, *data, batches, RATE, eval_every=20, noise=noise_of(net, KEY, data.x_train, batches)
    )
    run, compiled = jaxnet.fit(
        net, params, data, batches, learning_rate=RATE, eval_every=20, key=KEY, weight_decay=1e-3
    )  # fmt: skip
    assert by_hand.loss[-10:].mean() < 0.7 * by_hand.loss[:5].mean()
    assert by_hand.test_accuracy[-1] > 0.5
    np.testing.assert_allclose(compiled.loss, by_hand.loss, rtol=0, atol=1e-9)
    np.testing.assert_allclose(compiled.test_accuracy, by_hand.test_accuracy, rtol=0, atol=1e-12)
    for ours, theirs in ((network.params, run.params), (network.state, run.net_state)):
        theirs = leaves_by_path(theirs)
        assert leaves_by_path(ours).keys() == theirs.keys()
        for leaf, array in leaves_by_path(ours).items():
            np.testing.assert_allclose(array, theirs[leaf], rtol=0, atol=1e-9, err_msg=leaf)


@pytest.mark.parametrize("name", sampled(NETWORKS, 5))
def test_three_derivations_of_every_leaf_agree(rng, name):
    """Uses nine samples: those of three may vary so little that difference quotients have no accurate digit."""
    net, (x, t) = NETWORKS[name], draw_problem(rng, name, 9)
    noise = jax.device_get(net.draw_noise(KEY, x))
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, random_params(net)), weight_decay=0.1)
    network.set_noise(noise)
    reference = partial(jaxnet.loss, net, noise=noise, weight_decay=0.1)
    report = check_network(network, x, t, reference=lambda p, x, t: reference(p, x, t))
    report.raise_if_failed()
    assert {leaf.name for leaf in report.leaves} == set(leaves_by_path(network.params))


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_weight_decay_adds_half_the_squared_weights_and_no_biases(rng, weight_decay):
    net, (x, t) = jaxnet.transformer(5, 7, size=8, heads=2, blocks=2), draw_problem(rng, "transformer", 3)
    params = random_params(net, dtype=np.float32)
    weights = [
        leaf for name, leaf in leaves_by_path(params).items() if leaf.ndim == 2 and not name.startswith(("E", "P"))
    ]
    assert len(weights) == 2 * (4 + 2) + 1
    expected = float(jaxnet.loss(net, params, x, t)) + weight_decay / 2 * sum((W**2).sum() for W in weights)
    assert jaxnet.loss(net, params, x, t, weight_decay=weight_decay) == pytest.approx(expected, rel=1e-6)
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), weight_decay=weight_decay)
    assert network.loss(x, t) == pytest.approx(expected, rel=1e-5)


def test_weight_decay_of_biases_in_the_gradient_alone_is_detected(rng, monkeypatch):
    net, (x, t) = jaxnet.multi_layer_net(12, [9, 8, 7], 4), draw_problem(rng, "deep", 3)
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, random_params(net)), weight_decay=0.1)
    monkeypatch.setattr(numpy_ref.Network, "_decayed", lambda self, name, W, dW: dW + self.weight_decay * W)
    report = check_network(network, x, t)
    assert {leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"} == {f"Affine{i}.b" for i in (1, 2, 3, 4)}


def test_a_numerical_gradient_does_not_change_running_statistics(rng):
    net, (x, t) = NETWORKS["deep, BatchNorm"], draw_problem(rng, "deep", 3)
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, random_params(net)))
    before = {leaf: array.copy() for leaf, array in leaves_by_path(network.state).items()}
    numerical = leaves_by_path(network.numerical_gradient(x, t))
    np.testing.assert_equal(leaves_by_path(network.state), before)
    for leaf, gradient in leaves_by_path(network.gradient(x, t)).items():
        np.testing.assert_allclose(gradient, numerical[leaf], rtol=0, atol=1e-7, err_msg=leaf)


def test_training_with_the_squared_error_has_one_trajectory(problem, x64):
    net, data = jaxnet.two_layer_net(12, 9, 4), problem("deep")
    params, batches = random_params(net), np.asarray(jaxnet.draw_batches(jax.random.key(1), 40, 10, STEPS))
    network = numpy_ref.Network(numpy_ref.build_layers(net.description, params), numpy_ref.MeanSquaredError())
    by_hand = numpy_ref.train(network, *data, batches, RATE)
    _, compiled = jaxnet.fit(net, params, data, batches, learning_rate=RATE, criterion=jaxnet.mean_squared_error)
    assert by_hand.loss[-10:].mean() < 0.7 * by_hand.loss[:5].mean()
    np.testing.assert_allclose(compiled.loss, by_hand.loss, rtol=0, atol=1e-9)


def test_convolutional_networks_have_the_books_sizes():
    shapes = {
        name: leaf.shape
        for net in (jaxnet.simple_conv_net(), jaxnet.deep_conv_net())
        for name, leaf in leaves_by_path(jax.eval_shape(lambda k, net=net: net.init(k, 1.0), KEY)).items()
        if leaf.ndim > 1
    }
    assert shapes["Affine1.W"] == (64 * 4 * 4, 50)  # deep: 28 -> 14 -> 16 -> 8 -> 4
    assert shapes["Convolution6.W"] == (64, 64, 3, 3)
    simple = dict(jaxnet.simple_conv_net().description[1])
    assert simple["Affine1"] == ("Affine", 30 * 12 * 12, 100)
    assert list(simple) == ["Convolution1", "Relu1", "Pool1", "Flatten1", "Affine1", "Relu2", "Affine2"]


def test_layers_are_in_the_order_of_chapter_6():
    net = jaxnet.multi_layer_net(4, [3], 2, batch_norm=True, dropout=0.5)
    assert [name for name, _ in net.description[1]] == ["Affine1", "BatchNorm1", "Relu1", "Dropout1", "Affine2"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxnet.simple_conv_net((1, 4, 4)), r"x: shape \(1, 1, 4, 4\), expected .* at least 5"),
        (lambda: jaxnet.deep_conv_net(dropout=1.0), "rate: 1.0"),
        (lambda: jaxnet.deep_conv_net(filters=(0,)), "filters: 0"),
        (lambda: jaxnet.transformer(5, 7, blocks=0), "blocks: 0"),
        (lambda: jaxnet.transformer(5, 7, size=6, heads=4), "heads: 4"),
        (lambda: jaxnet.multi_layer_net(5, [4], 3, dropout=-0.5), "rate: -0.5"),
    ],
)
def test_invalid_sizes_and_rates_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda d: d._replace(x_train=d.x_train.astype(float)),
            r"data\.x_train: float64 of shape \(40, 7\), expected integers",
        ),
        (lambda d: d._replace(t_train=d.t_train + 1), r"data\.t_train: runs from \d to 5"),
        (lambda d: d._replace(t_train=d.t_train[:, 0]), r"data\.t_train: .*expected integers of shape \(40, 7\)"),
        (lambda d: d._replace(x_train=d.x_train.repeat(2, axis=1)), "with T up to 7"),
    ],
)
def test_sequences_of_a_wrong_dtype_range_or_length_are_refused_by_name(problem, spoil, message):
    net, data = NETWORKS["transformer"], spoil(problem("transformer"))
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int))
