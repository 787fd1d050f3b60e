"""Tests the options accuracy, expected, constants, takes_dout and max_seconds: each has only its own effect."""

import re
import time

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import slow, some

from jaxnet.crosscheck import Cause, SubjectError, check, check_function, check_layer, check_network


def draw(*shape, seed=4):
    return np.random.default_rng(seed).standard_normal(shape)


class Affine:
    factor = 1.0

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


class Net:
    """Half the squared error of an affine layer."""

    def __init__(self, factor=1.0):
        self.layer = Affine(draw(4, 3), draw(3))
        self.layer.factor = factor
        self.params = {"W": self.layer.W, "b": self.layer.b}

    def loss(self, x, t):
        self.e = self.layer.forward(x) - t
        return 0.5 * (self.e**2).sum()

    def gradient(self, x, t):
        self.loss(x, t)
        self.layer.backward(self.e)
        return {"W": self.layer.dW, "b": self.layer.db}


def sine(factor=1.0):
    return {"gradient": lambda x, dout: factor * dout * np.cos(x)}


def wrong_affine():
    layer = Affine(draw(4, 3), draw(3))
    layer.factor = 1.00001
    return layer


OFF = {  # each wrong by a relative 1e-5
    "check_layer": lambda **options: check_layer(wrong_affine(), draw(5, 4), **options),
    "check_network": lambda **options: check_network(Net(1.00001), draw(5, 4), draw(5, 3), **options),
    "check_function": lambda **options: check_function(np.sin, draw(5), **sine(1.00001), **options),
    "check": lambda **options: check(wrong_affine(), draw(5, 4), **options),
}


# -- accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", some(OFF, 4))
def test_an_error_within_the_declared_accuracy_is_allowed(name):
    assert OFF[name]().verdict == "FAIL"
    assert OFF[name](accuracy=5e-5).verdict == "PASS"
    assert OFF[name](accuracy=1e-7).verdict == "FAIL"


def test_a_pass_says_that_it_needs_the_declared_accuracy():
    note = "note: x: its error is larger than noise explains, and is allowed by accuracy=0.0001"
    assert note in check_function(np.sin, draw(5), **sine(1 + 5e-5), accuracy=1e-4).text(width=None)
    assert "accuracy" not in str(check_function(np.sin, draw(5), **sine(), accuracy=1e-4))
    assert "allowed" not in str(check_function(np.sin, draw(5), **sine(1.5), accuracy=1e-4))


def test_the_certificate_includes_the_accuracy():
    exact = check_function(np.sin, draw(5), **sine())
    declared = check_function(np.sin, draw(5), **sine(), accuracy=1e-4)
    assert declared.leaves[0].relative_tolerance > 1e-4 > 1e3 * exact.leaves[0].relative_tolerance
    assert declared.leaves[0].min_detectable_error > 1e3 * exact.leaves[0].min_detectable_error


@pytest.mark.slow
@pytest.mark.parametrize("error", [1e-4, 1e-2])
def test_the_verdict_about_the_accuracy_depends_on_no_seed(error):
    for seed in range(4):
        inside = check_function(np.sin, draw(40), **sine(1 + error / 2), accuracy=error, seed=seed)
        outside = check_function(np.sin, draw(40), **sine(1 + 40 * error), accuracy=error, seed=seed)
        assert (inside.verdict, outside.verdict) == ("PASS", "FAIL")


def test_the_report_suggests_an_accuracy_only_for_a_small_error():
    assert "pass accuracy=" in check_function(np.sin, draw(5), **sine(1 + 3e-6)).text(width=None)
    assert "pass accuracy=" not in check_function(np.sin, draw(5), **sine(1.5)).text(width=None)


BAD = [0, -1e-3, np.nan, np.inf, "1e-3"]


@pytest.mark.parametrize("option", ["accuracy", "max_seconds"])
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", OFF)
def test_an_option_that_is_not_a_positive_number_is_rejected(name, option, value):
    with pytest.raises(ValueError, match=f"^{option}: {value!r}, expected a finite number > 0"):
        OFF[name](**{option: value})


@pytest.mark.parametrize("option", ["accuracy", "resolution"])
def test_a_relative_error_of_one_or_more_is_no_accuracy(option):
    with pytest.raises(ValueError, match=f"^{option}: 1, expected a relative error below 1"):
        check_function(np.sin, draw(5), **sine(), **{option: 1})


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("constants", 3, "3, expected a list of names"),
        ("constants", [3], "[3], expected a list of names"),
        ("transforms", 3, "3, expected a list of names"),
        ("transforms", [None], "[None], expected a list of names"),
        ("reference", 3, "an int, expected a function"),
        ("expected", 3, "an int, expected a function"),
        ("name", 3, "3, expected a string"),
    ],
)
def test_an_option_of_another_type_is_rejected(name, option, value, expected):
    with pytest.raises((SubjectError, ValueError), match=f"^{re.escape(f'{option}: {expected}')}"):
        OFF[name](**{option: value})


