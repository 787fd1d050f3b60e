"""Every layer in both worlds, from one description: forward, every gradient, inference, manners, faults, refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import away_from_kinks, random_params

import jaxnet
import numpy_ref
from jaxnet.crosscheck import check_layer
from jaxnet.nn.tree_paths import flatten, unflatten

EPS = np.finfo(np.float64).eps
KEY = jax.random.key(5)

VECTORS, SEQUENCES, IMAGES = [(1, 6), (4, 6)], [(1, 1, 6), (1, 5, 6), (3, 4, 6)], [(1, 3, 7, 7), (2, 3, 6, 8)]
BLOCK = {"LayerNorm": jaxnet.layer_norm(6), "Affine": jaxnet.affine(6, 6), "Dropout": jaxnet.dropout(0.5)}

LAYERS = {
    "Affine": (jaxnet.affine(6, 4), VECTORS + SEQUENCES),
    "ReLU": (jaxnet.relu(), VECTORS),
    "Sigmoid": (jaxnet.sigmoid(), VECTORS),
    "Tanh": (jaxnet.tanh(), VECTORS),
    "GELU": (jaxnet.gelu(), VECTORS + SEQUENCES),
    "Flatten": (jaxnet.flatten(), VECTORS + IMAGES),
    "Dropout": (jaxnet.dropout(0.4), VECTORS + IMAGES),
    "Dropout of nothing": (jaxnet.dropout(0.0), VECTORS),
    "BatchNorm of vectors": (jaxnet.batch_norm(6), [*VECTORS, (9, 6)]),
    "BatchNorm of images": (jaxnet.batch_norm(3, 0.5, 1e-3), IMAGES),
    "LayerNorm": (jaxnet.layer_norm(6), VECTORS + SEQUENCES),
    "Convolution": (jaxnet.convolution(3, 4, 3), IMAGES),
    "Convolution, strides": (jaxnet.convolution(3, 2, 3, stride=2), IMAGES),
    "Convolution, padding": (jaxnet.convolution(3, 2, 5, padding=2), IMAGES),
    "Convolution, both": (jaxnet.convolution(3, 2, 4, stride=3, padding=1), IMAGES),
    "Convolution, 1 by 1": (jaxnet.convolution(3, 2, 1), IMAGES),
    "MaxPool": (jaxnet.max_pool(2), IMAGES),
    "MaxPool, overlapping": (jaxnet.max_pool(3, stride=2), IMAGES),
    "MaxPool, padding": (jaxnet.max_pool(3, stride=1, padding=1), IMAGES),
    "AveragePool": (jaxnet.average_pool(2), IMAGES),
    "AveragePool, overlapping": (jaxnet.average_pool(3, stride=2), IMAGES),
    "AveragePool, padding": (jaxnet.average_pool(3, stride=2, padding=2), IMAGES),
    "Embedding": (jaxnet.embedding(5, 3), [(1, 1), (2, 7)]),
    "Position": (jaxnet.position(5, 6), SEQUENCES),
    "Attention, one head": (jaxnet.attention(6, 1), SEQUENCES),
    "Attention, heads": (jaxnet.attention(6, 3), SEQUENCES),
    "Residual": (jaxnet.residual(BLOCK), VECTORS + SEQUENCES),
    "Sequential": (jaxnet.sequential(BLOCK | {"Nested": jaxnet.residual(BLOCK)}), VECTORS),
}
CASES = [pytest.param(name, shape, id=f"{name}-{shape}") for name, (_, shapes) in LAYERS.items() for shape in shapes]
LARGEST = [pytest.param(name, shapes[-1], id=name) for name, (_, shapes) in LAYERS.items()]


def an_input(rng, layer, shape, dtype=np.float64):
    if layer.description[0] == "Embedding":
        return rng.integers(0, layer.description[1], shape)  # 14 ids of 5: some come again
    return away_from_kinks(rng, shape).astype(dtype)


def both(name, shape, rng, dtype=np.float64):
    """The layer in JAX and by hand, at the same parameters, running statistics and draws; and an input."""
    layer = LAYERS[name][0]
    x, params = an_input(rng, layer, shape, dtype), random_params(layer, dtype=dtype)
    state = jax.tree.map(lambda leaf: rng.uniform(0.5, 2, leaf.shape).astype(dtype), layer.state)
    draws = jax.device_get(layer.draw(KEY, x))
    return layer, hand_built(layer, params, state, draws), (params, state, x, draws)


def hand_built(layer, params, state, draws):
    built = numpy_ref.build_layers(("Sequential", (("It", layer.description),)), {"It": params}, {"It": state})["It"]
    built.give(draws)
    return built


def assert_same(ours, theirs, terms, what):
    """As in test_gradients: sums of at most n products round by about sqrt(n) eps of the largest; 20 for a chain."""
    bound = 20 * np.sqrt(terms) * EPS * max(1, np.abs(theirs).max(initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound, err_msg=what)


def gradients(hand, dx):
    return {"x": dx} | flatten(hand.tree("parameters", "d"))


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_forward_and_every_gradient_are_autodiffs_to_rounding(rng, x64, name, shape):
    layer, hand, (params, state, x, draws) = both(name, shape, rng)

    @jax.jit
    def by_autodiff(params, x, dout):
        y, back, moved = jax.vjp(lambda params, x: layer.train(params, state, x, draws), params, x, has_aux=True)
        return (y, moved, *back(dout))

    y = hand.forward(x)
    dout = rng.standard_normal(y.shape)
    dx = hand.backward(dout)
    theirs, moved, dparams, dx_theirs = by_autodiff(params, jnp.asarray(x), dout)
    terms = max(x.size, y.size, *(leaf.size for leaf in jax.tree.leaves(params)), 1)
    assert_same(y, theirs, terms, "y")
    if dx_theirs.dtype != jax.dtypes.float0:  # ids have no gradient
        assert_same(dx, dx_theirs, terms, "dx")
    ours = flatten(hand.tree("parameters", "d"))
    assert ours.keys() == flatten(params).keys()
    for leaf, gradient in flatten(dparams).items():
        assert_same(ours[leaf], gradient, terms, leaf)
    statistics = flatten(hand.tree("statistics"))
    assert statistics.keys() == flatten(moved).keys()
    for leaf, statistic in flatten(moved).items():
        assert_same(statistics[leaf], statistic, terms, leaf)


@pytest.mark.parametrize(("name", "shape"), LARGEST)
def test_inference_is_the_same_and_leaves_training_alone(rng, x64, name, shape):
    layer, hand, (params, state, x, _) = both(name, shape, rng)
    y = hand.forward(x)
    dout = rng.standard_normal(y.shape)
    gradient, statistics = hand.backward(dout), flatten(hand.tree("statistics"))
    fresh = hand_built(layer, params, state, {})  # nothing drawn: inference wants nothing
    assert_same(fresh.infer(x), layer.infer(params, state, jnp.asarray(x)), x.size * 10, "y")
    hand.infer(x[:1])
    np.testing.assert_array_equal(hand.backward(dout), gradient)
    np.testing.assert_equal(flatten(hand.tree("statistics")), statistics)


def reference(layer, state, draws):
    """What `check_layer` takes for one: a function of (params, x), or of x alone."""
    has_params = bool(jax.eval_shape(layer.init, KEY, 1.0))
    forward = lambda params, x: layer.train(unflatten(params), state, x, draws)[0]  # noqa: E731
    return forward if has_params else partial(forward, {})


@pytest.mark.parametrize(("name", "shape"), LARGEST)
def test_every_leaf_agrees_three_ways(rng, name, shape):
    """From float32 arrays, which are checked in float64 as well."""
    layer, hand, (params, state, x, draws) = both(name, shape, rng, np.float32)
    report = check_layer(hand, x, reference=reference(layer, state, draws))
    report.raise_if_failed()
    expected = set(flatten(params))
    assert {leaf.name for leaf in report.leaves} == expected | ({"x"} if x.dtype == np.float32 else set())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "shape"), LARGEST)
def test_a_layer_has_manners(rng, name, shape, dtype):
    """It keeps the dtype, writes to nothing that it was given, and lends nothing that it still needs."""
    _, hand, (params, _, x, draws) = both(name, shape, rng, dtype)
    given = x.copy(), jax.tree.map(np.copy, params), jax.tree.map(np.copy, draws)
    held = flatten(hand.tree("parameters"))
    y = hand.forward(x)
    dout = rng.standard_normal(y.shape).astype(dtype)
    kept_dout = dout.copy()
    dx = hand.backward(dout)
    assert {a.dtype for a in (y, dx, *gradients(hand, dx).values(), *flatten(hand.tree("statistics")).values())} == {
        np.dtype(dtype)
    }
    assert hand.infer(x).dtype == dtype
    kept = {leaf: gradient.copy() for leaf, gradient in gradients(hand, dx).items()}
    y[...] = dx[...] = 7
    hand.infer(x)[...] = 7
    np.testing.assert_equal(gradients(hand, hand.backward(dout)), kept)
    np.testing.assert_equal((x, params, draws), given)
    np.testing.assert_equal(held, flatten(params))
    np.testing.assert_array_equal(dout, kept_dout)


def wrong(kind, method, name):
    return type(f"Wrong{kind.__name__}", (kind,), {name: method})


def spoiled(leaf, factor):
    """A backward whose gradient of one leaf is off."""

    def backward(self, dout):
        dx = type(self).__mro__[1].backward(self, dout)
        if leaf == "x":
            return dx * factor
        setattr(self, "d" + leaf, getattr(self, "d" + leaf) * factor)
        return dx

    return backward


def without_mean_and_var(self, dout):
    type(self).__mro__[1].backward(self, dout)
    gamma = self._along(self.gamma, dout) if hasattr(self, "_along") else self.gamma
    return dout * gamma / self.std


def repeated_ids_counted_once(self, dout):
    self.dE = np.zeros_like(self.E)
    self.dE[self.x] += dout
    return np.zeros(self.x.shape, dout.dtype)


def every_position_seen(self, x):
    saved, np.tri = np.tri, lambda T, dtype: np.ones((T, T), dtype)
    try:
        return numpy_ref.Attention.forward(self, x)
    finally:
        np.tri = saved


def first_to_last(self, dout):
    for layer in self.layers.values():
        dout = layer.backward(dout)
    return dout


def last_window_wins(self, dout):
    """Overlapping windows: the gradients of an element are overwritten, not added up."""
    dx, K, s = np.zeros(self.shape), self.size, self.stride
    for i, j in np.ndindex(dout.shape[2:]):
        at = dx[:, :, i * s : i * s + K, j * s : j * s + K].reshape(*dout.shape[:2], -1).copy()
        np.put_along_axis(at, self.largest[:, :, i, j], dout[:, :, i, j][..., None], axis=-1)
        dx[:, :, i * s : i * s + K, j * s : j * s + K] = at.reshape(*dout.shape[:2], K, K)
    return dx


FAULTS = {
    "Affine": [("dW off", spoiled("W", 1.001), "backward", "W")],
    "ReLU": [("no mask", lambda self, dout: dout, "backward", "x")],
    "Sigmoid": [("y for y(1 - y)", lambda self, dout: dout * self.y, "backward", "x")],
    "Tanh": [("1 - y", lambda self, dout: dout * (1 - self.y), "backward", "x")],
    "GELU": [("the gate alone", lambda self, dout: dout * (1 + self.tanh) / 2, "backward", "x")],
    "Flatten": [("a row turned", lambda self, dout: dout[:, ::-1].reshape(self.shape), "backward", "x")],
    "Dropout": [
        ("not inverted", lambda self, dout: np.where(self.mask, dout, 0), "backward", "x"),
        ("the other mask", lambda self, dout: np.where(self.mask, 0, dout / (1 - self.rate)), "backward", "x"),
    ],
    "BatchNorm of vectors": [
        ("statistics held constant", without_mean_and_var, "backward", "x"),
        ("dbeta a mean", spoiled("beta", 1 / 9), "backward", "beta"),
    ],
    "BatchNorm of images": [
        ("statistics held constant", without_mean_and_var, "backward", "x"),
        ("dgamma off", spoiled("gamma", 1.001), "backward", "gamma"),
    ],
    "LayerNorm": [("statistics held constant", without_mean_and_var, "backward", "x")],
    "Convolution": [
        ("dW off", spoiled("W", 1.001), "backward", "W"),
        ("db a mean", spoiled("b", 0.1), "backward", "b"),
    ],
    "Convolution, strides": [("dx off", spoiled("x", 1.001), "backward", "x")],
    "MaxPool": [("averaged", lambda self, dout: numpy_ref.AveragePool.backward(self, dout), "backward", "x")],
    "MaxPool, overlapping": [("last window wins", last_window_wins, "backward", "x")],
    "AveragePool": [("not divided", spoiled("x", 4), "backward", "x")],
    "Embedding": [("repeated ids counted once", repeated_ids_counted_once, "backward", "E")],
    "Position": [("dP a mean", spoiled("P", 1 / 3), "backward", "P")],
    "Attention, heads": [
        ("Wk off", spoiled("Wk", 1.001), "backward", "Wk"),
        ("dx off", spoiled("x", 0.999), "backward", "x"),
    ],
    "Residual": [("the shortcut forgotten", lambda s, dout: numpy_ref.Sequential.backward(s, dout), "backward", "x")],
    "Sequential": [("first to last", first_to_last, "backward", "x")],
}


@pytest.mark.parametrize(
    ("name", "fault"), [pytest.param(n, f, id=f"{n}: {f[0]}") for n, faults in FAULTS.items() for f in faults]
)
def test_a_planted_fault_is_caught_in_its_leaf(rng, name, fault):
    _, method, where, leaf = fault
    _, hand, (_, _, x, _) = both(name, LAYERS[name][1][-1], rng)
    hand.__class__ = wrong(type(hand), method, where)
    report = check_layer(hand, x)
    failed = {found.name for found in report.leaves if found.verdict == "FAIL"}
    assert leaf in failed if isinstance(hand, numpy_ref.Sequential) else failed == {leaf}


def test_every_kind_of_layer_has_been_seen_failing():
    assert {LAYERS[name][0].description[0] for name in FAULTS} == {layer.description[0] for layer, _ in LAYERS.values()}


def test_attention_that_sees_the_future_is_another_function(rng):
    layer, hand, (_, state, x, draws) = both("Attention, heads", (3, 4, 6), rng)
    hand.__class__ = wrong(numpy_ref.Attention, every_position_seen, "forward")
    report = check_layer(hand, x, reference=lambda params, x: layer.train(params, state, x, draws)[0])
    assert report.verdict == "FAIL"
    assert "the forwards are two functions" in str(report)


def test_no_position_sees_a_later_one(rng):
    _, hand, (_, _, x, _) = both("Attention, heads", (3, 4, 6), rng)
    before, changed = hand.forward(x), x.copy()
    changed[:, 2:] += 1
    np.testing.assert_array_equal(hand.forward(changed)[:, :2], before[:, :2])
    assert (hand.forward(changed)[:, 2:] != before[:, 2:]).all()


def test_attention_is_jaxs_own(rng, x64):
    """Whose softmax is float32 whatever it is given."""
    _, hand, (params, _, x, _) = both("Attention, heads", (3, 4, 6), rng)
    q, k, v = ((x @ params[W]).reshape(3, 4, 3, 2) for W in ("Wq", "Wk", "Wv"))
    theirs = jax.nn.dot_product_attention(*map(jnp.asarray, (q, k, v)), is_causal=True).reshape(3, 4, 6) @ params["Wo"]
    np.testing.assert_allclose(hand.forward(x), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 0), (3, 1, 1), (2, 1, 1)])
def test_among_equals_the_first_gets_the_gradient_in_both_worlds(size, stride, padding, x64):
    """A plateau, as after a ReLU; and XLA's own reduce_window decides the same."""
    layer, x = jaxnet.max_pool(size, stride, padding), np.zeros((1, 1, 6, 6))
    x[0, 0, 2:4, 2:4] = 1
    hand = hand_built(layer, {}, {}, {})
    dout = np.arange(1.0, 1 + hand.forward(x).size).reshape(hand.forward(x).shape)
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]

    def xlas(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, size, size), (1, 1, stride, stride), around)

    for forward in (lambda x: layer.infer({}, {}, x), xlas):
        y, back = jax.vjp(forward, jnp.asarray(x))
        np.testing.assert_array_equal(hand.forward(x), y)
        np.testing.assert_array_equal(hand.backward(dout), back(jnp.asarray(dout))[0])
    if (size, stride) == (2, 2):
        np.testing.assert_array_equal(np.argwhere(hand.backward(dout)[0, 0])[:3], [[0, 0], [0, 2], [0, 4]])


