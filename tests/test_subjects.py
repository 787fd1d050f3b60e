"""What is brought to the cross-check: found under its names, refused with a reason, or left in doubt."""

import json

import jax
import numpy as np
import pytest

import jaxnet
import numpy_ref
from jaxnet.crosscheck import (
    Gap,
    Leaf,
    Report,
    SubjectError,
    check,
    check_function,
    check_layer,
    check_network,
    subject_of,
)
from jaxnet.crosscheck.subjects import NetworkSubject


def test_where_kinks_are_everywhere_the_certificate_is_of_the_point_that_was_judged():
    (leaf,) = check_layer(numpy_ref.ReLU(), np.zeros((20, 30))).leaves
    assert leaf.verdict == "PASS"
    assert leaf.gaps["hand - difference"].tolerance < 1e-6
    assert leaf.detects < 1e-5
    doubled = type(
        "Doubled", (numpy_ref.ReLU,), {"backward": lambda self, dout: 2 * numpy_ref.ReLU.backward(self, dout)}
    )
    (leaf,) = check_layer(doubled(), np.zeros((20, 30))).leaves
    assert "times 2" in leaf.diagnosis  # of the slopes beside the kinks; at them they are between two


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_where_kinks_are_everywhere_every_witness_is_heard_beside_them(dtype):
    x = np.zeros((20, 30), dtype)
    report = check_layer(numpy_ref.ReLU(), x, reference=jax.nn.relu)
    report.raise_if_failed()
    assert all(gap.tolerance < (1e-6 if dtype == np.float64 else 1e-2) for gap in report.leaves[0].gaps.values())

    @jax.custom_vjp
    def wrong(x):
        return jax.nn.relu(x)

    wrong.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, dout: (2 * dout * (x > 0),))
    assert "autodiff is wrong" in str(check_layer(numpy_ref.ReLU(), x, reference=wrong))


class Linear:
    """An Affine that leaves its gradients under other names, or none."""

    places = "dW", "db"

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return x @ np.asarray(self.W) + np.asarray(self.b)

    def backward(self, dout):
        for name, gradient in zip(self.places, (self.x.T @ dout, dout.sum(axis=0)), strict=True):
            if name:
                setattr(self, name, gradient)
        return dout @ np.asarray(self.W).T


def linear(dW="dW", db="db", **methods):
    rng = np.random.default_rng(0)
    kind = type("Linear", (Linear,), {"places": (dW, db)} | methods)
    return kind(rng.standard_normal((4, 3)), rng.standard_normal(3))


NO_ARRAYS = {
    "a list": (
        "W",
        np.ones((4, 3)).tolist(),
        "W: a list, expected an array of floats, since backward leaves a gradient beside it",
    ),
    "a tuple": (
        "b",
        (1.0, 2.0, 3.0),
        "b: a tuple, expected an array of floats, since backward leaves a gradient beside it",
    ),
    "integers": (
        "b",
        np.arange(3),
        "b: an array of int64, expected an array of floats, since backward leaves a gradient beside it",
    ),
    "a number": ("b", 0.5, "b: a float, expected an array of floats, since backward leaves a gradient beside it"),
}


@pytest.mark.parametrize("name", NO_ARRAYS)
def test_a_parameter_that_is_no_array_of_floats_is_refused(name):
    attribute, value, message = NO_ARRAYS[name]
    layer = linear()
    setattr(layer, attribute, value)
    with pytest.raises(SubjectError, match=message):
        check_layer(layer, (5, 4))


def test_a_number_beside_which_something_else_stands_is_none_of_this():
    layer = linear()
    layer.t, layer.dt, layer.h, layer.dh, layer.sizes, layer.dsizes = 0.5, 0.125, 64, None, [4, 3], None
    check_layer(layer, (5, 4)).raise_if_failed()


NAMES = ["d{}", "d_{}", "grad_{}", "{}_grad", "g{}", "g_{}", "grad{}", "{}grad", "delta_{}", "nabla_{}"]


