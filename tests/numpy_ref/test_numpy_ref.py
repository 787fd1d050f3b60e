"""Tests the functions, layers and networks in NumPy: known values, edge cases, arrays that must not change."""

import numpy as np
import pytest
import scipy.special
from conftest import a_dataset

from numpy_ref import (
    Affine,
    Network,
    ReLU,
    SoftmaxWithLoss,
    TwoLayerNet,
    build_layers,
    cross_entropy_error_one_hot,
    log_softmax,
    numerical_gradient,
    numerical_gradient_batch,
    numerical_gradient_batch_v2,
    one_hot,
    sigmoid,
    softmax,
    train,
)

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("ours", "scipys"),
    [
        (sigmoid, scipy.special.expit),
        (softmax, lambda x: scipy.special.softmax(x, axis=-1)),
        (log_softmax, lambda x: scipy.special.log_softmax(x, axis=-1)),
    ],
)
def test_functions_equal_scipys_and_keep_the_dtype(rng, ours, scipys, dtype):
    for scale in (1e-3, 1, 30, 1e4):
        x = (scale * rng.standard_normal((5, 7))).astype(dtype)
        assert ours(x).dtype == dtype
        np.testing.assert_allclose(ours(x), scipys(x), rtol=20 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
        np.testing.assert_allclose(ours(x[2]), ours(x)[2], rtol=4 * np.finfo(dtype).eps)  # a single sample


def test_cross_entropy_of_known_probabilities():
    y = np.array([[0.25, 0.75], [0.5, 0.5]])  # the mean of -log 0.75 and -log 0.5 is log(8/3) / 2
    for t in (np.array([1, 0]), np.array([[0, 1], [1, 0]])):
        assert cross_entropy_error_one_hot(y, t) == pytest.approx(np.log(8 / 3) / 2, rel=1e-15)
    assert cross_entropy_error_one_hot(y[0], 1) == pytest.approx(-np.log(0.75), rel=1e-15)
    assert cross_entropy_error_one_hot(y[0], [0, 1]) == pytest.approx(-np.log(0.75), rel=1e-15)


def test_cross_entropy_is_infinite_only_if_the_true_class_has_probability_0():
    assert cross_entropy_error_one_hot(np.array([0.0, 1.0]), 1) == 0
    assert cross_entropy_error_one_hot(np.array([0.0, 1.0]), 0) == np.inf


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ([0, 3], "runs? from 0 to 3, expected class numbers from 0 to 2"),
        ([-1, 0], "from -1 to 0"),
        ([0.0, 1.0], "float64 of shape"),
        ([0, 1, 2], r"shape \(3,\) does not label scores of shape \(2, 3\)"),
        ([[1, 0, 0], [1, 1, 0]], r"row 1 is \[1 1 0\], expected a single 1"),
        ([[1, 0, 0], [0.5, 0.5, 0]], "row 1 is"),
        ([[1, 0, 0], [np.nan, 1, 0]], "row 1 is"),
    ],
)
def test_labels_of_a_wrong_range_dtype_or_shape_are_refused(t, message):
    with pytest.raises(ValueError, match=message):
        one_hot(t, np.zeros((2, 3)))


def test_one_hot_has_the_dtype_of_the_scores():
    np.testing.assert_array_equal(one_hot([2, 0], np.zeros((2, 3))), [[0, 0, 1], [1, 0, 0]])
    assert one_hot([2, 0], np.zeros((2, 3), np.float32)).dtype == np.float32


def test_the_loss_layer_uses_dout_and_neither_changes_nor_shares_arrays(rng):
    layer, x, t = SoftmaxWithLoss(), rng.standard_normal((4, 3)), np.eye(3)[[0, 2, 1, 1]]
    inputs_before = x.copy(), t.copy()
    layer.forward(x, t)
    np.testing.assert_allclose(layer.backward(3.0), 3 * layer.backward(), rtol=1e-15)
    first = layer.backward()
    gradient_before = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(layer.backward(), gradient_before)
    np.testing.assert_array_equal(x, inputs_before[0])
    np.testing.assert_array_equal(t, inputs_before[1])


