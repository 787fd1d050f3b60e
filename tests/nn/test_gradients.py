"""Tests that analytic, autodiff and numerical gradients agree, and that a wrong gradient is detected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import away_from_kinks, hand_built, random_params, sampled

import jaxnet
import numpy_ref
from jaxnet.crosscheck import check_layer, check_network
from jaxnet.nn.tree_paths import leaves_by_path

EPS = np.finfo(np.float64).eps

NETWORKS = {
    "one hidden unit": jaxnet.two_layer_net(3, 1, 2),
    "book": jaxnet.two_layer_net(7, 5, 4),
    "notebook": jaxnet.notebook_net(7, 5, 4),
    "wide": jaxnet.two_layer_net(64, 50, 10),
    "deep, tanh": jaxnet.multi_layer_net(6, [5, 4, 3], 4, "tanh"),
    "deep, sigmoid": jaxnet.multi_layer_net(6, [5, 4], 3, "sigmoid"),
    "linear": jaxnet.multi_layer_net(6, [], 3),
}
BATCHES = [1, 2, 9]
CASES = [pytest.param(n, np.float64, id=f"{n}-float64", marks=pytest.mark.slow) for n in BATCHES]
CASES += [pytest.param(9, np.float32, id="9-float32")]


def batch(rng, net, samples, dtype=np.float64):
    layers = dict(net.description[1])
    features, classes = layers["Affine1"][1], [d for d in layers.values() if d[0] == "Affine"][-1][2]
    return rng.standard_normal((samples, features)).astype(dtype), rng.integers(0, classes, samples)


def affine(params, x):
    return x @ params["W"] + params["b"]


LAYERS = {
    "Affine": (lambda rng: numpy_ref.Affine(rng.standard_normal((4, 3)), rng.standard_normal(3)), affine),
    "ReLU": (lambda rng: numpy_ref.ReLU(), jax.nn.relu),
    "Sigmoid": (lambda rng: numpy_ref.Sigmoid(), jax.nn.sigmoid),
    "Tanh": (lambda rng: numpy_ref.Tanh(), jnp.tanh),
}


@pytest.mark.parametrize(("samples", "dtype"), CASES)
@pytest.mark.parametrize("name", sampled(NETWORKS, every=8))
def test_three_derivations_of_every_leaf_of_a_network_agree(rng, name, samples, dtype):
    net = NETWORKS[name]
    hand = hand_built(net, random_params(net, dtype=dtype))
    report = check_network(hand, *batch(rng, net, samples, dtype), reference=lambda p, x, t: jaxnet.loss(net, p, x, t))
    report.raise_if_failed()
    assert {leaf.name for leaf in report.leaves} == set(leaves_by_path(hand.params))


@pytest.mark.parametrize("name", NETWORKS)
def test_analytic_and_autodiff_gradients_agree_up_to_rounding(rng, x64, name):
    """Compares without the checker. Each element is a sum of at most n products, so both gradients have rounding
    errors of about sqrt(n) eps of the largest element (Higham and Mary 2019); the factor 10 covers the chain of
    layers. For n = 64 the bound is 2e-14."""
    net, params = NETWORKS[name], random_params(NETWORKS[name])
    x, t = batch(rng, net, 9)
    by_hand = leaves_by_path(hand_built(net, params).gradient(x, t))
    by_autodiff = leaves_by_path(
        jax.jit(jax.grad(lambda p: jaxnet.loss(net, p, jnp.asarray(x), jnp.asarray(t))))(params)
    )
    for leaf, gradient in by_autodiff.items():
        bound = 10 * np.sqrt(max(x.size, gradient.size)) * EPS * np.abs(gradient).max()
        np.testing.assert_allclose(by_hand[leaf], gradient, rtol=0, atol=bound, err_msg=leaf)


@pytest.mark.parametrize("name", ["book", "notebook", "deep, tanh"])
def test_analytic_and_numerical_gradients_agree_in_every_element(rng, name):
    """Compares without the checker. Central differences at h = cbrt(eps) = 6e-6 have a truncation error of
    h² |f'''| / 6, about 1e-11, and a rounding error of eps |f| / h, about 1e-10 for a loss near 2. No step of h
    crosses a kink."""
    net = NETWORKS[name]
    hand = hand_built(net, random_params(net))
    x, t = batch(rng, net, 3)
    numerical = leaves_by_path(hand.numerical_gradient(x, t))
    for leaf, gradient in leaves_by_path(hand.gradient(x, t)).items():
        np.testing.assert_allclose(gradient, numerical[leaf], rtol=0, atol=1e-9, err_msg=leaf)


def with_backward(layer, method):
    return type(f"Wrong{layer.__name__}", (layer,), {"backward": method})


def off_by_a_thousandth(self, dout):
    dx = numpy_ref.Affine.backward(self, dout)
    self.dW *= 1.001
    return dx


def bias_averaged(self, dout):
    dx = numpy_ref.Affine.backward(self, dout)
    self.db = dout.mean(axis=0)
    return dx


def one_element(self, dout):
    dx = numpy_ref.Affine.backward(self, dout)
    self.dW[2, 1] *= 1.0001
    return dx


PLANTED = {
    "dW off by 1.001": (with_backward(numpy_ref.Affine, off_by_a_thousandth), "W"),
    "db a mean": (with_backward(numpy_ref.Affine, bias_averaged), "b"),
    "dx without W": (
        with_backward(numpy_ref.Affine, lambda s, d: [numpy_ref.Affine.backward(s, d), d @ s.W.T * 1.001][1]),
        "x",
    ),
    "one element of dW": (with_backward(numpy_ref.Affine, one_element), "W"),
    "no mask": (with_backward(numpy_ref.ReLU, lambda self, dout: dout), "x"),
    "y for y(1 - y)": (with_backward(numpy_ref.Sigmoid, lambda self, dout: dout * self.y), "x"),
    "1 - y": (with_backward(numpy_ref.Tanh, lambda self, dout: dout * (1 - self.y)), "x"),
}


@pytest.mark.parametrize(
    "with_reference", [pytest.param(True, marks=pytest.mark.slow), False], ids=["reference", "alone"]
)
@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_gradient_of_a_layer_is_detected_in_its_leaf(rng, name, with_reference):
    wrong, leaf = PLANTED[name]
    kind = wrong.__mro__[1].__name__
    make, reference = LAYERS[kind]
    layer = make(rng)
    layer.__class__ = wrong
    report = check_layer(layer, away_from_kinks(rng, (6, 4)), reference=reference if with_reference else None)
    assert [result.name for result in report.leaves if result.verdict == "FAIL"] == [leaf]
    with pytest.raises(AssertionError, match=rf"{leaf}\[.*the backward is not the derivative of its own forward"):
        report.raise_if_failed()
    if name == "one element of dW":
        assert next(result for result in report.leaves if result.name == "W").index == (2, 1)


def test_a_loss_gradient_without_division_by_the_batch_size_is_detected(rng):
    wrong = with_backward(numpy_ref.SoftmaxWithLoss, lambda self, dout=1.0: dout * (np.exp(self.log_y) - self.t))()
    report = check_layer(wrong, rng.standard_normal((4, 3)), np.array([0, 2, 1, 1]))
    assert report.verdict == "FAIL"


@pytest.mark.slow
def test_a_wrong_layer_of_a_network_is_detected_in_its_leaf(rng):
    net = NETWORKS["book"]
    hand = hand_built(net, random_params(net))
    hand.layers["Affine2"].__class__ = PLANTED["db a mean"][0]
    report = check_network(hand, *batch(rng, net, 3), reference=lambda p, x, t: jaxnet.loss(net, p, x, t))
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["Affine2.b"]


def test_right_gradients_of_two_different_functions_are_reported_as_such(rng):
    report = check_layer(numpy_ref.Tanh(), rng.standard_normal((3, 4)), reference=jax.nn.sigmoid)
    assert report.verdict == "FAIL"
    assert "the forwards are different functions" in report.text(width=None)


@pytest.mark.slow
def test_a_wrong_reference_is_reported_as_wrong(rng):
    def detached(x):
        return jnp.tanh(x) * jax.lax.stop_gradient(x)

    class TimesTanh:
        def forward(self, x):
            self.x = x
            return np.tanh(x) * x

        def backward(self, dout):
            return dout * (np.tanh(self.x) + self.x * (1 - np.tanh(self.x) ** 2))

    report = check_layer(TimesTanh(), rng.standard_normal((3, 4)), reference=detached)
    assert "autodiff is wrong" in report.text(width=None)


@pytest.mark.slow
def test_a_check_does_not_change_the_network_or_its_inputs(rng):
    net = NETWORKS["book"]
    hand = hand_built(net, random_params(net))
    x, t = batch(rng, net, 3)
    before = {name: leaf.copy() for name, leaf in leaves_by_path(hand.params).items()}, x.copy()
    check_network(hand, x, t)
    np.testing.assert_equal((leaves_by_path(hand.params), x), before)


def test_the_same_seed_gives_the_same_report(rng):
    layer, x = numpy_ref.Tanh(), rng.standard_normal((3, 4))

    def report(seed):
        return {key: value for key, value in check_layer(layer, x, seed=seed).to_dict().items() if key != "seconds"}

    assert report(3) == report(3)
    assert report(3)["leaves"] != report(4)["leaves"]
