"""Tests every layer in NumPy and JAX: values, gradients, inference, untouched arrays, planted faults, refusals."""

import math
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow, random_params, sampled

import jaxnet
import numpy_ref
from jaxnet.cli.catalogue import CATALOGUE, Fault, scaled, with_fault
from jaxnet.crosscheck import check_layer
from jaxnet.nn.tree_paths import leaves_by_path, tree_from_paths

EPS = np.finfo(np.float64).eps
KEY = jax.random.key(5)

CASES = [
    pytest.param(name, shape, id=f"{name}-{shape}", marks=[] if shape == entry.shapes[-1] else pytest.mark.slow)
    for name, entry in CATALOGUE.items()
    for shape in entry.shapes
]
LARGEST = [pytest.param(name, entry.shapes[-1], id=name) for name, entry in CATALOGUE.items()]


def both(name, shape, rng, dtype=np.float64):
    """Returns a layer in JAX and in NumPy with the same parameters, running statistics and noise, and an input."""
    entry = CATALOGUE[name]
    layer, x = entry.layer, entry.example(shape, rng, dtype)
    params = random_params(layer, dtype=dtype)
    state = jax.tree.map(lambda leaf: rng.uniform(0.5, 2, leaf.shape).astype(dtype), layer.state)
    noise = jax.device_get(layer.draw_noise(KEY, x))
    by_hand = entry.by_hand(params, state)
    by_hand.set_noise(noise)
    return layer, by_hand, (params, state, x, noise)


def assert_same(ours, theirs, terms, what):
    """Compares up to rounding, with the bound of test_gradients and a factor of 20 for the chain of layers."""
    bound = 20 * np.sqrt(terms) * EPS * max(1, np.abs(theirs).max(initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound, err_msg=what)


def gradients(hand, dx):
    return {"x": dx} | leaves_by_path(hand.grad_tree())


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_forward_and_every_gradient_equal_jaxs_up_to_rounding(rng, x64, name, shape):
    layer, hand, (params, state, x, noise) = both(name, shape, rng)

    @jax.jit
    def by_autodiff(params, x, dout):
        y, back, new_state = jax.vjp(lambda params, x: layer.train(params, state, x, noise), params, x, has_aux=True)
        return (y, new_state, *back(dout))

    y = hand.forward(x)
    dout = rng.standard_normal(y.shape)
    dx = hand.backward(dout)
    theirs, new_state, dparams, dx_theirs = by_autodiff(params, jnp.asarray(x), dout)
    terms = max(x.size, y.size, *(leaf.size for leaf in jax.tree.leaves(params)), 1)
    assert_same(y, theirs, terms, "y")
    if dx_theirs.dtype != jax.dtypes.float0:  # ids have no gradient
        assert_same(dx, dx_theirs, terms, "dx")
    ours = leaves_by_path(hand.grad_tree())
    assert ours.keys() == leaves_by_path(params).keys()
    for leaf, gradient in leaves_by_path(dparams).items():
        assert_same(ours[leaf], gradient, terms, leaf)
    statistics = leaves_by_path(hand.state_tree())
    assert statistics.keys() == leaves_by_path(new_state).keys()
    for leaf, statistic in leaves_by_path(new_state).items():
        assert_same(statistics[leaf], statistic, terms, leaf)


@pytest.mark.parametrize(("name", "shape"), LARGEST)
def test_inference_equals_jaxs_and_does_not_affect_a_later_backward(rng, x64, name, shape):
    layer, hand, (params, state, x, _) = both(name, shape, rng)
    y = hand.forward(x)
    dout = rng.standard_normal(y.shape)
    gradient, statistics = hand.backward(dout), leaves_by_path(hand.state_tree())
    fresh = CATALOGUE[name].by_hand(params, state)  # without noise, which inference does not need
    assert_same(fresh.infer(x), jax.jit(layer.infer)(params, state, jnp.asarray(x)), x.size * 10, "y")
    hand.infer(x[:1])
    np.testing.assert_array_equal(hand.backward(dout), gradient)
    np.testing.assert_equal(leaves_by_path(hand.state_tree()), statistics)


@pytest.mark.parametrize(
    ("name", "shape"), sampled([(name, entry.shapes[-1]) for name, entry in CATALOGUE.items()], every=4)
)
def test_every_gradient_is_the_derivative_of_its_own_forward_pass(rng, name, shape):
    """Starts from float32 arrays, which the checker converts to float64 too."""
    _, hand, (params, _, x, _) = both(name, shape, rng, np.float32)
    report = check_layer(hand, x)
    report.raise_if_failed()
    assert {leaf.name for leaf in report.leaves} == {*leaves_by_path(params), *(["x"] if x.dtype == np.float32 else [])}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(CATALOGUE, every=8))