def test_an_affine_layer_refuses_a_bias_of_another_shape():
    with pytest.raises(ValueError, match=r"W, b: shapes \(4, 3\) and \(1, 3\)"):
        Affine(np.zeros((4, 3)), np.zeros((1, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numerical_gradient_of_a_cubic(rng, dtype):
    """The gradient of sum(x³) is 3x². A central difference adds h² to it, and a rounding error of eps |f| / h."""
    x = rng.standard_normal((3, 4)).astype(dtype)
    h, eps = np.cbrt(np.finfo(dtype).eps), np.finfo(dtype).eps
    before = x.copy()
    numerical = numerical_gradient(lambda a: float(np.sum(a.astype(np.float64) ** 3)), x)
    np.testing.assert_allclose(numerical, 3 * before.astype(np.float64) ** 2, rtol=0, atol=h**2 + 10 * eps / h)
    np.testing.assert_array_equal(x, before)
    assert numerical.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at", [1e-3, 1, 100, 1e4])
def test_numerical_gradients_divide_by_the_rounded_step(rng, at, dtype):
    """The gradient of a sum is 1. After rounding, x + h and x - h are not exactly 2h apart, so a division by 2h would
    cause an error of 1.2e-4 at x = 100 in float32, and of 0.8 % at 10,000."""
    X = (at * rng.uniform(1, 2, (4, 3))).astype(dtype)
    X[0] = at
    before = X.copy()

    def f(a):
        return np.sum(a - before, axis=-1, dtype=np.float64)  # the shift alone, because a large sum would round it

    x, before_row = X[0].copy(), before[0]
    bound = {"rtol": 4 * np.finfo(dtype).eps, "atol": 0}
    np.testing.assert_allclose(numerical_gradient(lambda a: np.sum(a - before_row, dtype=np.float64), x), 1, **bound)
    np.testing.assert_allclose(numerical_gradient_batch(lambda _: f(X).sum(), X), 1, **bound)
    np.testing.assert_allclose(numerical_gradient_batch_v2(f, X), 1, **bound)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(x, before_row)


def test_the_numerical_gradient_of_a_float32_sum_is_exactly_1():
    x = np.array([100], np.float32)
    assert numerical_gradient(np.sum, x) == 1
    assert x == 100


def test_numerical_gradients_by_row_and_by_column_agree(rng):
    X = rng.standard_normal((5, 3))

    def f(a):
        return np.sum(np.sin(a), axis=-1)

    np.testing.assert_allclose(numerical_gradient_batch(f, X), np.cos(X), atol=1e-9)
    np.testing.assert_allclose(numerical_gradient_batch_v2(f, X), np.cos(X), atol=1e-9)
    np.testing.assert_allclose(numerical_gradient_batch(f, X[0]), np.cos(X[0]), atol=1e-9)


def test_parameters_are_restored_even_when_the_function_raises(rng):
    x = rng.standard_normal(3)
    before = x.copy()

    def fails(a):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        numerical_gradient(fails, x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: numerical_gradient(np.sum, np.arange(3)), TypeError, "x: ndarray of int64, expected a floating-point"),
        (lambda: numerical_gradient(np.sum, [1.0]), TypeError, "x: list of no dtype"),
        (lambda: numerical_gradient_batch(np.sum, [1.0]), TypeError, "x: list of no dtype"),
        (lambda: numerical_gradient_batch(np.sum, [[1.0]]), TypeError, "x: list of no dtype"),
        (lambda: numerical_gradient(np.sum, np.ones(3), h=0), ValueError, "h: 0, expected a step > 0"),
        (lambda: numerical_gradient(np.sum, np.ones(3), h=np.nan), ValueError, "h: nan, expected a step > 0"),
        (
            lambda: numerical_gradient(np.sum, np.array([1, 1e6], np.float32)),
            ValueError,
            r"h: 0.0049\d*, too small for",
        ),
        (lambda: numerical_gradient_batch_v2(np.ravel, np.array([[1], [1e12]])), ValueError, "h: 6.05.*, too small"),
        (lambda: numerical_gradient_batch_v2(np.sum, np.ones((4, 3))), ValueError, r"f: returned shape \(\).*\(4,\)"),
    ],
)
def test_numerical_gradients_refuse_invalid_arrays_steps_and_functions(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_initial_weights_depend_on_the_seed_and_given_ones_are_copied():
    net, same, other = (
        TwoLayerNet(6, 5, 4),
        TwoLayerNet(6, 5, 4, seed=np.random.default_rng(0)),
        TwoLayerNet(6, 5, 4, seed=1),
    )
    np.testing.assert_equal(net.params, same.params)
    assert (net.params["Affine1"]["W"] != other.params["Affine1"]["W"]).all()
    rebuilt = TwoLayerNet(6, 5, 4, params=other.params)
    np.testing.assert_equal(rebuilt.params, other.params)
    rebuilt.params["Affine1"]["W"][:] = 0
    assert (other.params["Affine1"]["W"] != 0).all()  # copied


def test_initial_weights_have_the_requested_standard_deviation():
    W = TwoLayerNet(400, 300, 10, 0.3).params["Affine1"]["W"]  # of 120,000 numbers, so std() is accurate to 0.2 %
    assert W.std() == pytest.approx(0.3, rel=0.01)
    assert abs(W.mean()) < 0.005


def test_accuracy_and_loss_of_known_logits():
    net = TwoLayerNet(2, 2, 2, params={f"Affine{i}": {"W": np.eye(2), "b": np.zeros(2)} for i in (1, 2)})
    x, t = np.array([[1.0, 0], [0, 1], [3, 1]]), np.array([0, 0, 1])
    assert net.accuracy(x, t) == pytest.approx(1 / 3)
    assert net.accuracy(x, np.eye(2)[t]) == pytest.approx(1 / 3)
    softplus = np.log1p(np.exp([-1, 1, 2]))  # -log softmax of the true class, from the difference of the logits
    assert net.loss(x, t) == pytest.approx(softplus.mean(), rel=1e-15)
    loss, gradient = net.value_and_gradient(x, t)
    assert loss == net.loss(x, t)
    np.testing.assert_equal(gradient, net.gradient(x, t))


BAD = {
    "one sample": (lambda x, t: (x[0], t[:1]), r"x: shape \(6,\), expected \(N, 6\)"),
    "too narrow": (lambda x, t: (x[:, 1:], t), r"x: shape \(3, 5\)"),
    "none": (lambda x, t: (x[:0], t[:0]), "N >= 1"),
    "a list": (lambda x, t: (x.tolist(), t), "x: "),
    "nan": (lambda x, t: (np.where(x == x[1, 2], np.nan, x), t), r"x\[1, 2\]: nan, expected finite"),
    "too few labels": (lambda x, t: (x, t[:2]), r"t: int64 of shape \(2,\)"),
    "label out of range": (lambda x, t: (x, t + 3), "t: labels run from"),
}


@pytest.mark.parametrize("method", ["loss", "accuracy", "gradient", "numerical_gradient", "value_and_gradient"])
@pytest.mark.parametrize("name", BAD)
def test_an_invalid_batch_is_refused(rng, name, method):
    spoil, message = BAD[name]
    x, t = spoil(rng.standard_normal((3, 6)), np.array([0, 3, 1]))
    with pytest.raises(ValueError, match=message):
        getattr(TwoLayerNet(6, 5, 4), method)(x, t)


GOOD = {"Affine1": {"W": np.zeros((6, 5)), "b": np.zeros(5)}, "Affine2": {"W": np.zeros((5, 4)), "b": np.zeros(4)}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, "input_size: 0, expected at least 1"),
        ({"hidden_size": -3}, "hidden_size: -3"),
        ({"output_size": 0}, "output_size: 0"),
        ({"weight_init_std": -0.1}, "weight_init_std: -0.1"),
        ({"weight_init_std": np.nan}, "weight_init_std: nan"),
        ({"params": {"Affine1": GOOD["Affine1"]}}, r"params\['Affine2'\]: holds \[\], expected \['W', 'b'\]"),
        (
            {"params": GOOD | {"Affine2": {"W": np.zeros((4, 5)), "b": np.zeros(5)}}},
            r"\['W'\]: shape \(4, 5\), expected",
        ),
    ],
)
def test_invalid_sizes_and_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerNet(**{"input_size": 6, "hidden_size": 5, "output_size": 4} | arguments)


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="Mystery1 is a 'Mystery', expected one of GELU, Affine"):
        build_layers(("Sequential", (("Mystery1", ("Mystery",)),)), {})


