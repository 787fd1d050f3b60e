"""Tests the detectable error, the location, the cost and the notes of a report."""

import json

import jax
import numpy as np
import pytest
from conftest import hand_built, random_params, sampled

import jaxnet
import numpy_ref
from jaxnet.crosscheck import (
    InconclusiveWarning,
    check,
    check_function,
    check_layer,
    check_network,
    inspected,
)
from jaxnet.crosscheck.measure.step_sweep import step_errors
from jaxnet.crosscheck.report import PROBABILITY
from jaxnet.crosscheck.streams import Stream, stream


class Planted(numpy_ref.Affine):
    """An Affine whose dW is multiplied by a factor for each element."""

    factor = 1.0

    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.dW * self.factor
        return dx


@pytest.mark.exhaustive
def test_the_certificate_holds_for_hundreds_of_planted_errors():
    """Plants errors of the norm that is caught with probability 0.99, in random directions."""
    rng = np.random.default_rng(0)
    W, x = rng.standard_normal((3, 4)), rng.standard_normal((2, 3))

    def claimed_and_caught(factor, seed):
        product = (lambda W: (x @ W, None), lambda dout, _: x.T @ dout * factor)
        (leaf,) = check_layer(product, W, seed=seed).leaves
        return leaf.min_detectable_error, leaf.verdict == "FAIL"

    caught, trials = 0, 300
    for seed in range(trials):
        detects, _ = claimed_and_caught(1.0, seed)
        direction = rng.standard_normal(W.shape)
        dout = stream(Stream.DOUT, seed).standard_normal((2, 4))  # the dout of the checker
        error = detects * direction / np.linalg.norm(direction)
        caught += claimed_and_caught(1 + error / (x.T @ dout), seed)[1]
    assert caught >= PROBABILITY * trials