def test_three_derivations_of_every_leaf_agree(rng, name):
    layer, hand, (params, state, x, noise) = both(name, CATALOGUE[name].shapes[-1], rng, np.float32)

    def forward(params, x):
        return layer.train(tree_from_paths(params), state, x, noise)[0]

    check_layer(hand, x, reference=forward if params else partial(forward, {})).raise_if_failed()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "shape"), LARGEST)
def test_a_layer_keeps_the_dtype_and_neither_changes_nor_shares_arrays(rng, name, shape, dtype):
    _, hand, (params, _, x, noise) = both(name, shape, rng, dtype)
    inputs_before = x.copy(), jax.tree.map(np.copy, params), jax.tree.map(np.copy, noise)
    params_of_layer = leaves_by_path(hand.param_tree())
    y = hand.forward(x)
    dout = rng.standard_normal(y.shape).astype(dtype)
    dout_before = dout.copy()
    dx = hand.backward(dout)
    assert {a.dtype for a in (y, dx, *gradients(hand, dx).values(), *leaves_by_path(hand.state_tree()).values())} == {
        np.dtype(dtype)
    }
    assert hand.infer(x).dtype == dtype
    gradients_before = {leaf: gradient.copy() for leaf, gradient in gradients(hand, dx).items()}
    y[...] = dx[...] = 7
    hand.infer(x)[...] = 7
    np.testing.assert_equal(gradients(hand, hand.backward(dout)), gradients_before)
    np.testing.assert_equal((x, params, noise), inputs_before)
    np.testing.assert_equal(params_of_layer, leaves_by_path(params))
    np.testing.assert_array_equal(dout, dout_before)


def forward_without_mask(self, x):
    saved, np.tri = np.tri, lambda T, dtype: np.ones((T, T), dtype)
    try:
        return numpy_ref.Attention.forward(self, x)
    finally:
        np.tri = saved


def last_window_wins(self, dout):
    """Overwrites the gradients of an element in overlapping windows instead of adding them."""
    dx, K, s = np.zeros(self.shape), self.size, self.stride
    for i, j in np.ndindex(dout.shape[2:]):
        first = self.patches[..., i, j].reshape(K * K, *dout.shape[:2]).argmax(axis=0)  # (N, C)
        at = first[..., None] == np.arange(K * K)  # (N, C, K K)
        window = dx[:, :, i * s : i * s + K, j * s : j * s + K]
        window[...] = np.where(at.reshape(window.shape), dout[:, :, i, j, None, None], window)
    return dx


FURTHER_FAULTS = {
    "Affine": scaled("W", 1.001),
    "Dropout": Fault("x", lambda layer, dout: np.where(layer.mask, 0, dout / (1 - layer.rate))),
    "BatchNorm of vectors": scaled("beta", 1 / 9),
    "BatchNorm of images": scaled("gamma", 1.001),
    "Convolution": scaled("b", 0.1),
    "Convolution, strides": scaled("x", 1.001),
    "MaxPool, overlapping": Fault("x", last_window_wins),
    "Attention, heads": scaled("x", 0.999),
}
FAULTS = {name: (name, entry.fault) for name, entry in CATALOGUE.items()}
FAULTS |= {f"{name}, another": (name, fault) for name, fault in FURTHER_FAULTS.items()}


