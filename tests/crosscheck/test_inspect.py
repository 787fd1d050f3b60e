"""Tests the inspection of layers, networks and functions: names of gradients, rejected code, inconclusive reports."""

import json

import jax
import numpy as np
import pytest
from conftest import sampled

import jaxnet
import numpy_ref
from jaxnet.crosscheck import (
    Cause,
    Gap,
    Leaf,
    Report,
    SubjectError,
    Verdict,
    check,
    check_function,
    check_layer,
    check_network,
    inspected,
)
from jaxnet.crosscheck.inspect.network import inspect_network


@pytest.mark.slow
def test_leaf_at_kinks_is_certified_at_the_nearby_point():
    (leaf,) = check_layer(numpy_ref.ReLU(), np.zeros((20, 30))).leaves
    assert leaf.verdict == "PASS"
    assert leaf.gaps["analytic - numerical"].tolerance < 1e-6
    assert leaf.min_detectable_error < 1e-5
    doubled = type(
        "Doubled", (numpy_ref.ReLU,), {"backward": lambda self, dout: 2 * numpy_ref.ReLU.backward(self, dout)}
    )
    (leaf,) = check_layer(doubled(), np.zeros((20, 30))).leaves
    assert "times 2" in leaf.diagnosis  # beside the kinks; at the kinks it is between two slopes


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_leaf_at_kinks_is_compared_with_the_reference_nearby(dtype):
    x = np.zeros((20, 30), dtype)
    report = check_layer(numpy_ref.ReLU(), x, reference=jax.nn.relu)
    report.raise_if_failed()
    assert all(gap.tolerance < (1e-6 if dtype == np.float64 else 1e-2) for gap in report.leaves[0].gaps.values())

    @jax.custom_vjp
    def wrong(x):
        return jax.nn.relu(x)

    wrong.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, dout: (2 * dout * (x > 0),))
    assert "autodiff is wrong" in check_layer(numpy_ref.ReLU(), x, reference=wrong).text(width=None)


class Linear:
    """An Affine that stores its gradients under other names, or not at all."""

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
        "W: a list, expected an array of floats, since backward stores a gradient for it",
    ),
    "a tuple": (
        "b",
        (1.0, 2.0, 3.0),
        "b: a tuple, expected an array of floats, since backward stores a gradient for it",
    ),
    "integers": (
        "b",
        np.arange(3),
        "b: an array of int64, expected an array of floats, since backward stores a gradient for it",
    ),
    "a number": (
        "b",
        0.5,
        r"b: a float, expected an array of floats, since backward stores a gradient of shape \(3,\)",
    ),
}


@pytest.mark.parametrize("name", NO_ARRAYS)
def test_parameter_of_a_wrong_type_is_rejected(name):
    attribute, value, message = NO_ARRAYS[name]
    layer = linear()
    setattr(layer, attribute, value)
    with pytest.raises(SubjectError, match=message):
        check_layer(layer, (5, 4))


def test_number_with_an_unrelated_d_name_is_accepted():
    layer = linear()
    layer.t, layer.dt, layer.h, layer.dh, layer.sizes, layer.dsizes = 0.5, 0.125, 64, None, [4, 3], None
    check_layer(layer, (5, 4)).raise_if_failed()


NAMES = ["d{}", "d_{}", "grad_{}", "{}_grad", "g{}", "g_{}", "grad{}", "{}grad", "delta_{}", "nabla_{}"]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "lower"), sampled([(form, lower) for form in NAMES for lower in (False, True)], 5))
def test_stored_gradients_are_found_under_common_names(form, lower):
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
    assert "W: the backward is wrong; it equals the true gradient times 1.001" in report.text(width=None)
    assert "the gradient for b has shape (5, 3), expected (3,)" in report.text(width=None)


def test_returned_gradient_takes_precedence_over_stored():
    class Both:
        def forward(self, x):
            self.x = x
            return x**2

        def backward(self, dout):
            self.dx = 2 * self.x * dout
            return self.returned(self.dx)

    assert check_layer(type("Wrong", (Both,), {"returned": lambda self, dx: 1.5 * dx})(), (5, 4)).verdict == "FAIL"
    check_layer(type("Silent", (Both,), {"returned": lambda self, dx: None})(), (5, 4)).raise_if_failed()