def test_a_convolution_of_known_numbers():
    x, W = np.arange(9.0).reshape(1, 1, 3, 3), np.array([[1.0, 0], [0, -1]]).reshape(1, 1, 2, 2)
    y = numpy_ref.Convolution(W, np.array([10.0])).forward(x)
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), 6.0))  # x[i, j] - x[i + 1, j + 1] = -4: correlation


CONVOLUTIONS = [name for name in LAYERS if name.startswith("Convolution")]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_laxs_own_which_devices_other_than_a_cpu_take(name, rng, x64, monkeypatch):
    layer, x = LAYERS[name][0], rng.standard_normal((2, 3, 6, 8))
    params = random_params(layer)

    def value_and_gradients():
        def square(params, x):
            return (layer.infer(params, {}, x) ** 2).sum()

        value, gradients = jax.value_and_grad(square, (0, 1))(params, x)
        return [value, *jax.tree.leaves(gradients)]

    here, chosen = value_and_gradients(), []
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, cpu, default: chosen.append(default) or default(*a))
    for ours, theirs in zip(here, value_and_gradients(), strict=True):
        assert_same(ours, theirs, 6 * 8 * 25, name)
    assert "conv_general_dilated" in str(jax.make_jaxpr(chosen[0])(x, params["W"]))