@pytest.mark.parametrize("fault", sampled(FAULTS, every=6))
def test_a_planted_fault_is_detected_in_its_leaf(rng, fault):
    name, fault = FAULTS[fault]
    _, hand, (_, _, x, _) = both(name, CATALOGUE[name].shapes[-1], rng)
    report = check_layer(with_fault(hand, fault), x)
    failed = {leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"}
    assert fault.leaf in failed if isinstance(hand, numpy_ref.Sequential) else failed == {fault.leaf}


def test_every_layer_is_in_the_catalogue():
    kinds = {entry.layer.description[0] for entry in CATALOGUE.values()}
    assert kinds == {*numpy_ref.networks.LAYERS, *numpy_ref.networks.COMPOSED}
    made = {entry.make.__name__ for entry in CATALOGUE.values()}
    files = ("layers", "convolution", "normalization", "attention")
    functions = {name for file in files for name in import_module(f"jaxnet.nn.{file}").__all__}
    assert functions - made == {"ACTIVATIONS", "Layer", "activation", "stateless"}


@pytest.mark.parametrize(
    "name", mostly_slow([name for name, entry in CATALOGUE.items() if entry.layer.last_axis_only], 3)
)
def test_a_layer_with_last_axis_only_computes_each_row_independently(name, rng, x64):
    layer, _, (params, state, x, _) = both(name, CATALOGUE[name].shapes[-1], rng)
    y = layer.infer(params, state, jnp.asarray(x))
    for row in np.ndindex(x.shape[:-1]):
        np.testing.assert_allclose(layer.infer(params, state, jnp.asarray(x[row][None]))[0], y[row], rtol=1e-12)


@pytest.mark.slow
def test_attention_without_a_causal_mask_is_reported_as_another_function(rng):
    layer, hand, (_, state, x, noise) = both("Attention, heads", (3, 4, 6), rng)
    hand.__class__ = type("SeesTheFuture", (numpy_ref.Attention,), {"forward": forward_without_mask})
    report = check_layer(hand, x, reference=lambda params, x: layer.train(params, state, x, noise)[0])
    assert report.verdict == "FAIL"
    assert "the forwards are different functions" in report.text(width=None)


def test_attention_does_not_depend_on_later_positions(rng):
    _, hand, (_, _, x, _) = both("Attention, heads", (3, 4, 6), rng)
    before, changed = hand.forward(x), x.copy()
    changed[:, 2:] += 1
    np.testing.assert_array_equal(hand.forward(changed)[:, :2], before[:, :2])
    assert (hand.forward(changed)[:, 2:] != before[:, 2:]).all()


def test_attention_equals_jaxs(rng, x64):
    """Allows an error of 1e-6, because JAX computes this softmax in float32 for every dtype."""
    _, hand, (params, _, x, _) = both("Attention, heads", (3, 4, 6), rng)
    q, k, v = ((x @ params[W]).reshape(3, 4, 3, 2) for W in ("Wq", "Wk", "Wv"))
    theirs = jax.nn.dot_product_attention(*map(jnp.asarray, (q, k, v)), is_causal=True).reshape(3, 4, 6) @ params["Wo"]
    np.testing.assert_allclose(hand.forward(x), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 0), (3, 1, 1), (2, 1, 1)])
def test_the_first_of_equal_maxima_gets_the_gradient_in_numpy_and_jax(size, stride, padding, x64):
    """Uses a plateau, such as after a ReLU. XLA's reduce_window must choose the same element."""
    layer, x = jaxnet.nn.max_pool(size, stride, padding), np.zeros((1, 1, 6, 6))
    x[0, 0, 2:4, 2:4] = 1
    hand = numpy_ref.MaxPool(size, stride, padding)
    dout = np.arange(1.0, 1 + hand.forward(x).size).reshape(hand.forward(x).shape)
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]

    def xlas(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, size, size), (1, 1, stride, stride), around)

    @partial(jax.jit, static_argnums=0)
    def by_autodiff(forward, x, dout):
        y, back = jax.vjp(forward, x)
        return y, *back(dout)

    for forward in (lambda x: layer.infer({}, {}, x), xlas):
        y, dx = by_autodiff(forward, x, dout)
        np.testing.assert_array_equal(hand.forward(x), y)
        np.testing.assert_array_equal(hand.backward(dout), dx)
    if (size, stride) == (2, 2):
        np.testing.assert_array_equal(np.argwhere(hand.backward(dout)[0, 0])[:3], [[0, 0], [0, 2], [0, 4]])


def test_a_convolution_of_known_numbers():
    x, W = np.arange(9.0).reshape(1, 1, 3, 3), np.array([[1.0, 0], [0, -1]]).reshape(1, 1, 2, 2)
    y = numpy_ref.Convolution(W, np.array([10.0])).forward(x)
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), 6.0))  # x[i, j] - x[i + 1, j + 1] = -4: correlation