@pytest.mark.parametrize("lower", [False, True], ids=["as it is", "in lower case"])
@pytest.mark.parametrize("form", NAMES)
def test_a_gradient_is_found_under_any_of_the_names_that_people_give_it(form, lower):
    places = [form.format("w" if lower else "W"), form.format("b")]
    report = check_layer(linear(*places), (5, 4))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["W", "b", "x"]

    def backward(self, dout):
        dx = Linear.backward(self, dout)
        of_W, of_b = self.places
        setattr(self, of_W, getattr(self, of_W) * 1.001)
        setattr(self, of_b, dout)
        return dx

    report = check_layer(linear(*places, backward=backward), (5, 4))
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {"W": "FAIL", "b": "FAIL", "x": "PASS"}
    assert "W: the backward is wrong; it equals the true gradient times 1.001" in str(report)
    assert "the gradient by b has shape (5, 3), expected (3,)" in str(report)


def test_what_is_returned_counts_and_not_what_is_left_beside_it():
    class Both:
        def forward(self, x):
            self.x = x
            return x**2

        def backward(self, dout):
            self.dx = 2 * self.x * dout
            return self.returned(self.dx)

    assert check_layer(type("Wrong", (Both,), {"returned": lambda self, dx: 1.5 * dx})(), (5, 4)).verdict == "FAIL"
    check_layer(type("Silent", (Both,), {"returned": lambda self, dx: None})(), (5, 4)).raise_if_failed()


def test_an_array_that_is_merely_called_like_a_gradient_is_not_one():
    class Gated:
        """A gate's own weights are called gW, and what is held is called as the input is, but for its case."""

        def __init__(self, W, gW, X):
            self.W, self.gW, self.X = W, gW, X

        def forward(self, x):
            self.x, self.open = x, 1 / (1 + np.exp(-x @ self.gW))
            self.linear = x @ self.W
            return self.linear * self.open + self.X

        def backward(self, dout):
            gate = dout * self.linear * self.open * (1 - self.open)
            self.dW, self.dgW = self.x.T @ (dout * self.open), self.x.T @ gate
            self.dx = dout * self.open @ self.W.T + gate @ self.gW.T
            return self.dx

    rng = np.random.default_rng(0)
    W, gW, X = (rng.standard_normal(shape) for shape in ((4, 3), (4, 3), (1, 3)))
    report = check_layer(Gated(W, gW, X), (5, 4))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["W", "gW", "x"]
    assert "X changes the output and has no dX beside it" in str(report)


def test_a_layer_none_of_whose_arrays_has_a_gradient_is_inconclusive():
    report = check_layer(linear(None, None), (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert [(leaf.name, leaf.verdict) for leaf in report.leaves] == [
        ("W", "INCONCLUSIVE"),
        ("b", "INCONCLUSIVE"),
        ("x", "PASS"),
    ]
    assert "W changes the output, and no array of the layer has a gradient beside it, a dW" in str(report)
    constant = linear(None, None)
    constant.params = []
    report = check_layer(constant, (5, 4))
    assert report.verdict == "PASS"
    assert "W changes the output and has no dW beside it" in str(report)
    wrong = linear(None, None, backward=lambda self, dout: 2 * dout @ self.W.T)
    assert check_layer(wrong, (5, 4)).verdict == "FAIL"


def test_a_layer_in_doubt_is_not_called_right_where_its_network_is_wrong():
    class Alone:
        """Its layer leaves no gradients; the network works them out by itself, and wrongly."""

        def __init__(self):
            self.layer = linear(None, None)
            self.params = {"W": self.layer.W, "b": self.layer.b}

        def loss(self, x, t):
            return 0.5 * ((self.layer.forward(x) - t) ** 2).sum()

        def gradient(self, x, t):
            dy = self.layer.forward(x) - t
            return {"W": 2 * x.T @ dy, "b": dy.sum(axis=0)}

    rng = np.random.default_rng(0)
    report = check_network(Alone(), rng.standard_normal((5, 4)), rng.standard_normal((5, 3)))
    assert report.layers[0].verdict == "INCONCLUSIVE"
    assert "W: the backward is wrong; it equals the true gradient times 2" in str(report)
    assert "right on its own" not in str(report)


def test_where_one_gradient_is_there_another_is_only_missed_aloud():
    report = check_layer(linear("dW", None), (5, 4))
    assert report.verdict == "PASS"
    assert "b changes the output and has no db beside it: a constant, or its gradient is missing" in str(report)
    assert "in any of these leaves is caught" in str(report)


class Net:
    """A network as people write it first: a dict of arrays, two formulas, no layers."""

    def __init__(self, **params):
        rng = np.random.default_rng(0)
        self.params = {
            "W1": rng.standard_normal((6, 5)),
            "b1": rng.standard_normal(5),
            "W2": rng.standard_normal((5, 3)),
            "b2": rng.standard_normal(3),
        } | params

    def passes(self, x, t):
        h = np.tanh(x @ self.params["W1"] + self.params["b1"])
        z = h @ np.asarray(self.params["W2"]) + self.params["b2"]
        log_y = z - z.max(axis=1, keepdims=True)
        log_y = log_y - np.log(np.exp(log_y).sum(axis=1, keepdims=True))
        return h, log_y

    def loss(self, x, t):
        return -self.passes(x, t)[1][np.arange(len(t)), t].mean()

    def gradient(self, x, t):
        h, log_y = self.passes(x, t)
        dz = np.exp(log_y)
        dz[np.arange(len(t)), t] -= 1
        dz /= self.divisor(x)
        dh = dz @ np.asarray(self.params["W2"]).T * (1 - h**2)
        return {"W1": x.T @ dh, "b1": dh.sum(axis=0), "W2": h.T @ dz, "b2": dz.sum(axis=0)}

    def divisor(self, x):
        return len(x)


def samples(n=7):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 6)), rng.integers(0, 3, n)