def test_gelu_is_near_x_times_the_normal_distribution():
    """Hendrycks and Gimpel's tanh form stays within 5e-4 of x Phi(x)."""
    from scipy.stats import norm

    x = np.linspace(-6, 6, 1001)
    error = np.abs(numpy_ref.GELU().forward(x) - x * norm.cdf(x)).max()
    assert 1e-4 < error < 5e-4


@pytest.mark.parametrize("shape", [(200, 300), (10, 4, 20, 30)])
def test_dropout_keeps_its_share_and_the_mean(shape):
    layer, x = jaxnet.dropout(0.3), np.ones(shape, np.float32)
    for mask in (layer.draw(KEY, x)["mask"], numpy_ref.Dropout(0.3).draw(np.random.default_rng(0), x)["mask"]):
        assert np.mean(mask) == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / x.size))
    y, _ = layer.train({}, {}, jnp.asarray(x), layer.draw(KEY, x))
    assert y.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(layer.infer({}, {}, x), x)


def test_batch_norm_in_training_gives_mean_0_and_variance_1_and_gathers_them(rng):
    hand = hand_built(jaxnet.batch_norm(6), {"gamma": np.ones(6), "beta": np.zeros(6)}, {}, {})
    x = 3 + 2 * rng.standard_normal((1000, 6))
    for _ in range(100):
        y = hand.forward(x)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=0), 1, atol=1e-4)  # eps / var
    np.testing.assert_allclose(hand.mean, x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(hand.infer(x), y, atol=1e-3)


def test_layers_with_draws_draw_apart(rng):
    layer = LAYERS["Sequential"][0]
    draws = layer.draw(KEY, np.zeros((50, 6)))
    assert set(flatten(draws)) == {"Dropout.mask", "Nested.Dropout.mask"}
    assert (draws["Dropout"]["mask"] != draws["Nested"]["Dropout"]["mask"]).any()
    hand = hand_built(layer, random_params(layer), {}, {})
    assert flatten(hand.draw(rng, np.zeros((50, 6)))).keys() == flatten(draws).keys()


@pytest.mark.parametrize("shape", [(1, 4), (5, 4), (2, 3, 4)])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("SoftmaxWithLoss", "numbers"),
        ("SoftmaxWithLoss", "one-hot"),
        ("MeanSquaredError", "numbers"),
        ("MeanSquaredError", "targets"),
    ],
)
def test_losses_agree_three_ways_by_position_too(rng, name, shape, labels):
    x, t = rng.standard_normal(shape), rng.integers(0, 4, shape[:-1])
    t = {"numbers": t, "one-hot": np.eye(4)[t], "targets": rng.standard_normal(shape)}[labels]
    theirs = {"SoftmaxWithLoss": jaxnet.softmax_cross_entropy, "MeanSquaredError": jaxnet.mean_squared_error}[name]
    check_layer(getattr(numpy_ref, name)(), x, t, reference=theirs).raise_if_failed()