CONVOLUTIONS = [name for name in CATALOGUE if name.startswith("Convolution")]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_on_a_cpu_equals_the_lax_convolution_of_other_devices(name, rng, x64, monkeypatch):
    layer, x = CATALOGUE[name].layer, rng.standard_normal((2, 3, 6, 8))
    params = random_params(layer)

    def value_and_gradients():
        def square(params, x):
            return (layer.infer(params, {}, x) ** 2).sum()

        value, gradients = jax.value_and_grad(square, (0, 1))(params, x)
        return [value, *jax.tree.leaves(gradients)]

    on_cpu, chosen = value_and_gradients(), []
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, cpu, default: chosen.append(default) or default(*a))
    for ours, theirs in zip(on_cpu, value_and_gradients(), strict=True):
        assert_same(ours, theirs, 6 * 8 * 25, name)
    assert "conv_general_dilated" in str(jax.make_jaxpr(chosen[0])(x, params["W"]))


def test_gelu_approximates_x_times_the_normal_distribution():
    """Hendrycks and Gimpel's tanh form stays within 5e-4 of x Phi(x)."""
    x = np.linspace(-6, 6, 1001)
    normal_distribution = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in x])
    error = np.abs(numpy_ref.GELU().forward(x) - x * normal_distribution).max()
    assert 1e-4 < error < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(200, 300), (10, 4, 20, 30)])
def test_dropout_keeps_the_requested_share_and_the_mean(shape):
    layer, x = jaxnet.nn.dropout(0.3), np.ones(shape, np.float32)
    for mask in (
        layer.draw_noise(KEY, x)["mask"],
        numpy_ref.Dropout(0.3).draw_noise(np.random.default_rng(0), x)["mask"],
    ):
        assert np.mean(mask) == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / x.size))
    y, _ = layer.train({}, {}, jnp.asarray(x), layer.draw_noise(KEY, x))
    assert y.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(layer.infer({}, {}, x), x)


def test_batch_norm_normalizes_the_batch_and_updates_running_statistics(rng):
    hand = CATALOGUE["BatchNorm of vectors"].by_hand({"gamma": np.ones(6), "beta": np.zeros(6)})
    x = 3 + 2 * rng.standard_normal((1000, 6))
    for _ in range(100):
        y = hand.forward(x)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=0), 1, atol=1e-4)  # eps / var
    np.testing.assert_allclose(hand.mean, x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(hand.infer(x), y, atol=1e-3)


@pytest.mark.slow
def test_dropout_layers_draw_different_masks(rng):
    layer = CATALOGUE["Sequential"].layer
    noise = layer.draw_noise(KEY, np.zeros((50, 6)))
    assert set(leaves_by_path(noise)) == {"Dropout.mask", "Nested.Dropout.mask"}
    assert (noise["Dropout"]["mask"] != noise["Nested"]["Dropout"]["mask"]).any()
    hand = CATALOGUE["Sequential"].by_hand(random_params(layer))
    assert leaves_by_path(hand.draw_noise(rng, np.zeros((50, 6)))).keys() == leaves_by_path(noise).keys()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [pytest.param((1, 4), marks=pytest.mark.slow), (5, 4), (2, 3, 4)])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("SoftmaxWithLoss", "numbers"),
        ("SoftmaxWithLoss", "one-hot"),
        ("MeanSquaredError", "numbers"),
        ("MeanSquaredError", "targets"),
    ],
)
def test_three_derivations_of_every_loss_agree(rng, name, shape, labels):
    x, t = rng.standard_normal(shape), rng.integers(0, 4, shape[:-1])
    t = {"numbers": t, "one-hot": np.eye(4)[t], "targets": rng.standard_normal(shape)}[labels]
    theirs = {"SoftmaxWithLoss": jaxnet.softmax_cross_entropy, "MeanSquaredError": jaxnet.mean_squared_error}[name]
    check_layer(getattr(numpy_ref, name)(), x, t, reference=theirs).raise_if_failed()


def test_the_squared_error_of_known_numbers():
    x, t = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 0], [0, 4]])
    assert numpy_ref.MeanSquaredError().forward(x, t) == (4 + 9) / 2 / 2
    assert numpy_ref.MeanSquaredError().forward(x, np.array([1, 0])) == (1 + 1 + 4 + 16) / 2 / 2


def test_a_squared_error_without_division_by_the_batch_size_is_detected(rng):
    class Forgets(numpy_ref.MeanSquaredError):
        def backward(self, dout=1.0):
            return dout * self.error

    report = check_layer(Forgets(), rng.standard_normal((4, 3)), rng.standard_normal((4, 3)))
    assert report.verdict == "FAIL"