@pytest.mark.parametrize("value", ["yes", 3, []])
def test_takes_dout_is_true_false_or_none(value):
    with pytest.raises(ValueError, match=r"^takes_dout: .*, expected True, False or None"):
        check_function(np.sin, draw(5), **sine(), takes_dout=value)


# -- expected


class Rounds:
    """A straight-through estimator: forward rounds, and backward ignores the rounding."""

    factor = 1.0

    def forward(self, x):
        return np.round(8 * x) / 8

    def backward(self, dout):
        return self.factor * dout


@pytest.mark.slow
def test_a_surrogate_gradient_is_compared_with_the_expected_function():
    x = draw(5, 4)
    assert check_layer(Rounds(), x).verdict != "PASS"
    check_layer(Rounds(), x, expected=lambda x: x).raise_if_failed()
    report = check_layer(type("Wrong", (Rounds,), {"factor": 1.01})(), x, expected=lambda x: x)
    assert report.verdict == "FAIL"
    assert "times 1.01" in report.text(width=None)
    assert check_layer(Rounds(), x, expected=np.sin).verdict == "FAIL"


@pytest.mark.slow
def test_the_expected_function_takes_the_parameters():
    class Binary(Affine):
        """Binary weights, with the gradient of a layer whose weights are not binary."""

        def forward(self, x):
            self.x = x
            return x @ np.sign(self.W) + self.b

        def backward(self, dout):
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
            return dout @ self.W.T

    layer = Binary(draw(4, 3), draw(3))
    check_layer(layer, draw(5, 4), expected=lambda p, x: x @ p["W"] + p["b"]).raise_if_failed()
    assert check_layer(layer, draw(5, 4)).verdict == "FAIL"


def test_a_function_with_a_surrogate_gradient_passes():
    x = draw(6) + 0.1
    check_function(np.sign, x, gradient=lambda x, dout: dout / np.cosh(x) ** 2, expected=np.tanh).raise_if_failed()
    wrong = check_function(np.sign, x, gradient=lambda x, dout: dout / np.cosh(x), expected=np.tanh)
    assert wrong.verdict == "FAIL"


@pytest.mark.parametrize(
    ("expected", "message"),
    [(3.0, "expected: a float, expected a function"), (lambda x: x.sum(), r"expected: .* returns shape \(\)")],
)
def test_a_wrong_expected_function_is_rejected(expected, message):
    with pytest.raises(SubjectError, match=message):
        check_layer(Rounds(), draw(5, 4), expected=expected)


# -- constants


class Masked(Affine):
    """An affine layer whose output is multiplied by an array without a gradient."""

    def __init__(self):
        super().__init__(draw(4, 3), draw(3))
        self.pattern = draw(3, seed=9)

    def forward(self, x):
        return super().forward(x) * self.pattern

    def backward(self, dout):
        return super().backward(dout * self.pattern)


@pytest.mark.slow
def test_a_declared_constant_causes_only_a_warning():
    report = check_layer(Masked(), draw(5, 4))
    assert report.verdict == "INCONCLUSIVE"
    assert [leaf.name for leaf in report.leaves if leaf.cause is Cause.NO_GRADIENT] == ["pattern"]
    assert "constants=('pattern',)" in report.text(width=None)
    declared = check_layer(Masked(), draw(5, 4), constants=("pattern",))
    assert declared.verdict == "PASS"
    assert "pattern affects the output and has no gradient: it is treated as a constant" in declared.warnings


@pytest.mark.slow
def test_a_declared_constant_hides_no_other_error():
    class Wrong(Masked):
        factor = 1.01

    report = check_layer(Wrong(), draw(5, 4), constants=("pattern",))
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] == ["W"]


def test_functions_and_pairs_may_have_declared_constants():
    x, s = draw(5), draw(5, seed=9)
    returned = {"gradient": lambda x, s, dout: {"x": dout * s}}
    assert check_function(lambda x, s: x * s, x, s, **returned).verdict == "INCONCLUSIVE"
    assert check_function(lambda x, s: x * s, x, s, **returned, constants=("s",)).verdict == "PASS"
    pair = (lambda x, s, c: (x * s + c, s), lambda dout, s: (dout * s,))
    three = x, s, draw(5, seed=8)
    assert check_layer(pair, *three).verdict == "INCONCLUSIVE"
    assert check_layer(pair, *three, constants=("s", "c")).verdict == "PASS"


SCALING = (lambda x, s: (x * s, s), lambda dout, s: dout * s)


class Bias:
    def __init__(self):
        self.b = draw(3)
        self.running_mean = np.zeros(3)

    def forward(self, x):
        self.running_mean = 0.9 * self.running_mean + 0.1 * x.mean(axis=0)
        return x + self.b

    def backward(self, dout):
        self.db = dout.sum(axis=0)
        return dout