def test_the_squared_error_of_known_numbers():
    x, t = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 0], [0, 4]])
    assert numpy_ref.MeanSquaredError().forward(x, t) == (4 + 9) / 2 / 2
    assert numpy_ref.MeanSquaredError().forward(x, np.array([1, 0])) == (1 + 1 + 4 + 16) / 2 / 2


def test_a_squared_error_that_forgets_the_batch_is_caught(rng):
    layer = wrong(numpy_ref.MeanSquaredError, lambda self, dout=1.0: dout * self.error, "backward")()
    report = check_layer(layer, rng.standard_normal((4, 3)), rng.standard_normal((4, 3)))
    assert report.verdict == "FAIL"


X = jnp.ones((2, 3, 5, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxnet.dropout(1.0), r"rate: 1.0, expected a share in \[0, 1\)"),
        (lambda: jaxnet.batch_norm(0), "size: 0, expected a whole number of at least 1"),
        (lambda: jaxnet.batch_norm(3, momentum=1.0), "momentum, eps: 1.0"),
        (lambda: jaxnet.layer_norm(3, eps=0), "eps: 0, expected a number > 0"),
        (lambda: jaxnet.convolution(0, 1, 3), "in_channels: 0"),
        (lambda: jaxnet.convolution(1, 1, 3, stride=0), "stride: 0"),
        (lambda: jaxnet.convolution(1, 1, 3, padding=-1), "padding: -1, expected a whole number of at least 0"),
        (lambda: jaxnet.convolution(1, 1, 2.5), "size: 2.5"),
        (lambda: jaxnet.max_pool(2, padding=2), "padding: 2, expected less than the size, 2"),
        (lambda: jaxnet.average_pool(2, stride=0), "stride: 0"),
        (lambda: jaxnet.embedding(0, 3), "vocabulary: 0"),
        (lambda: jaxnet.position(0, 3), "length: 0"),
        (lambda: jaxnet.attention(6, 4), "heads: 4, expected a divisor of the size, 6"),
        (lambda: jaxnet.affine(2, 2).infer({}, {}, jnp.ones((2, 2), int)), "x: int32, expected floats"),
        (lambda: jaxnet.batch_norm(4).train({}, {}, X, {}), r"x: shape \(2, 3, 5, 5\), expected \(N, 4\)"),
        (lambda: jaxnet.batch_norm(4).infer({}, {}, X), r"expected \(N, 4\) or \(N, 4, H, W\)"),
        (lambda: jaxnet.layer_norm(4).infer({}, {}, X), r"expected \(N, ..., 4\)"),
        (lambda: jaxnet.convolution(4, 1, 3).infer({}, {}, X), r"x: .*expected \(N, 4, H, W\)"),
        (lambda: jaxnet.convolution(3, 1, 7).infer({}, {}, X), "H and W at least 7"),
        (lambda: jaxnet.max_pool(7, padding=0).infer({}, {}, X), "H and W at least 7"),
        (lambda: jaxnet.average_pool(2).infer({}, {}, X[0]), r"x: shape \(3, 5, 5\)"),
        (lambda: jaxnet.embedding(5, 3).infer({}, {}, jnp.ones((2, 2))), "x: float32 .*expected integers"),
        (lambda: jaxnet.position(2, 5).infer({}, {}, X[0]), "with T up to 2"),
        (lambda: jaxnet.attention(6, 2).infer({}, {}, X[0]), r"expected \(N, T, 6\)"),
        (lambda: jaxnet.residual({"Flatten": jaxnet.flatten()}).infer({}, {}, X), r"layers: make \(2, 75\)"),
        (lambda: jaxnet.mean_squared_error(jnp.ones((2, 3)), jnp.ones((3, 3))), "t: "),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


x = np.ones((2, 3, 5, 5))
D4 = np.ones(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: numpy_ref.Dropout(-0.1), "rate: -0.1"),
        (lambda: numpy_ref.Dropout(0.5).forward(x), r"mask: \(\), expected \(2, 3, 5, 5\)"),
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
        (lambda: numpy_ref.Position(np.ones((2, 5))).forward(x[0]), "T up to 2"),
        (lambda: numpy_ref.Position(D4), "P: shape"),
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
def test_by_hand_too(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("where", range(4))
def test_a_nan_is_the_largest_of_its_window_in_both_worlds(where):
    """Else a network would train on, and nobody would see that its samples are broken."""
    x = np.arange(4.0, dtype=np.float32)
    x[where] = np.nan
    x = x.reshape(1, 1, 2, 2)
    assert np.isnan(jaxnet.max_pool(2).infer({}, {}, jnp.asarray(x))).all()
    assert np.isnan(numpy_ref.MaxPool(2, 2).forward(x)).all()


NARROWED = {"A": numpy_ref.Affine(np.ones((4, 1)), np.zeros(1))}  # its (N, 1) would broadcast to x's (N, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: numpy_ref.Residual(NARROWED).forward(np.ones((3, 4))),
            r"layers: make \(3, 1\) of \(3, 4\), expected the shape they were given, to add to it",
        ),
        (lambda: numpy_ref.Residual(NARROWED).infer(np.ones((3, 4))), r"layers: make \(3, 1\) of \(3, 4\)"),
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
def test_by_hand_as_in_jax(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "kind", [layer for layer, _ in numpy_ref.networks.LAYERS.values() if layer.__init__ is not object.__init__]
)
def test_a_layer_that_is_made_from_something_says_what_it_refuses(kind):
    assert "\n    Raises:\n        ValueError: " in kind.__doc__