def test_a_networks_forgotten_division_by_the_batch_size_is_called_so():
    check_network(Net(), *samples()).raise_if_failed()
    forgotten = type("Forgotten", (Net,), {"divisor": lambda self, x: 1})()
    report = check_network(forgotten, *samples())
    assert report.verdict == "FAIL"
    for name in ("W1", "b1", "W2", "b2"):
        assert (
            f"{name}: the backward is wrong; it equals the true gradient times 7: 7, the batch size: a missing 1/N"
            in (str(report))
        )


def test_labels_that_are_not_one_for_each_sample_are_refused():
    x, t = samples(9)
    with pytest.raises(SubjectError, match="t: 8 labels, expected one for each of the 9 samples of x"):
        check_network(Net(), x, t[:8])


def test_samples_may_lie_along_another_axis_than_the_first():
    class Columns(Net):
        """x (D, N), as in courses; t (N,)."""

        def loss(self, x, t):
            return super().loss(x.T, t)

        def gradient(self, x, t):
            return super().gradient(x.T, t)

    x, t = samples(9)
    check_network(Columns(), x.T, t).raise_if_failed()


def test_a_leaf_that_the_gradient_lacks_is_a_wrong_gradient():
    def without(*names):
        lacking = lambda self, x, t: {k: g for k, g in Net.gradient(self, x, t).items() if k not in names}  # noqa: E731
        return type("Lacking", (Net,), {"gradient": lacking})()

    report = check_network(without("b1"), *samples())
    assert report.verdict == "FAIL"
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {
        "W1": "PASS",
        "b1": "FAIL",
        "W2": "PASS",
        "b2": "PASS",
    }
    assert "the gradient has no b1, expected an array of shape (5,)" in str(report)
    assert check_network(without("b1", "W2"), *samples()).verdict == "FAIL"
    with pytest.raises(
        SubjectError, match=r"Lacking\.gradient: has none of W1, b1, W2, b2, expected the tree of params"
    ):
        check_network(without("W1", "b1", "W2", "b2"), *samples())


@pytest.mark.parametrize(("name", "value"), [("W2", np.ones((5, 3)).tolist()), ("b2", np.arange(3))])
def test_a_networks_parameter_that_is_no_array_of_floats_is_refused(name, value):
    with pytest.raises(SubjectError, match=f"params: {name} is no array of floats, expected one"):
        check_network(Net(**{name: value}), *samples())


def test_a_loss_that_raises_is_said_to_be_the_networks():
    x, t = samples()
    with pytest.raises(SubjectError, match=r"Net.loss: raised IndexError"):
        check_network(Net(), x, t + 3)
    subject = NetworkSubject(Net(), x, t)
    subject.t = t + 3
    with pytest.raises(SubjectError, match=r"Net.loss: raised IndexError"):
        list(subject.layers())