@pytest.mark.slow
def test_an_array_named_like_a_gradient_is_a_parameter_if_backward_does_not_set_it():
    class Gated:
        """Holds a gate's weights under gW, and an array whose name differs from the input's only by case."""

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
    report = check_layer(Gated(W, gW, X), (5, 4), constants=("X",))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["W", "gW", "x"]
    assert "X affects the output and has no gradient: it is treated as a constant" in report.warnings
    report = check_layer(Gated(W, gW, X), (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert [leaf.name for leaf in report.leaves if leaf.cause is Cause.NO_GRADIENT] == ["X"]


@pytest.mark.slow
def test_layer_without_any_gradient_is_inconclusive():
    report = check_layer(linear(None, None), (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {
        "W": "INCONCLUSIVE",
        "b": "INCONCLUSIVE",
        "x": "PASS",
    }
    assert "W affects the output, but no gradient was returned for it: is it missing" in report.text(width=None)
    assert "constants=('W',)" in report.text(width=None)  # the report suggests what to do
    constant = linear(None, None)
    constant.params = []
    report = check_layer(constant, (5, 4))
    assert report.verdict == "PASS"
    assert "W affects the output and has no gradient: it is treated as a constant" in report.text(width=None)
    wrong = linear(None, None, backward=lambda self, dout: 2 * dout @ self.W.T)
    assert check_layer(wrong, (5, 4)).verdict == "FAIL"


def test_an_inconclusive_layer_does_not_hide_a_wrong_network():
    class Alone:
        """A network that computes the gradients of its layer itself, and wrongly, because the layer stores none."""

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
    assert "W: the backward is wrong; it equals the true gradient times 2" in report.text(width=None)
    assert "right on its own" not in report.text(width=None)


def test_a_missing_gradient_makes_a_layer_inconclusive():
    report = check_layer(linear("dW", None), (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert {leaf.name: leaf.cause for leaf in report.leaves} == {
        "W": Cause.AGREES,
        "b": Cause.NO_GRADIENT,
        "x": Cause.AGREES,
    }
    assert "b affects the output, but no gradient was returned for it" in report.text(width=None)
    assert "is caught" not in report.text(width=None)


class Net:
    """A minimal network: a dict of arrays and two formulas, without layers."""

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


@pytest.mark.slow
def test_network_without_division_by_the_batch_size_is_diagnosed():
    check_network(Net(), *samples()).raise_if_failed()
    forgotten = type("Forgotten", (Net,), {"divisor": lambda self, x: 1})()
    report = check_network(forgotten, *samples())
    assert report.verdict == "FAIL"
    for name in ("W1", "b1", "W2", "b2"):
        assert (
            f"{name}: the backward is wrong; it equals the true gradient times 7: 7 (the batch size): a missing 1/N"
            in (report.text(width=None))
        )


def test_wrong_number_of_labels_is_rejected():
    x, t = samples(9)
    with pytest.raises(SubjectError, match="t: 8 labels, expected one for each of the 9 samples of x"):
        check_network(Net(), x, t[:8])


@pytest.mark.parametrize(
    ("x", "t", "rows"),
    [
        ((4, 9), (9,), lambda x: x.T),  # columns
        ((4, 9), (3, 9), lambda x: x.T),
        ((3, 3, 4), (9,), lambda x: x.reshape(9, 4)),  # positions of concatenated sequences
        ((3, 4, 3, 1), (9,), lambda x: x.transpose(0, 2, 3, 1).reshape(9, 4)),  # pixels, channels first
        ((4,), (3,), lambda x: x[None]),  # a single sample
    ],
)
def test_labels_of_columns_positions_and_pixels_are_accepted(x, t, rows):
    """A network whose loss is linear in x and does not use the form of t."""

    class LinearInX:
        def __init__(self):
            self.params = {"w": np.random.default_rng(0).standard_normal(4)}

        def loss(self, x, t):
            return float(np.sum(rows(x) @ self.params["w"]) * np.mean(t))

        def gradient(self, x, t):
            return {"w": rows(x).sum(axis=0) * np.mean(t)}

    rng = np.random.default_rng(1)
    check_network(LinearInX(), rng.standard_normal(x), rng.standard_normal(t)).raise_if_failed()


def test_leaf_without_an_entry_in_the_gradient_fails():
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
    assert "b1, expected an array of shape (5,)" in report.text(width=None)
    assert check_network(without("b1", "W2"), *samples()).verdict == "FAIL"
    with pytest.raises(
        SubjectError, match=r"Lacking\.gradient: has none of W1, b1, W2, b2, expected the tree of params"
    ):
        check_network(without("W1", "b1", "W2", "b2"), *samples())


@pytest.mark.parametrize(("name", "value"), [("W2", np.ones((5, 3)).tolist()), ("b2", np.arange(3))])
def test_network_parameter_of_a_wrong_type_is_rejected(name, value):
    with pytest.raises(SubjectError, match=f"params: {name} is not an array of floats, although it has a gradient"):
        check_network(Net(**{name: value}), *samples())


def test_exception_in_loss_names_the_network():
    x, t = samples()
    with pytest.raises(SubjectError, match=r"Net.loss: raised IndexError"):
        check_network(Net(), x, t + 3)
    network = inspect_network(Net(), x, t)
    network.t = t + 3
    with pytest.raises(SubjectError, match=r"Net.loss: raised IndexError"):
        list(network.layers())


CHECKS = {
    "check_layer": lambda **options: check_layer(Unrunnable(), (3, 4), **options),
    "check_network": lambda **options: check_network(Unrunnable(), (3, 4), (3,), **options),
    "check_function": lambda **options: check_function(Unrunnable(), (3, 4), **options),
    "check": lambda **options: check(Unrunnable(), (3, 4), **options),
}


class Unrunnable:
    """Raises at every call, because options must be checked before the code runs."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("option", [{"resolution": r} for r in (-1, 0, np.nan, np.inf, "1e-8")])
def test_invalid_resolution_is_rejected_before_the_code_runs(name, option):
    with pytest.raises(ValueError, match=f"^resolution: {option['resolution']!r}, expected a finite number > 0"):
        CHECKS[name](**option)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("seed", [-1, 0.5, None, "0"])
def test_invalid_seed_is_rejected_before_the_code_runs(name, seed):
    with pytest.raises(ValueError, match=f"^seed: {seed!r}, expected a whole number"):
        CHECKS[name](seed=seed)
    with pytest.raises(ValueError, match=f"^seed: {seed!r}, expected a whole number"):
        inspected(Unrunnable(), (3, 4), seed=seed)


def test_gradient_that_is_not_callable_is_rejected():
    x = np.arange(3.0)
    with pytest.raises(SubjectError, match="gradient: an ndarray, expected a function of the same arguments"):
        check_function(lambda x: (x**2).sum(), x, gradient=2 * x)


def test_network_with_a_loss_that_is_not_finite_is_inconclusive():
    """The report is INCONCLUSIVE although the first layer passes, because no leaf of the network is checked."""
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
    assert "the forward pass is not finite" in report.text(width=None)
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "INCONCLUSIVE"


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-300, 1e200, 1e300])
def test_gradients_whose_squares_overflow_are_compared(size):
    rng = np.random.default_rng(0)

    def report(factor):
        def backward(self, dout):
            dx = Linear.backward(self, dout)
            self.dW = factor * self.dW
            return dx

        layer = linear(backward=backward)
        layer.W, layer.b = size * rng.standard_normal((4, 3)), size * rng.standard_normal(3)
        return check_layer(layer, (5, 4))

    assert report(1.0).verdict == "PASS"
    wrong = report(1.01)
    assert [leaf.name for leaf in wrong.leaves if leaf.verdict == "FAIL"] == ["W"]
    assert "times 1.01" in wrong.text(width=None)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-17, 1e-100])
def test_the_gradient_of_a_tiny_leaf_is_not_taken_for_zero(size):
    wrong = linear(backward=lambda self, dout: [Linear.backward(self, dout), setattr(self, "dW", 17 * self.dW)][0])
    wrong.W = size * wrong.W
    report = check_layer(wrong, (5, 4))
    assert report.verdict != "PASS"
    assert "zero at all inputs tried" not in report.text(width=None)


def test_leaf_that_was_not_compared_is_reported_above_the_table():
    wide = linear(backward=lambda self, dout: [Linear.backward(self, dout), setattr(self, "db", dout)][0])
    report = check_layer(wide, (5, 4))
    above, _, table = str(report).partition("relative error")
    rows = {line.split()[0] for line in table.splitlines() if line.startswith("  ")}
    assert {"W", "b", "x"} <= rows
    assert "the gradient for b has shape (5, 3), expected (3,)" in above


def test_verdict_combines_leaves_layers_and_behaviour():
    good, unsure = Leaf("W", Verdict.PASS, Cause.AGREES), Leaf("W", Verdict.INCONCLUSIVE, Cause.UNRESOLVED)
    passing, failing = Report("a", None, (good,)), Report("b", None, (), ("a fault",))
    inconclusive = Report("c", None, (unsure,))
    assert Report("net", None, (good,), layers=(passing, inconclusive)).verdict == "PASS"
    assert Report("net", None, (good,), layers=(passing, failing)).verdict == "FAIL"
    assert Report("net", None, (good, unsure), layers=(passing,)).verdict == "INCONCLUSIVE"
    assert Report("net", None, (), layers=(passing,)).verdict == "INCONCLUSIVE"
    assert Report("net", None, (good,), undecided=("a reason",)).verdict == "INCONCLUSIVE"
    assert Report("net", Gap(2.0, 1.0), (good,)).verdict == "FAIL"


class P:
    """A parameter as in small frameworks: an array, and an accumulated gradient."""

    def __init__(self, data, where="data", grad=True, **attributes):
        vars(self).update({where: data} | attributes)
        self.where = where
        if grad:
            self.grad = np.zeros_like(data)

    @property
    def array(self):
        return getattr(self, self.where)


class Kept:
    """An Affine that stores its parameters and gradients at configurable places."""

    factor = 1.0

    def __init__(self, keep, get, leave):
        rng = np.random.default_rng(0)
        self.get, self.leave = get, leave
        keep(self, rng.standard_normal((4, 3)), rng.standard_normal(3))

    def forward(self, x):
        self.x = x
        W, b = self.get(self)
        return x @ W + b

    def backward(self, dout):
        self.leave(self, self.factor * self.x.T @ dout, dout.sum(axis=0))
        return dout @ self.get(self)[0].T


def _set(**attributes):
    return lambda self, *arrays: vars(self).update({k: make(*arrays) for k, make in attributes.items()})


def _add(self, W, b):
    self.W.grad += W
    self.b.grad += b


UNKNOWN = {
    "objects without grad": (
        _set(W=lambda W, b: P(W, grad=False), b=lambda W, b: P(b, grad=False)),
        lambda s: (s.W.array, s.b.array),
        lambda s, dW, db: None,
        ("W", "b"),
    ),
    "objects that are not recognised": (
        _set(W=lambda W, b: P(W, "array_", grad=False), b=lambda W, b: P(b, "array_", grad=False)),
        lambda s: (s.W.array, s.b.array),
        _set(g=lambda dW, db: [dW, db]),
        ("W.array_", "b.array_"),
    ),
    "dicts": (
        _set(p=lambda W, b: {"W": W, "b": b}),
        lambda s: list(s.p.values()),
        _set(memo=lambda dW, db: {"W": dW, "b": db}),
        ("p['W']", "p['b']"),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_parameters_without_a_known_gradient_name_are_inconclusive(name):
    *how, places = UNKNOWN[name]
    report = check_layer(Kept(*how), (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == dict.fromkeys(places, "INCONCLUSIVE") | {"x": "PASS"}
    assert f"{places[0]} affects the output, but no gradient was returned for it" in report.text(width=None)


def test_array_in_a_dict_without_a_gradient_is_reported():
    keep = _set(W=lambda W, b: W, rest=lambda W, b: {"b": b})
    layer = Kept(keep, lambda s: (s.W, s.rest["b"]), _set(dW=lambda dW, db: dW))
    report = check_layer(layer, (5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert [leaf.name for leaf in report.leaves if leaf.cause is Cause.NO_GRADIENT] == ["rest['b']"]
    report = check_layer(layer, (5, 4), constants=("rest['b']",))
    assert report.verdict == "PASS"
    assert "rest['b'] affects the output and has no gradient: it is treated as a constant" in report.warnings


def test_written_or_unused_arrays_are_not_parameters():
    class Cached:
        def __init__(self):
            self.cache, self.unused, self.itself = {}, [np.ones(3)], self

        def forward(self, x):
            self.cache = {"x": x, "all": [x]}
            return x**2

        def backward(self, dout):
            return 2 * self.cache["x"] * dout

    layer = Cached()
    layer.forward(np.ones((5, 4)))
    report = check_layer(layer, (5, 4))
    assert report.verdict == "PASS"
    assert not report.warnings


HELD = {
    "twin dicts": (
        _set(par=lambda W, b: {"w": W, "b": b}, gra=lambda W, b: {"w": None, "b": None}),
        lambda s: list(s.par.values()),
        lambda s, dW, db: s.gra.update(w=dW, b=db),
        ("par['w']", "par['b']"),
    ),
    "parameters and grads": (
        _set(parameters=lambda W, b: {"W": W, "b": b}),
        lambda s: list(s.parameters.values()),
        _set(grads=lambda dW, db: {"dW": dW, "db": db}),
        ("parameters['W']", "parameters['b']"),
    ),
    "data": (_set(W=lambda W, b: P(W), b=lambda W, b: P(b)), lambda s: (s.W.array, s.b.array), _add, ("W", "b")),
    "value": (
        _set(W=lambda W, b: P(W, "value"), b=lambda W, b: P(b, "value")),
        lambda s: (s.W.array, s.b.array),
        _add,
        ("W", "b"),
    ),
    "in params": (
        _set(params=lambda W, b: {"W": P(W), "b": P(b)}),
        lambda s: [p.array for p in s.params.values()],
        lambda s, dW, db: [vars(p).update(grad=g) for p, g in zip(s.params.values(), (dW, db), strict=True)],
        ("params['W']", "params['b']"),
    ),
    "beside an array": (
        _set(W=lambda W, b: W, b=lambda W, b: P(b)),
        lambda s: (s.W, s.b.array),
        lambda s, dW, db: [vars(s).update(dW=dW), vars(s.b).update(grad=db)],
        ("W", "b"),
    ),
}


class StoresUnderOtherNames(Kept):
    """A layer whose stored gradients have names that do not tell whose they are."""

    def __init__(self):
        super().__init__(_set(W=lambda W, b: W, b=lambda W, b: b), lambda s: (s.W, s.b), None)

    def backward(self, dout):
        self.first, self.second = self.factor * self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


def test_gradients_of_other_names_are_taken_if_their_numbers_agree():
    report = check_layer(StoresUnderOtherNames(), (5, 4))
    assert report.verdict == "PASS"
    assert [leaf.name for leaf in report.leaves] == ["W", "b", "x"]
    assert "first is the gradient of W: it has its shape, and agrees with it" in report.text(width=None)
    wrong = type("Wrong", (StoresUnderOtherNames,), {"factor": 1.01})
    report = check_layer(wrong(), (5, 4))
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {"W": "INCONCLUSIVE", "b": "PASS", "x": "PASS"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HELD)
def test_parameters_and_gradients_are_found_at_common_places(name):
    *how, places = HELD[name]
    report = check_layer(Kept(*how), (5, 4))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == [*places, "x"]
    wrong = type("Wrong", (Kept,), {"factor": 1.001})(*how)
    report = check_layer(wrong, (5, 4))
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == [places[0]]


@pytest.mark.slow
def test_accumulated_gradients_are_cleared_and_a_frozen_parameter_is_constant():
    keep, get, leave, _ = HELD["data"]
    layer = Kept(keep, get, leave)
    layer.W.grad += 1  # from the previous step
    check_layer(layer, (5, 4)).raise_if_failed()
    layer.b.requires_grad = False
    report = check_layer(layer, (5, 4))
    assert [leaf.name for leaf in report.leaves] == ["W", "x"]
    assert "b affects the output and has no gradient: it is treated as a constant" in report.warnings


class Product:
    """x * w, of two inputs."""

    returned = staticmethod(lambda dx, dw: {"x": dx, "dw": dw})

    def forward(self, x, w):
        self.x, self.w = x, w
        return x * w

    def backward(self, dout):
        return self.returned(dout * self.w, dout * self.x)


DICTS = {
    "plain names": lambda dx, dw: {"x": dx, "w": dw},
    "d-names in another order": lambda dx, dw: {"dw": dw, "dx": dx},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DICTS)
def test_a_backward_may_return_a_dict_by_the_names_of_the_inputs(name):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 4))

    def backward(dout, cache):
        x, w = cache
        return DICTS[name](dout * w, dout * x)

    def check_all(returned):
        yield check_layer(type("Layer", (Product,), {"returned": staticmethod(returned)})(), x, w)
        yield check_layer((lambda x, w: (x * w, (x, w)), lambda dout, cache: returned(*pair(dout, cache))), x, w)
        yield check_function(lambda x, w: x * w, x, w, gradient=lambda x, w, dout: returned(dout * w, dout * x))

    def pair(dout, cache):
        return dout * cache[1], dout * cache[0]

    for report in check_all(DICTS[name]):
        report.raise_if_failed()
        assert sorted(leaf.name for leaf in report.leaves) == ["w", "x"]
    for report in check_all(lambda dx, dw: DICTS[name](dx, 1.001 * dw)):
        assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["w"]


def test_backward_may_return_a_dict_of_inputs_and_parameters():
    def backward(self, dout):
        return {"dx": dout @ self.W.T, "dW": self.x.T @ dout, "db": dout.sum(axis=0)}

    report = check_layer(linear(None, None, backward=backward), (5, 4))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["W", "b", "x"]


def test_dict_with_unknown_names_is_rejected():
    other = type("Layer", (Product,), {"returned": staticmethod(lambda dx, dw: {"left": dx, "right": dw})})()
    expected = (
        "backward: returned a dict with the keys left, right, expected a gradient for each input, in this order: x, w"
    )
    with pytest.raises(SubjectError, match=expected):
        check_layer(other, (5, 4), (5, 4))


class Slotted:
    """An Affine without a __dict__."""

    __slots__ = ("W", "b", "dW", "db", "x")
    factor = 1.0

    def __init__(self, dtype):
        rng = np.random.default_rng(0)
        self.W, self.b = rng.standard_normal((4, 3)).astype(dtype), rng.standard_normal(3).astype(dtype)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_layer_may_hold_its_arrays_in_slots(dtype):
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(dtype)
    report = check_layer(Slotted(dtype), x)
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["W", "b", "x"]
    wrong = type("Wrong", (Slotted,), {"__slots__": (), "factor": 1.01})(dtype)
    assert check_layer(wrong, x).verdict == "FAIL"


GRADIENTS = {
    "dY first": lambda dY, x, w: (dY * w, dY * x),
    "grad first": lambda grad, x, w: (grad * w, grad * x),
    "ybar first": lambda ybar, x, w: (ybar * w, ybar * x),
    "delta last": lambda x, w, delta: (delta * w, delta * x),
    "v last": lambda x, w, v: (v * w, v * x),
    "other names, dout first": lambda dout, a, b: (dout * b, dout * a),
    "other names": lambda a, b, c: (c * b, c * a),
    "keyword": lambda x, w, *, dout: (dout * w, dout * x),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_dout_is_recognized_by_its_name(name):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 4))
    gradient = GRADIENTS[name]
    check_function(lambda x, w: x * w, x, w, gradient=gradient).raise_if_failed()


def test_argument_may_have_the_name_of_dout():
    rng = np.random.default_rng(0)
    g, x = rng.standard_normal((2, 5, 4))
    check_function(lambda g, x: g * x, g, x, gradient=lambda g, x, above: (above * x, above * g)).raise_if_failed()


x54 = np.random.default_rng(0).standard_normal((5, 4))


def test_cache_may_come_first_if_its_name_says_so():
    check_layer((lambda x: (x**2, x), lambda cache, dout: 2 * cache * dout), x54).raise_if_failed()

    class Methods:
        def forward(self, x):
            return x**2, x

        def backward(self, cache, dout):
            return 2 * cache * dout

    check_layer(Methods(), x54).raise_if_failed()


CALLS = {
    "a layer's": (
        lambda: check_layer(linear(backward=lambda self, mask, dout: dout), (5, 4)),
        r"Linear\.backward: takes \(mask, dout\), expected backward\(dout\)",
    ),
    "a layer's keyword": (
        lambda: check_layer(linear(backward=lambda self, *, dout: dout), (5, 4)),
        r"Linear\.backward: takes \(\*, dout\), expected backward\(dout\)",
    ),
    "a pair's": (
        lambda: check_layer((lambda x: (x**2, x), lambda dout: dout), x54),
        r"backward: takes \(dout\), expected backward\(dout, cache\)",
    ),
    "a gradient's": (
        lambda: check_function(lambda x: x**2, x54, gradient=lambda x, y, z, dout: dout),
        r"gradient: takes \(x, y, z, dout\), expected gradient\(x, dout\), or gradient\(x\) if f returns a scalar",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_backward_with_another_signature_is_rejected(name):
    call, message = CALLS[name]
    with pytest.raises(SubjectError, match=message):
        call()


def test_network_gradient_that_returns_none_is_rejected():
    silent = type("Silent", (Net,), {"gradient": lambda self, x, t: None})()
    with pytest.raises(SubjectError, match=r"Silent\.gradient: returned None, expected the tree of params"):
        check_network(silent, *samples())


@pytest.mark.parametrize("attribute", ["loss", "gradient"])
@pytest.mark.parametrize("run", [check, check_network])
def test_a_network_method_that_is_none_is_rejected(run, attribute):
    unfinished = type("Unfinished", (Net,), {attribute: None})()
    message = rf"network: Unfinished\.{attribute} is None, expected a method {attribute}\(x, t\)"
    with pytest.raises(SubjectError, match=message):
        run(unfinished, *samples())


@pytest.mark.slow
def test_gradients_may_have_d_names_in_a_dict():
    keep = _set(params=lambda W, b: {"W": W, "b": b})
    leave = _set(grads=lambda dW, db: {"dW": dW, "db": db})
    how = keep, lambda s: list(s.params.values()), leave
    check_layer(Kept(*how), (5, 4)).raise_if_failed()
    report = check_layer(type("Wrong", (Kept,), {"factor": 1.001})(*how), (5, 4))
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {
        "params['W']": "FAIL",
        "params['b']": "PASS",
        "x": "PASS",
    }

    def prefixed(form, factor=1.0):
        def gradient(self, x, t):
            return {form.format(k): factor * g for k, g in Net.gradient(self, x, t).items()}

        return type("Prefixed", (Net,), {"gradient": gradient})()

    check_network(prefixed("d{}"), *samples()).raise_if_failed()
    assert check_network(prefixed("d{}", 1.001), *samples()).verdict == "FAIL"
    with pytest.raises(SubjectError, match="has none of W1, b1, W2, b2, expected the tree of params; it has of_W1"):
        check_network(prefixed("of_{}"), *samples())


def test_a_backward_that_returns_more_gradients_than_there_are_arrays_is_rejected_with_a_hint():
    returning = linear(backward=lambda self, dout: (dout, self.W, self.b, self.b))
    with pytest.raises(
        SubjectError, match=r"returned 4 gradients for 1 input; store those of parameters in self\.dW, self\.db"
    ):
        check_layer(returning, (5, 4))


def test_functions_with_a_context_are_accepted():
    class Square:
        @staticmethod
        def forward(ctx, x):
            ctx.x = x
            return x**2

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.x * g

    for form in (Square, Square(), (Square.forward, Square.backward)):
        assert check(form, (5, 4)).verdict == "PASS"


def test_a_function_that_returns_its_value_and_its_gradient_is_accepted_without_another_gradient():
    def both(x):
        return (np.asarray(x) ** 2).sum(), 2 * np.asarray(x)

    advice = r"check_function\(lambda \.\.\.: f\(\.\.\.\)\[0\], \.\.\., gradient=lambda \.\.\.: f\(\.\.\.\)\[1\]\)"
    assert check(both, x54).verdict == "PASS"
    with pytest.raises(SubjectError, match=advice):
        check_function(both, x54, gradient=lambda x: 2 * x)

    class LossAndGrads:
        params: dict = {"W": x54}  # noqa: RUF012

        def loss(self, x, t):
            return 0.0, {}

    for run in (check, check_network):
        with pytest.raises(SubjectError, match=rf"LossAndGrads has no `gradient`.*{advice}"):
            run(LossAndGrads(), *samples())


def test_returned_dict_takes_precedence_over_attributes():
    class Square:
        def forward(self, x):
            self.x = x
            return x**2

        def backward(self, dout):
            self.dx = 2 * self.x * dout
            return {"dx": self.dx}

    layer = Square()
    layer.forward(np.ones((5, 4)))
    layer.backward(np.ones((5, 4)))
    report = check_layer(layer, (5, 4))
    report.raise_if_failed()
    assert [leaf.name for leaf in report.leaves] == ["x"]


def test_layer_with_a_loss_attribute_is_not_a_network():
    class HalfSquares:
        def __init__(self):
            self.params, self.grads, self.loss = [], [], None

        def forward(self, x):
            self.x, self.loss = x, 0.5 * (x**2).sum()
            return self.loss

        def backward(self, dout=1):
            return dout * self.x

    check(HalfSquares(), (5, 4)).raise_if_failed()


def closing_over_W(W):
    """Returns a layer as two functions, without a gradient for W."""

    def forward(x):
        return np.tanh(x @ W), np.tanh(x @ W)

    return forward, lambda dout, y: dout * (1 - y**2) @ W.T


def closing_over_basis(basis):
    """Returns the same layer, in which the array is not named like a parameter."""

    def forward(x):
        return np.tanh(x @ basis), np.tanh(x @ basis)

    return forward, lambda dout, y: dout * (1 - y**2) @ basis.T


def test_captured_array_with_a_parameter_name_needs_a_gradient():
    x, array = (np.random.default_rng(seed).standard_normal(shape) for seed, shape in ((2, (5, 4)), (4, (4, 3))))
    forgotten = check_layer(closing_over_W(array), x)
    assert forgotten.verdict == "INCONCLUSIVE"
    assert "W affects the output" in forgotten.text(width=None)
    assert check_layer(closing_over_W(array), x, constants=("W",)).verdict == "PASS"
    basis = check_layer(closing_over_basis(array), x)
    assert basis.verdict == "PASS"
    assert "basis" in " ".join(basis.warnings)


def test_gradient_for_integers_is_not_checked_with_a_note():
    W = np.random.default_rng(1).standard_normal((4, 3))
    pair = (lambda x, W: (x @ W, (x, W)), lambda dout, cache: (7 * dout @ cache[1].T, cache[0].T @ dout))
    report = check_layer(pair, np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), W)
    assert [leaf.name for leaf in report.leaves] == ["W"]
    assert any("x is an array of integers" in note for note in report.notes)


@pytest.mark.slow
def test_function_that_returns_value_and_gradient_has_a_note():
    x = np.random.default_rng(1).standard_normal((4, 3))
    report = check_function(lambda x: ((x**2).sum(), 3 * x), x)
    assert any("without gradient=" in note for note in report.notes)