X = jnp.ones((2, 3, 5, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxnet.nn.dropout(1.0), r"rate: 1.0, expected a share in \[0, 1\)"),
        (lambda: jaxnet.nn.batch_norm(0), "size: 0, expected a whole number of at least 1"),
        (lambda: jaxnet.nn.batch_norm(3, momentum=1.0), "momentum, eps: 1.0"),
        (lambda: jaxnet.nn.layer_norm(3, eps=0), "eps: 0, expected a number > 0"),
        (lambda: jaxnet.nn.convolution(0, 1, 3), "in_channels: 0"),
        (lambda: jaxnet.nn.convolution(1, 1, 3, stride=0), "stride: 0"),
        (lambda: jaxnet.nn.convolution(1, 1, 3, padding=-1), "padding: -1, expected a whole number of at least 0"),
        (lambda: jaxnet.nn.convolution(1, 1, 2.5), "size: 2.5"),
        (lambda: jaxnet.nn.max_pool(2, padding=2), "padding: 2, expected less than the size, 2"),
        (lambda: jaxnet.nn.average_pool(2, stride=0), "stride: 0"),
        (lambda: jaxnet.nn.embedding(0, 3), "vocabulary: 0"),
        (lambda: jaxnet.nn.positional_embedding(0, 3), "length: 0"),
        (lambda: jaxnet.nn.attention(6, 4), "heads: 4, expected a divisor of the size, 6"),
        (lambda: jaxnet.nn.affine(2, 2).infer({}, {}, jnp.ones((2, 2), int)), "x: int32, expected floats"),
        (lambda: jaxnet.nn.batch_norm(4).train({}, {}, X, {}), r"x: shape \(2, 3, 5, 5\), expected \(N, 4\)"),
        (lambda: jaxnet.nn.batch_norm(4).infer({}, {}, X), r"expected \(N, 4\) or \(N, 4, H, W\)"),
        (lambda: jaxnet.nn.layer_norm(4).infer({}, {}, X), r"expected \(N, ..., 4\)"),
        (lambda: jaxnet.nn.convolution(4, 1, 3).infer({}, {}, X), r"x: .*expected \(N, 4, H, W\)"),
        (lambda: jaxnet.nn.convolution(3, 1, 7).infer({}, {}, X), "H and W at least 7"),
        (lambda: jaxnet.nn.max_pool(7, padding=0).infer({}, {}, X), "H and W at least 7"),
        (lambda: jaxnet.nn.average_pool(2).infer({}, {}, X[0]), r"x: shape \(3, 5, 5\)"),
        (lambda: jaxnet.nn.embedding(5, 3).infer({}, {}, jnp.ones((2, 2))), "x: float32 .*expected integers"),
        (lambda: jaxnet.nn.positional_embedding(2, 5).infer({}, {}, X[0]), "with T up to 2"),
        (lambda: jaxnet.nn.attention(6, 2).infer({}, {}, X[0]), r"expected \(N, T, 6\)"),
        (
            lambda: jaxnet.nn.residual({"Flatten": jaxnet.nn.flatten()}).infer({}, {}, X),
            r"layers: their output has shape \(2, 75\)",
        ),
        (lambda: jaxnet.mean_squared_error(jnp.ones((2, 3)), jnp.ones((3, 3))), "t: "),
    ],
)
def test_invalid_arguments_are_refused_by_name_in_jax(call, message):
    with pytest.raises(ValueError, match=message):
        call()