CHECKS = {
    "check_layer": lambda **options: check_layer(Unrunnable(), (3, 4), **options),
    "check_network": lambda **options: check_network(Unrunnable(), (3, 4), (3,), **options),
    "check_function": lambda **options: check_function(Unrunnable(), (3, 4), **options),
    "check": lambda **options: check(Unrunnable(), (3, 4), **options),
}


class Unrunnable:
    """Whatever is asked of it is too early."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("option", [{"resolution": r} for r in (-1, 0, np.nan, np.inf, "1e-8")])
def test_a_resolution_that_is_none_is_refused_before_any_work(name, option):
    with pytest.raises(ValueError, match=f"^resolution: {option['resolution']!r}, expected a finite number > 0"):
        CHECKS[name](**option)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("seed", [-1, 0.5, None, "0"])
def test_a_seed_that_is_none_is_refused_before_any_work(name, seed):
    with pytest.raises(ValueError, match=f"^seed: {seed!r}, expected a whole number"):
        CHECKS[name](seed=seed)
    with pytest.raises(ValueError, match=f"^seed: {seed!r}, expected a whole number"):
        subject_of(Unrunnable(), (3, 4), seed=seed)


def test_a_gradient_that_is_no_function_is_refused():
    x = np.arange(3.0)
    with pytest.raises(SubjectError, match="gradient: a ndarray, expected a function of the same arguments"):
        check_function(lambda x: (x**2).sum(), x, gradient=2 * x)


def test_a_network_whose_loss_is_not_finite_is_inconclusive_and_says_so():
    """Its first layer passes, which says nothing of it: all of the network's leaves are unjudged."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: (1e30 * rng.standard_normal(shape)).astype(np.float32)  # noqa: E731
    description = jaxnet.two_layer_net(4, 3, 2).description
    params = {"Affine1": {"W": draw(4, 3), "b": draw(3)}, "Affine2": {"W": draw(3, 2), "b": draw(2)}}
    net = numpy_ref.Network(numpy_ref.build_layers(description, params))
    with np.errstate(all="ignore"):
        report = check_network(net, rng.random((5, 4), np.float32), np.array([0, 1, 1, 0, 1]))
    assert report.layers[0].verdict == "PASS"
    assert report.verdict == "INCONCLUSIVE"
    assert str(report).startswith("INCONCLUSIVE  Network")
    assert "the forward pass is not finite" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "INCONCLUSIVE"


@pytest.mark.parametrize("size", [1e200, 1e305])
def test_numbers_too_large_to_be_squared_are_neither_right_nor_wrong(size):
    rng = np.random.default_rng(0)
    layer = numpy_ref.Affine(size * rng.standard_normal((4, 3)), rng.standard_normal(3))
    report = check_layer(layer, (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert "W: its numbers and the output's are too large to be squared" in str(report)


def test_a_leaf_that_was_not_compared_has_empty_cells():
    wide = linear(backward=lambda self, dout: [Linear.backward(self, dout), setattr(self, "db", dout)][0])
    rows = {line.split()[0]: line for line in str(check_layer(wide, (5, 4))).splitlines() if line.startswith("  ")}
    assert rows["b"] == "  b  FAIL"
    assert rows["W"].endswith("]")


def test_the_verdict_is_of_the_leaves_and_of_whatever_fails():
    good, unsure = (Leaf("W", verdict, "", (0,), {}, {}) for verdict in ("PASS", "INCONCLUSIVE"))
    passing, failing = Report("a", None, (good,)), Report("b", None, (), ("a fault",))
    inconclusive = Report("c", None, (unsure,))
    assert Report("net", None, (good,), layers=(passing, inconclusive)).verdict == "PASS"
    assert Report("net", None, (good,), layers=(passing, failing)).verdict == "FAIL"
    assert Report("net", None, (good, unsure), layers=(passing,)).verdict == "INCONCLUSIVE"
    assert Report("net", None, (), layers=(passing,)).verdict == "INCONCLUSIVE"
    assert Report("net", Gap(2.0, 1.0), (good,)).verdict == "FAIL"