@pytest.mark.slow
def test_an_error_of_1e_4_in_one_of_39200_elements_is_found():
    net = numpy_ref.TwoLayerNet(784, 50, 10, seed=0)
    rng = np.random.default_rng(0)
    x, t = rng.random((3, 784)), rng.integers(0, 10, 3)
    truth = np.abs(net.gradient(x, t)["Affine1"]["W"])
    index = np.unravel_index(np.argsort(truth.ravel())[truth.size // 2], truth.shape)  # an element of median size
    factor = np.ones((784, 50))
    factor[index] = 1.0001
    net.layers["Affine1"].__class__ = Planted
    net.layers["Affine1"].factor = factor
    report = check_network(net, x, t)
    assert report.verdict == "FAIL"
    (failing,) = [leaf for leaf in report.leaves if leaf.verdict == "FAIL"]
    assert (failing.name, failing.index) == ("Affine1.W", tuple(int(i) for i in index))


@pytest.mark.slow
def test_a_detectable_error_in_single_precision_is_found():
    rng = np.random.default_rng(0)
    layer = Planted(*(rng.standard_normal(shape).astype(np.float32) for shape in ((6, 5), (5,))))
    x = rng.standard_normal((4, 6)).astype(np.float32)
    detects = next(leaf for leaf in check_layer(layer, x).leaves if leaf.name == "W").min_detectable_error
    layer.factor = np.float32(1) + np.zeros((6, 5), np.float32)
    layer.factor[2, 3] += np.float32(1e-4)
    report = check_layer(layer, x)
    failing = next(leaf for leaf in report.leaves if leaf.verdict == "FAIL")
    assert (failing.name, failing.index) == ("W", (2, 3))
    assert abs(failing.values["analytic"] - failing.values["numerical"]) > detects


@pytest.mark.slow
@pytest.mark.parametrize("wrong", sampled(range(1, 6), every=5))
def test_the_wrong_one_of_five_layers_is_named(wrong):
    net = jaxnet.multi_layer_net(6, [5, 7, 4, 6], 3, "tanh")
    hand = hand_built(net, random_params(net))
    layer = hand.layers[f"Affine{wrong}"]
    layer.__class__ = type(
        "Doubled", (numpy_ref.Affine,), {"backward": lambda self, dout: 2 * numpy_ref.Affine.backward(self, dout)}
    )
    rng = np.random.default_rng(0)
    report = check_network(hand, rng.standard_normal((4, 6)), rng.integers(0, 3, 4))
    assert [layer.subject for layer in report.layers if layer.verdict == "FAIL"] == [f"Affine{wrong}"]
    assert f"Affine{wrong} is wrong on its own" in report.text(width=None)
    assert "times 2" in report.text(width=None)
    for leaf in report.leaves:
        before = int(leaf.name[len("Affine")]) < wrong
        assert leaf.verdict == ("FAIL" if before else "PASS")
        assert not before or f"receives a wrong gradient from Affine{wrong}" in leaf.reason


@pytest.mark.slow
def test_correct_layers_that_are_joined_wrongly_are_reported():
    class Impatient(numpy_ref.Network):
        def value_and_gradient(self, x, t):
            loss = self.loss(x, t)
            dout = 3.0 * self.last.backward()
            self.body.backward(dout)
            return loss, self.body.grad_tree()

    net = jaxnet.two_layer_net(6, 5, 3)
    hand = hand_built(net, random_params(net))
    hand.__class__ = Impatient
    report = check_network(hand, np.random.default_rng(0).standard_normal((4, 6)), np.array([0, 1, 2, 0]))
    assert all(layer.verdict == "PASS" for layer in report.layers)
    assert "each layer is right on its own" in report.text(width=None)


@pytest.mark.parametrize("features", [20, 200, 2000])
def test_forward_passes_grow_with_leaves_not_with_parameters(features):
    """Checks up to 100,000 parameters; `scripts/scoreboard.py --growth` goes up to 10⁷."""
    calls = 0

    class Counting(numpy_ref.Affine):
        def forward(self, x):
            nonlocal calls
            calls += 1
            return super().forward(x)

    rng = np.random.default_rng(0)
    layer = Counting(rng.standard_normal((features, 50)), rng.standard_normal(50))
    check_layer(layer, rng.standard_normal((3, features))).raise_if_failed()
    assert calls < 160


@pytest.mark.slow
def test_a_report_is_plain_data_and_a_readable_failure():
    layer = Planted(np.eye(3) + 1.0, np.ones(3))
    layer.factor = 1.5
    report = check_layer(layer, np.random.default_rng(0).standard_normal((4, 3)))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["verdict"] == "FAIL"
    assert {leaf["name"]: leaf["verdict"] for leaf in data["leaves"]} == {"W": "FAIL", "b": "PASS", "x": "PASS"}
    assert set(data["leaves"][0]) >= {
        "name",
        "verdict",
        "cause",
        "reason",
        "relative_error",
        "relative_tolerance",
        "min_detectable_error",
        "index",
        "values",
        "gaps",
        "diagnosis",
    }
    with pytest.raises(AssertionError, match=r"^FAIL  Planted\n  W: the backward is wrong; [^\n]*\s+[^\n]* times 1.5"):
        report.raise_if_failed()


WARNED = {
    "gamma of ones": (lambda: check_layer(numpy_ref.Affine(np.ones((3, 2)), np.ones(2)), (4, 3)), "W is 1 everywhere"),
    "a batch of one": (lambda: check_layer(numpy_ref.Tanh(), (1, 5)), "a batch of one"),
    "a symmetric W": (lambda: check_layer(numpy_ref.Affine(np.eye(3), np.arange(3.0)), (4, 3)), "W is symmetric"),
    "one sign": (lambda: check_layer(numpy_ref.ReLU(), np.random.default_rng(0).random((4, 3))), "x is positive"),
}


@pytest.mark.parametrize("name", WARNED)
def test_inputs_that_hide_bugs_cause_warnings(name):
    make, text = WARNED[name]
    report = make()
    assert any(text in warning for warning in report.warnings)
    assert text in report.text(width=None)


def test_distinct_ids_and_disjoint_windows_are_reported():
    class Lookup:
        def __init__(self, W):
            self.W = W

        def forward(self, ids):
            self.ids = ids
            return self.W[ids]

        def backward(self, dout):
            self.dW = np.zeros_like(self.W)
            np.add.at(self.dW, self.ids, dout)

    class Mean:
        def __init__(self, pool_size, stride):
            self.pool_size, self.stride = pool_size, stride

        def forward(self, x):
            return x.reshape(len(x), -1, self.pool_size).mean(axis=2)

        def backward(self, dout):
            return np.repeat(dout / self.pool_size, self.pool_size, axis=1)

    W = np.random.default_rng(0).standard_normal((6, 3))
    assert "repeats no number" in check_layer(Lookup(W), np.array([0, 3, 5])).text(width=None)
    assert "repeats no number" not in check_layer(Lookup(W), np.array([0, 3, 3])).text(width=None)
    assert "do not overlap" in check_layer(Mean(2, 2), (3, 8)).text(width=None)


def test_inputs_are_drawn_where_shapes_are_given():
    rng = np.random.default_rng(0)
    layer = numpy_ref.Affine(rng.standard_normal((4, 3)), rng.standard_normal(3))
    check_layer(layer, (5, 4)).raise_if_failed()
    check_layer(numpy_ref.ReLU(), (5, 4)).raise_if_failed()
    check_layer(numpy_ref.SoftmaxWithLoss(), (5, 4), (5,)).raise_if_failed()
    check_layer(numpy_ref.SoftmaxWithLoss(), (5, 4), (5, 4)).raise_if_failed()
    x = inspected(numpy_ref.ReLU(), (50, 40)).leaves["x"]
    assert np.abs(x).min() >= 0.1
    assert x.min() < 0 < x.max()


def test_check_recognises_the_kind_of_its_argument():
    rng = np.random.default_rng(0)
    net = numpy_ref.TwoLayerNet(4, 3, 2)
    assert check(net, rng.random((3, 4)), np.array([0, 1, 1])).layers
    assert check(numpy_ref.Tanh(), (3, 4)).verdict == "PASS"
    assert check((lambda x: (x * 2, None), lambda dout, cache: dout * 2), (3, 4)).verdict == "PASS"
    assert check(jax.numpy.sin, (3, 4)).verdict == "PASS"


def test_a_resolution_that_differences_cannot_reach_is_inconclusive():
    report = check_layer(numpy_ref.Tanh(), (3, 4), resolution=1e-14)
    assert report.verdict == "INCONCLUSIVE"
    assert "cannot resolve errors below" in report.leaves[0].reason
    assert "resolution=" in report.leaves[0].reason  # the report suggests what to do
    with pytest.warns(InconclusiveWarning, match="^INCONCLUSIVE  Tanh"):
        report.raise_if_failed()


@pytest.mark.slow
def test_a_leaf_with_too_many_kinks_is_checked_nearby():
    x = np.zeros((40, 30))
    assert check_layer(numpy_ref.ReLU(), x).verdict == "PASS"
    wrong = type("NoMask", (numpy_ref.ReLU,), {"backward": lambda self, dout: 2 * dout})()
    assert check_layer(wrong, x).verdict == "FAIL"


# -- the mathematics


def test_step_errors_reach_rounding_unless_the_gradient_is_wrong():
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((4, 3)), rng.standard_normal(3)
    layer = Planted(W, b)
    layer.factor = 1.01
    errors = step_errors(inspected(layer, (5, 4)))
    assert errors["x"].floor < 1e-10
    assert errors["W"].floor > 1e-3
    tanh = step_errors(inspected(numpy_ref.Tanh(), (5, 4)))["x"]
    foot = int(tanh.error.argmin())
    assert 5 < foot < 35
    assert tanh.error[0] > 1e3 * tanh.error[foot]
    assert tanh.error[-1] > 1e3 * tanh.error[foot]


@pytest.mark.slow
def test_a_function_of_the_reference_kind_agrees_three_ways():
    report = check_function(
        np.tanh, (0.5 + np.arange(6.0)) / 6, gradient=lambda x, dout: dout / np.cosh(x) ** 2, reference=jax.numpy.tanh
    )
    report.raise_if_failed()
    assert set(report.leaves[0].gaps) == {"analytic - autodiff", "analytic - numerical", "autodiff - numerical"}


# -- correct code that must not fail


class Centre:
    """Subtracts a running mean, which every call updates."""

    params = ()

    def __init__(self):
        self.m = 0.0

    def forward(self, x):
        y = x - self.m
        self.m = 0.9 * self.m + 0.1 * x.mean(0)
        return y

    def backward(self, dout):
        return dout


class Recurrent:
    """A cell that starts from the state of its last call, and does not pass a gradient to that call."""

    def __init__(self, W, U):
        self.W, self.U, self.h = W, U, 0.0

    def forward(self, x):
        self.x, self.before = x, np.broadcast_to(self.h, (len(x), len(self.U)))
        self.h = np.tanh(x @ self.W + self.before @ self.U)
        return self.h

    def backward(self, dout):
        d = dout * (1 - self.h**2)
        self.dW, self.dU = self.x.T @ d, self.before.T @ d
        return d @ self.W.T


class Stuck(Recurrent):
    """Uses the state of its first call in the backward pass only."""

    def backward(self, dout):
        self.before = np.zeros_like(self.before)
        return super().backward(dout)


@pytest.mark.slow
def test_state_of_an_earlier_call_is_a_constant_in_the_next():
    rng = np.random.default_rng(0)
    W, U, x = rng.standard_normal((3, 4)), rng.standard_normal((4, 4)), rng.standard_normal((5, 3))
    check_layer(Centre(), x).raise_if_failed()
    check_layer(Recurrent(W, U), x).raise_if_failed()
    (fault,) = check_layer(Stuck(W, U), x).behaviour
    assert "earlier call" in fault
    assert "dU" in fault


class OwnMask:
    """A dropout that draws from its own generator."""

    params = ()
    by = 1.0

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        self.mask = self.rng.random(x.shape) > 0.5
        return x * self.mask / 0.5

    def backward(self, dout):
        return dout * self.mask / self.by


def test_a_wrong_gradient_is_not_also_attributed_to_an_earlier_call():
    right = OwnMask()
    right.by = 0.5
    x = np.random.default_rng(0).standard_normal((6, 5))
    check_layer(right, x).raise_if_failed()
    report = check_layer(OwnMask(), x)
    assert report.verdict == "FAIL"
    assert not report.behaviour


NEAR_ZERO = np.array([[1e-6, 1.0, 3.0], [2.0, 1.5, 1.0]])
NEAR_ONE = np.array([[0.999999, 0.1], [-0.3, 0.5]])
AT_THE_EDGE = {
    "log": (np.log, NEAR_ZERO, lambda x: 1 / x),
    "sqrt": (np.sqrt, NEAR_ZERO, lambda x: 0.5 / np.sqrt(x)),
    "power": (lambda x: x**1.5, NEAR_ZERO, lambda x: 1.5 * np.sqrt(x)),
    "arcsin": (np.arcsin, NEAR_ONE, lambda x: 1 / np.sqrt(1 - x**2)),
}
OUTSIDE = "steps leave the domain of the function: pass inputs further inside"


@pytest.mark.slow
@pytest.mark.parametrize("seed", sampled(range(20), every=20))
@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_near_the_edge_of_a_domain_a_correct_gradient_does_not_fail_and_a_wrong_one_fails(name, seed):
    f, x, slope = AT_THE_EDGE[name]
    report = check_function(f, x, gradient=lambda x, dout: dout * slope(x), seed=seed)
    assert report.verdict == "PASS" or OUTSIDE in report.leaves[0].reason
    wrong = check_function(f, x, gradient=lambda x, dout: 1.01 * dout * slope(x), seed=seed)
    assert wrong.verdict == "FAIL"


@pytest.mark.parametrize("seed", sampled(range(40), every=20))
def test_a_correct_gradient_of_a_steep_function_does_not_fail(seed):
    x = np.random.default_rng(seed).uniform(-0.5, 2, (3, 4))
    x[1, 2] = -0.9999
    report = check_function(np.log1p, x, gradient=lambda x, dout: dout / (1 + x), seed=seed)
    assert report.verdict != "FAIL"


def test_the_step_shrinks_until_it_stays_in_the_domain():
    f, x, slope = AT_THE_EDGE["log"]
    check_function(f, x, gradient=lambda x, dout: dout * slope(x)).raise_if_failed()


def test_a_function_that_is_finite_at_only_one_point_is_inconclusive():
    at = np.array([0.5, 1.5])
    report = check_function(lambda x: np.where(x == at, x, np.nan), at, gradient=lambda x, dout: dout)
    assert report.verdict == "INCONCLUSIVE"
    assert OUTSIDE in report.leaves[0].reason


@pytest.mark.slow
def test_scalar_inputs_and_outputs_are_accepted():
    @jax.custom_vjp
    def scaled(x, a):
        return x * a

    def backward(residuals, g):
        x, a = residuals
        assert a.shape == ()
        return g * a, (g * x).sum()

    scaled.defvjp(lambda x, a: (x * a, (x, a)), backward)
    x = np.random.default_rng(0).standard_normal((2, 3))
    report = check_function(scaled, x, np.array(1.7))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["x", "a"]
    check_function(lambda a: np.abs(a), np.array(0.0), gradient=lambda a, dout: dout * np.sign(a)).raise_if_failed()
    wrong = check_function(lambda x, a: x * a, x, np.array(1.7), gradient=lambda x, a, g: (g * a, 2 * (g * x).sum()))
    assert [leaf.verdict for leaf in wrong.leaves] == ["PASS", "FAIL"]


# -- what a report says


def test_a_gradient_that_is_zero_at_the_inputs_is_checked_where_it_is_not():
    x = np.random.default_rng(0).standard_normal((4, 3))

    def report(factor):
        return check_function(
            lambda p, t: np.mean((p - t) ** 2), x, x.copy(), gradient=lambda p, t: factor * (p - t) / p.size
        )

    right = report(2.0)
    assert right.verdict == "PASS"
    assert "the gradient is zero at these inputs: judged with all leaves" in right.text(width=None)
    assert report(2.02).verdict == "FAIL"


def test_a_gradient_that_is_zero_at_every_point_is_reported_as_zero():
    x = np.random.default_rng(0).standard_normal((4, 3))
    report = check_function(lambda p: p - p, x, gradient=lambda p, dout: 0 * dout)
    assert report.verdict == "PASS"
    assert "zero at all inputs tried" in report.text(width=None)
    assert "is caught with probability" not in report.text(width=None)


def test_the_report_of_a_generator_outside_the_layer_suggests_a_remedy():
    rng = np.random.default_rng(0)

    class Dropout(OwnMask):
        def __init__(self):
            pass

        rng = property(lambda self: rng)

    report = check_layer(Dropout(), (4, 3))
    assert report.verdict == "INCONCLUSIVE"
    assert not report.behaviour
    assert "keep the generator in the layer, draw from np.random, or fix the mask" in report.text(width=None)


def adding_affine(factor=1.0):
    class Sums(numpy_ref.Affine):
        def backward(self, dout):
            before = self.dW
            dx = super().backward(dout)
            self.dW = factor * self.dW + before
            return dx

    rng = np.random.default_rng(0)
    layer = Sums(rng.standard_normal((3, 4)), rng.standard_normal(4))
    layer.dW = np.zeros((3, 4))
    return layer


@pytest.mark.slow
def test_an_accumulated_gradient_is_checked_by_its_increments():
    assert check_layer(adding_affine(), (5, 3)).verdict == "PASS"
    report = check_layer(adding_affine(1.01), (5, 3))
    assert report.verdict == "FAIL"
    assert "times 1.01" in report.text(width=None)


def test_an_accumulated_gradient_is_reported_in_a_note():
    report = check_layer(adding_affine(), (5, 3))
    assert any("accumulates" in note and "dW" in note for note in report.notes)


def test_row_is_singular_or_plural_in_a_diagnosis():
    x = np.random.default_rng(0).standard_normal((4, 3))

    def rows(*masked):
        mask = np.ones((4, 3))
        mask[list(masked)] = 0
        report = check_function(lambda x: x * mask, x, gradient=lambda x, dout: dout)
        return report.leaves[0].diagnosis.partition("a mask is missing: ")[2]

    assert rows(1).startswith("row 1 is not zero as it should be")
    assert rows(1, 2).startswith("rows 1, 2 are not zero as they should be")


@pytest.mark.slow
@pytest.mark.parametrize("seed", sampled((0, 26, 30, 131, 169, 296), every=6))
def test_elements_that_lost_nearly_all_digits_are_not_a_difference_from_autodiff(seed):
    """Where a softmax is nearly 1, dout - Σ dout y loses most digits, and small steps do not change it."""

    def forward(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        y = e / e.sum(axis=-1, keepdims=True)
        return y, y

    def backward(dout, y):
        return y * (dout - (dout * y).sum(axis=-1, keepdims=True))

    rng = np.random.default_rng(seed)
    x = 140 * rng.standard_normal((4, 5))
    x[0, :2] = 140, 140 - rng.uniform(18, 26)
    report = check_layer((forward, backward), x, reference=jax.nn.softmax, seed=seed)
    assert report.verdict != "FAIL"


def test_a_series_that_is_chosen_by_the_size_of_dout_is_linear_up_to_its_error():
    """Imitates `expm` of a block matrix that contains dout, which scales the matrix and the error of its series."""

    def backward(dout, x):
        return dout * np.cos(x) * (1 + 1e-12 * np.tanh(np.abs(dout).max()))

    assert check_layer((lambda x: (np.sin(x), x), backward), (4, 5)).verdict == "PASS"