@pytest.mark.parametrize(
    ("check_misspelled", "names"),
    [
        (lambda: check_layer(Masked(), draw(5, 4), constants=("patern",)), "W, b, x, pattern"),
        (
            lambda: check_layer((lambda x, s: (x * s, s), lambda d, s: d * s), draw(5), draw(5), constants=("S",)),
            "x, s",
        ),
        (lambda: check_function(np.sin, draw(5), gradient=lambda x, d: d * np.cos(x), constants=["w"]), "x"),
        (lambda: check_function(jnp.sin, draw(5), constants=["w"]), "x"),
        (lambda: check_network(Net(), draw(5, 4), draw(5, 3), constants=("mean",)), "W, b"),
    ],
    ids=["layer", "pair", "function", "jax", "network"],
)
def test_an_unknown_name_among_the_constants_is_rejected_with_the_known_names(check_misspelled, names):
    with pytest.raises(SubjectError, match=rf"constants: no array is called '\w+', expected names among {names}$"):
        check_misspelled()


def test_a_string_names_one_constant():
    assert check_layer(Masked(), draw(5, 4), constants="pattern").verdict == "PASS"


def test_constants_may_name_arrays_that_need_not_be_declared():
    assert check_layer(Bias(), draw(5, 3), constants=("running_mean", "x", "b")).verdict == "PASS"


# -- takes_dout


def test_takes_dout_decides_where_the_argument_names_do_not():
    def f(a, b):
        return a * b

    def gradient(p, q, r):
        return r * q, r * p

    x, y = draw(5), draw(5, seed=9)
    check_function(f, x, y, gradient=gradient, takes_dout=True).raise_if_failed()

    def of_scalar(x, scale=3.0):
        return scale * 2 * x

    assert check_function(lambda x: float(x @ x), x, gradient=of_scalar, takes_dout=False).verdict == "FAIL"
    check_function(
        lambda x: float(x @ x), x, gradient=lambda x, scale=1.0: scale * 2 * x, takes_dout=False
    ).raise_if_failed()
    check_function(
        lambda x: float(x @ x), x, gradient=lambda x, scale=1.0: scale * 2 * x, takes_dout=True
    ).raise_if_failed()


def test_a_gradient_that_takes_no_dout_is_called_without_one():
    x = draw(5)
    received = []
    check_function(lambda x: x**2, x, gradient=lambda x, g=None: received.append(g) or 2 * x, takes_dout=False)
    assert all(g is None for g in received)


# -- max_seconds


class Slow(Affine):
    pause = 0.02

    def forward(self, x):
        time.sleep(self.pause)
        return super().forward(x)


@pytest.mark.parametrize("run", [check_layer, slow(check)])
def test_a_check_ends_in_time_and_reports_it(run):
    start = time.perf_counter()
    report = run(Slow(draw(4, 3), draw(3)), draw(5, 4), max_seconds=0.5)
    assert time.perf_counter() - start < 1.0
    assert report.verdict == "INCONCLUSIVE"
    assert {leaf.name for leaf in report.leaves} == {"W", "b", "x"}
    assert Cause.OUT_OF_TIME in {leaf.cause for leaf in report.leaves}
    assert "max_seconds ran out before the gradient was judged: allow more time" in report.text(width=None)


def test_a_check_of_a_network_ends_in_time():
    class SlowNet(Net):
        def loss(self, x, t):
            time.sleep(0.02)
            return super().loss(x, t)

    start = time.perf_counter()
    report = check_network(SlowNet(), draw(5, 4), draw(5, 3), max_seconds=0.5)
    assert time.perf_counter() - start < 1.5
    assert report.verdict == "INCONCLUSIVE"


def test_a_check_of_a_function_ends_in_time():
    def f(x):
        time.sleep(0.02)
        return np.sin(x)

    start = time.perf_counter()
    assert check_function(f, draw(5), **sine(), max_seconds=0.3).verdict == "INCONCLUSIVE"
    assert time.perf_counter() - start < 1.0


def test_code_that_catches_every_exception_is_stopped_too():
    def f(x):
        try:
            time.sleep(0.02)
            return np.sin(x)
        except Exception:
            return x

    assert check_function(f, draw(5), **sine(), max_seconds=0.3).verdict == "INCONCLUSIVE"


@pytest.mark.slow
def test_a_long_time_limit_changes_nothing():
    assert check_layer(Slow(draw(4, 3), draw(3)), draw(5, 4), max_seconds=60).verdict == "PASS"


@pytest.mark.slow
def test_a_time_limit_never_turns_a_fail_into_a_pass():
    class Wrong(Slow):
        pause = 0.004

        def backward(self, dout):
            dx = super().backward(dout)
            self.dW = 2 * self.dW
            return dx

    whole = check_layer(Wrong(draw(4, 3), draw(3)), draw(5, 4))
    assert whole.verdict == "FAIL"
    verdicts = {
        str(check_layer(Wrong(draw(4, 3), draw(3)), draw(5, 4), max_seconds=share * whole.seconds).verdict)
        for share in (0.3, 0.95)
    }
    assert verdicts <= {"FAIL", "INCONCLUSIVE"}