def test_the_training_loop_learns_and_evaluates_at_the_documented_steps(rng):
    data = a_dataset(rng)
    net = TwoLayerNet(12, 8, 5)
    history = train(net, *data, rng.integers(0, 60, (250, 10)), eval_every=100)
    assert history.eval_step.tolist() == [0, 100, 200, 250]
    assert history.loss.shape == (250,)
    assert history.test_accuracy[-1] > 0.8 > 0.5 > history.test_accuracy[0]
    assert history.test_accuracy[-1] == net.accuracy(data.x_test, data.t_test)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": np.array([[0, 60]])}, "batches: runs from 0 to 60, expected rows from 0 to 59"),
        ({"batches": [[0, -1]]}, "batches: runs from -1 to 0, expected rows from 0 to 59"),
        ({"batches": np.zeros(3, int)}, r"batches: int64 of shape \(3,\), expected integers \(steps, batch size\)"),
        ({"batches": np.zeros((2, 3))}, r"batches: float64 of shape \(2, 3\), expected integers"),
        ({"batches": np.zeros((2, 3), bool)}, "batches: bool of shape"),
        ({"batches": []}, r"batches: float64 of shape \(0,\)"),
        ({"learning_rate": 0}, "learning_rate: 0, expected"),
        ({"eval_every": 0}, "eval_every: 0, expected a whole number of at least 1"),
        ({"eval_every": 2.5}, "eval_every: 2.5, expected a whole number of at least 1"),
        ({"eval_every": True}, "eval_every: True, expected a whole number"),
    ],
)
def test_the_training_loop_refuses_invalid_arguments(rng, change, message):
    arguments = a_dataset(rng)._asdict() | {"batches": np.zeros((2, 3), int)} | change
    with pytest.raises(ValueError, match=message):
        train(TwoLayerNet(12, 8, 5), **arguments)


def test_the_training_loop_accepts_lists_as_arrays(rng):
    data, batches = a_dataset(rng)._asdict(), rng.integers(0, 60, (3, 10))
    net, same = TwoLayerNet(12, 8, 5), TwoLayerNet(12, 8, 5)
    by_arrays = train(net, **data, batches=batches)
    by_lists = train(same, **{name: a.tolist() for name, a in data.items()}, batches=batches.tolist())
    np.testing.assert_equal(by_lists, by_arrays)
    np.testing.assert_equal(same.params, net.params)


def test_the_notebooks_network_is_the_books_followed_by_a_relu(rng):
    book, notebook = TwoLayerNet(6, 5, 4), TwoLayerNet(6, 5, 4)
    notebook.layers["Relu2"] = ReLU()
    x = rng.standard_normal((8, 6))
    np.testing.assert_array_equal(notebook.predict(x), np.maximum(book.predict(x), 0))
    assert isinstance(notebook, Network)
