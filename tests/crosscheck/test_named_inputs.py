"""Tests inputs that are passed by the names of the forward pass's parameters."""

import inspect
import re

import jax
import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, Verdict, check, check_function, check_layer, check_network

X = np.linspace(0.2, 1.0, 6).reshape(2, 3)
W = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
AFFINE = lambda x, W: (x @ W, (x, W)), lambda dout, cache: (dout @ cache[1].T, cache[0].T @ dout)


class Affine:
    def forward(self, x, W):
        self.x, self.W = x, W
        return x @ W

    def backward(self, dout):
        return dout @ self.W.T, self.x.T @ dout


@pytest.mark.slow
@pytest.mark.parametrize("thing", [AFFINE, Affine()], ids=["pair", "layer"])
def test_names_bind_in_any_order(thing):
    for checked in (check, check_layer):
        for report in (checked(thing, named={"W": W, "x": X}), checked(thing, X, named={"W": W})):
            assert report.verdict is Verdict.PASS
            assert [leaf.size for leaf in report.leaves] == [6, 12]


@pytest.mark.slow
def test_arguments_of_functions_bind_by_name():
    report = check_function(
        lambda x, n: x**n, named={"n": 3, "x": X}, gradient=lambda x, n, dout: dout * n * x ** (n - 1)
    )
    assert report.verdict is Verdict.PASS
    assert check(lambda x, n: x**n, X, named={"n": 3}).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"w": W}, "takes x, W, and no w; did you mean W?"),
        ({"dropout": W}, "takes x, W, and no dropout"),
        ({"WW": W}, "takes x, W, and no WW; did you mean W?"),
        ({"x": X}, "x is passed twice"),
        ({}, "W"),
        ([W], "named: a list, expected a dict"),
    ],
)
def test_wrong_names_are_told(named, message):
    with pytest.raises(SubjectError, match=re.escape(message)):
        check(AFFINE, X, named=named)


# -- keyword-only inputs


def affine_forward(x, W, *, gain=2.0, transposed=False):
    return gain * (x @ (W.T if transposed else W)), (x, W, gain)


def affine_backward(dout, cache):
    x, W, gain = cache
    return gain * dout @ W.T, gain * x.T @ dout


class Scaled:
    """An affine layer with a keyword-only gain, whose gradient for W lacks the gain."""

    __slots__ = ("W", "dW", "gain", "x")

    def __init__(self, W):
        self.W = W

    def forward(self, x, *, gain=1.0, **options):
        self.x, self.gain = x, gain
        return gain * x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return self.gain * dout @ self.W.T


DW_LINE = inspect.getsourcelines(Scaled.backward)[1] + 1


class Cubic:
    def __call__(self, x, *, scale):
        return scale * x**3


def power(x, *, n, scale=1.0):
    return scale * x**n


def gradient_of_power(x, dout, *, n, scale=1.0):
    return scale * dout * n * x ** (n - 1)


@pytest.mark.parametrize(
    "named", [{"x": X, "W": W}, {"x": X, "W": W, "gain": 0.5}, {"x": X, "W": W, "transposed": False}]
)
def test_keyword_only_inputs_of_a_pair_are_passed_by_keyword(named):
    report = check((affine_forward, affine_backward), named=named, constants=("gain",) if "gain" in named else ())
    assert report.verdict is Verdict.PASS
    assert [leaf.name for leaf in report.leaves] == ["x", "W"]


@pytest.mark.parametrize(
    ("named", "verdict"), [({}, Verdict.PASS), ({"gain": 0.5}, Verdict.FAIL), ({"other": "same"}, Verdict.PASS)]
)
def test_keyword_only_inputs_of_a_layer_are_passed_by_keyword(named, verdict):
    layer = Scaled(W)
    report = check(layer, named={"x": X} | named)
    assert (report.verdict, report.subject, [leaf.name for leaf in report.leaves]) == (verdict, "Scaled", ["W", "x"])
    assert [line.line for line in report.lines.values()] == ([] if verdict is Verdict.PASS else [DW_LINE])
    assert type(layer) is Scaled
    assert not hasattr(layer, "x")


def test_a_gradient_takes_the_keyword_only_inputs_of_its_function():
    report = check_function(power, X, named={"n": 3}, gradient=gradient_of_power)
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == (Verdict.PASS, ["x"])
    wrong = check_function(power, X, named={"n": 3}, gradient=lambda x, dout, *, n: dout * x ** (n - 1))
    assert wrong.verdict is Verdict.FAIL


def test_an_array_that_is_keyword_only_is_a_leaf():
    def product(x, *, W):
        return x @ W

    report = check_function(product, X, named={"W": W}, gradient=lambda x, dout, *, W: (dout @ W.T, 2 * x.T @ dout))
    assert [(leaf.name, leaf.verdict) for leaf in report.leaves] == [("x", Verdict.PASS), ("W", Verdict.FAIL)]