x = np.ones((2, 3, 5, 5))
D4 = np.ones(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: numpy_ref.Dropout(-0.1), "rate: -0.1"),
        (lambda: numpy_ref.Dropout(0.5).forward(x), r"mask: shape \(\), expected \(2, 3, 5, 5\)"),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, np.ones(3)), "gamma, beta, mean, var: shapes"),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, D4).forward(x), r"expected \(N, 4\) or"),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, D4).infer(x), r"expected \(N, 4\) or"),
        (lambda: numpy_ref.LayerNorm(D4, np.ones(3)), "gamma, beta"),
        (lambda: numpy_ref.LayerNorm(D4, D4).forward(x), r"expected \(N, ..., 4\)"),
        (lambda: numpy_ref.Convolution(np.ones((2, 3, 2, 3)), np.ones(2)), r"W, b: shapes .*expected \(F, C, K, K\)"),
        (lambda: numpy_ref.Convolution(np.ones((2, 4, 3, 3)), np.ones(2)).forward(x), r"expected \(N, 4, H, W\)"),
        (lambda: numpy_ref.Convolution(np.ones((2, 3, 7, 7)), np.ones(2)).forward(x), "H and W at least 7"),
        (lambda: numpy_ref.Convolution(np.ones((2, 3, 3, 3)), np.ones(2), stride=0), "size, stride, padding: 3, 0, 0"),
        (lambda: numpy_ref.MaxPool(2, 2, 2), "padding: 2, expected less than"),
        (lambda: numpy_ref.AveragePool(7, 1).forward(x), "H and W at least 7"),
        (lambda: numpy_ref.Embedding(D4), r"E: shape \(4,\)"),
        (lambda: numpy_ref.Embedding(np.ones((4, 2))).forward(np.array([[0, 4]])), "x: ids run from 0 to 4"),
        (lambda: numpy_ref.Embedding(np.ones((4, 2))).forward(np.ones((2, 2))), "x: float64"),
        (lambda: numpy_ref.PositionalEmbedding(np.ones((2, 5))).forward(x[0]), "T up to 2"),
        (lambda: numpy_ref.PositionalEmbedding(D4), "P: shape"),
        (lambda: numpy_ref.Attention(*[np.ones((4, 4))] * 3, np.ones((4, 3)), heads=2), "Wq, Wk, Wv, Wo"),
        (lambda: numpy_ref.Attention(*[np.ones((4, 4))] * 4, heads=3), "heads: 3"),
        (lambda: numpy_ref.Attention(*[np.ones((4, 4))] * 4, heads=2).forward(x), r"expected \(N, T, 4\)"),
        (lambda: numpy_ref.MeanSquaredError().forward(np.ones((2, 3)), np.ones((3, 3))), "t: "),
        (lambda: numpy_ref.Network({}, weight_decay=-1), "weight_decay: -1"),
        (
            lambda: numpy_ref.build_layers(
                ("Sequential", (("N", ("BatchNorm", 4, 0.9, 1e-5)),)),
                {"N": {"gamma": D4, "beta": D4}},
                {"N": {"mean": np.ones(3)}},
            ),
            r"\['N'\]\['mean'\]: shape \(3,\), expected \(4,\)",
        ),
    ],
)
def test_invalid_arguments_are_refused_by_name_in_numpy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("place", range(4))
def test_max_pooling_returns_nan_for_a_window_with_nan(place):
    """Otherwise a network would continue to train on broken samples without any sign of it."""
    x = np.arange(4.0, dtype=np.float32)
    x[place] = np.nan
    x = x.reshape(1, 1, 2, 2)
    assert np.isnan(jaxnet.nn.max_pool(2).infer({}, {}, jnp.asarray(x))).all()
    assert np.isnan(numpy_ref.MaxPool(2, 2).forward(x)).all()


NARROWED = {"A": numpy_ref.Affine(np.ones((4, 1)), np.zeros(1))}  # the output, (N, 1), would broadcast to (N, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: numpy_ref.Residual(NARROWED).forward(np.ones((3, 4))),
            r"layers: their output has shape \(3, 1\), expected that of their input, \(3, 4\)",
        ),
        (lambda: numpy_ref.Residual(NARROWED).infer(np.ones((3, 4))), r"layers: their output has shape \(3, 1\)"),
        (
            lambda: numpy_ref.BatchNorm(D4, D4, D4, D4, momentum=5),
            r"momentum, eps: 5, 1e-05, expected a share in \[0, 1\) and a number > 0",
        ),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, D4, momentum=1.0), "momentum, eps: 1.0, 1e-05"),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, D4, momentum=-0.1), "momentum, eps: -0.1"),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, D4, eps=-1), "momentum, eps: 0.9, -1"),
        (lambda: numpy_ref.BatchNorm(D4, D4, D4, D4, eps=np.nan), "momentum, eps: 0.9, nan"),
        (lambda: numpy_ref.LayerNorm(D4, D4, eps=0), "eps: 0, expected a number > 0"),
        (lambda: numpy_ref.LayerNorm(D4, D4, eps=np.nan), "eps: nan, expected a number > 0"),
        (lambda: numpy_ref.AveragePool(2, 2, 2), "padding: 2, expected less than the size, 2"),
        (lambda: numpy_ref.MaxPool(0, 1), "size, stride, padding: 0, 1, 0, expected at least 1, 1 and 0"),
    ],
)
def test_numpy_layers_refuse_what_jax_layers_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "kind", [layer for layer in numpy_ref.networks.LAYERS.values() if layer.__init__ is not object.__init__]
)
def test_docstrings_of_layers_with_arguments_say_when_they_raise(kind):
    assert "\n    Raises:\n        ValueError: " in kind.__doc__