def test_keyword_only_inputs_of_callable_objects_are_refused_with_a_way_to_pass_them():
    with pytest.raises(SubjectError, match=re.escape("Cubic takes scale by keyword alone")):
        check(Cubic(), X, named={"scale": 2.0})


def test_names_and_shapes_exclude_each_other():
    with pytest.raises(SubjectError, match="shapes: given beside inputs"):
        check(AFFINE, named={"x": X}, shapes=[(2, 3)])


# -- further arguments of a network's loss


class Decayed:
    """A linear network whose loss returns its gradients too; the one of the weight decay lacks the factor 2."""

    def __init__(self):
        self.params = {"W": np.random.default_rng(5).normal(size=(4, 3))}

    def loss(self, X, y=None, reg=0.0, train_flg=False):
        W = self.params["W"]
        scores = X @ W
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        d = p.copy()
        d[np.arange(len(y)), y] -= 1
        loss = -np.log(p[np.arange(len(y)), y]).mean() + reg * (W**2).sum()
        return loss, {"W": X.T @ d / len(y) + reg * W}


class DecayedApart(Decayed):
    """The same with two methods, of which `gradient` takes the strength, and keyword arguments alone."""

    def loss(self, X, y, *, reg=0.0):
        return super().loss(X, y, reg)[0]

    def gradient(self, X, y, *, reg=0.0):
        return super().loss(X, y, reg)[1]


SAMPLES, LABELS = np.random.default_rng(6).normal(size=(5, 4)), np.array([0, 2, 1, 1, 0])
STRENGTH = "reg is 0, so the gradient of its term in the loss is not checked: pass named={'reg': 0.5}"


@pytest.mark.parametrize("network", [Decayed(), DecayedApart()])
def test_a_network_gets_the_strength_of_its_weight_decay(network):
    for report in (
        check(network, SAMPLES, LABELS, named={"reg": 0.5}),
        check_network(network, SAMPLES, LABELS, 0.5),
        check_network(network, SAMPLES, LABELS, named={"reg": 0.5}),
    ):
        assert (report.verdict, report.warnings) == (Verdict.FAIL, ())
        assert "the error is W times -0.5" in str(report)


@pytest.mark.parametrize("network", [Decayed(), DecayedApart()])
def test_a_strength_of_zero_is_warned_of(network):
    assert check(network, SAMPLES, LABELS).warnings == (STRENGTH,)
    assert check(network, SAMPLES, LABELS, named={"reg": 0.0}).warnings == (STRENGTH,)


def test_a_float_argument_without_effect_is_not_warned_of():
    class Unused(DecayedApart):
        def loss(self, X, y, margin=0.0):
            return super().loss(X, y)

    assert check(Unused(), SAMPLES, LABELS).warnings == ()


@pytest.mark.slow
def test_a_reference_takes_the_further_arguments_too():
    class Right(DecayedApart):
        def gradient(self, X, y, *, reg=0.0):
            return {"W": Decayed.loss(self, X, y, reg)[1]["W"] + reg * self.params["W"]}

    def loss_in_jax(params, X, y, reg):
        scores = X @ params["W"]
        return -jax.nn.log_softmax(scores)[np.arange(len(y)), y].mean() + reg * (params["W"] ** 2).sum()

    assert check_network(Right(), SAMPLES, LABELS, 0.5, reference=loss_in_jax).verdict is Verdict.PASS


def test_too_many_arguments_of_a_network_are_counted():
    with pytest.raises(SubjectError, match=r"4 inputs, expected at most 3: samples, labels, reg"):
        check_network(DecayedApart(), SAMPLES, LABELS, 0.5, 3.0)


# -- calls of a check in another form


def test_two_functions_are_told_to_be_one_argument():
    for checked in (check, check_layer):
        expected = rf"the pair is one argument: {checked.__name__}\(\(forward, backward\), \.\.\.\)"
        with pytest.raises(SubjectError, match=expected):
            checked(forward, backward, X, W)
    with pytest.raises(SubjectError, match="if backward is the gradient of forward, pass gradient=backward"):
        check_function(forward, backward, X, W)


def test_an_unknown_option_is_named_with_where_it_belongs():
    with pytest.raises(SubjectError, match=r"check: takes no gradient=; pass check_function\(f, \.\.\., gradient=g\)"):
        check(forward, X, W, gradient=backward)
    with pytest.raises(SubjectError, match=r"check: has no option reg; .* named=\{'reg': \.\.\.\}"):
        check(Decayed(), SAMPLES, LABELS, reg=0.5)
    with pytest.raises(SubjectError, match=r"check_layer: has no option constant; did you mean constants\?"):
        check_layer((forward, backward), X, W, constant=("W",))


def forward(x, W):
    return x @ W, (x, W)


def backward(dout, cache):
    return dout @ cache[1].T, cache[0].T @ dout
