"""Shows each defect of the notebook and its correction. A defect that hides another one is corrected by a patch.

"The notebook's figures" are those of its own output, on MNIST, or those measured when a defect was confirmed.
"""

import os
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import jaxnet
import numpy_ref
from jaxnet.crosscheck import check_network
from jaxnet.nn.tree_paths import leaves_by_path
from numpy_ref import notebook

CORRECTIONS = {
    1: ("softmax", numpy_ref.softmax),
    2: ("_numerical_grad", partial(numpy_ref.numerical_gradient, h=1e-4)),
}
NO_MNIST = pytest.mark.skipif("JAXNET_DATA" not in os.environ, reason="JAXNET_DATA is not set: no MNIST files to read")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Limits BLAS to one thread: on a busy machine, small products take ten times as long with a second one."""
    with threadpool_limits(1, "blas"):
        yield


def images(name):
    """Returns (x_train, t_train, x_test, t_test) with one-hot labels; to save time, a third of MNIST's training set."""
    data = jaxnet.data.DATASETS[name]()
    return data.x_train[:20_000], np.eye(10)[data.t_train[:20_000]], data.x_test, np.eye(10)[data.t_test]


@pytest.fixture(scope="module", params=["digits", pytest.param("mnist", marks=[NO_MNIST, pytest.mark.slow])])
def dataset(request):
    return request.param, images(request.param)


@pytest.fixture(scope="module")
def digits():
    return images("digits")


@pytest.fixture
def correct(monkeypatch):
    return lambda *defects: [monkeypatch.setattr(notebook, *CORRECTIONS[defect]) for defect in defects]


def batches(x, steps):
    """Returns the rows that `notebook.train` draws from a generator with seed 0."""
    rng = np.random.default_rng(0)
    return np.array([rng.choice(len(x), 100) for _ in range(steps)])


def largest_difference(a, b):
    """Returns the largest difference between two trees."""
    a, b = leaves_by_path(a), leaves_by_path(b)
    return max(np.abs(a[name] - b[name]).max() for name in a)


def test_both_networks_start_from_the_same_weights(digits):
    written, corrected = (module.TwoLayerNet(64, 50, 10, seed=3) for module in (notebook, numpy_ref))
    assert largest_difference(written.params, corrected.params) == 0
    np.testing.assert_array_equal(written.predict(digits[0]), np.maximum(corrected.predict(digits[0]), 0))


def test_defect_1_probabilities_of_a_batch_sum_to_1_together():
    equal, unequal = np.zeros((2, 2)), np.array([[0.0, 0.0], [1000.0, 1000.0]])
    np.testing.assert_array_equal(notebook.softmax(equal), [[1 / 4, 1 / 4], [1 / 4, 1 / 4]])
    np.testing.assert_array_equal(notebook.softmax(unequal), [[0, 0], [1 / 2, 1 / 2]])
    for logits in (equal, unequal):
        np.testing.assert_array_equal(numpy_ref.softmax(logits), [[1 / 2, 1 / 2], [1 / 2, 1 / 2]])


def test_defect_1_the_backward_pass_is_not_the_gradient_of_the_loss(rng):
    """A number added to all logits changes neither loss, so both gradients must sum to 0. The notebook's gradient sums
    to (1 - N) / N, so the logits grow without bound."""
    logits, t = rng.standard_normal((4, 5)), np.eye(5)[[0, 3, 3, 1]]
    written, corrected = notebook.SoftmaxWithLoss(), numpy_ref.SoftmaxWithLoss()
    for layer in (written, corrected):
        assert layer.forward(logits + 1, t) == pytest.approx(layer.forward(logits, t), rel=1e-14)
    assert written.backward().sum() == pytest.approx((1 - 4) / 4, rel=1e-14)
    np.testing.assert_allclose(corrected.backward().sum(axis=1), 0, atol=1e-15)


@pytest.mark.slow
def test_defect_1_training_ends_in_nan(dataset):
    """The notebook's loss is 7.0 at step 0, 117 at 200, nan at 300. It begins at log 1000 = 6.9, because the thousand
    probabilities of a batch sum to 1. The corrected loss begins at log 10."""
    name, data = dataset
    nan_step = {"digits": 500, "mnist": 300}[name]
    sizes = data[0].shape[1], 50, 10
    with np.errstate(all="ignore"):
        rows = notebook.train(notebook.TwoLayerNet(*sizes), *data, np.random.default_rng(0), nan_step + 1)
    loss, accuracy = {i: row[0] for i, *row in rows}, rows[-1][-1]
    assert loss[0] == pytest.approx(np.log(1000), abs=0.2)
    assert loss[nan_step - 100] > 10 * loss[0]
    assert np.isnan(loss[nan_step])
    assert accuracy < 0.2

    history = numpy_ref.train(
        numpy_ref.TwoLayerNet(*sizes), *data, batches(data[0], nan_step), learning_rate=0.01, eval_every=nan_step
    )
    assert history.loss[0] == pytest.approx(np.log(10), abs=0.2)
    assert history.loss[-10:].max() < history.loss[:10].min()
    assert history.test_accuracy[-1] > 0.5


def test_defect_1_the_gradient_check_is_off_by_a_third_to_a_half(dataset):
    name, (x, t, *_) = dataset
    means = notebook.gradient_check(notebook.TwoLayerNet(x.shape[1], 50, 10), x[:3], t[:3])
    assert set(means) == {"Affine1.W", "Affine1.b", "Affine2.W", "Affine2.b"}
    for analytic, _, difference in means.values():
        assert 0.2 < difference / analytic < 0.6
    if name == "mnist":  # the notebook's figures; its initial weights are other draws
        analytic, _, difference = means["Affine1.W"]
        assert (analytic, difference) == pytest.approx((0.0034, 0.0011), rel=0.5)
        analytic, _, difference = means["Affine2.b"]
        assert (analytic, difference) == pytest.approx((0.105, 0.048), rel=0.5)


def test_defect_1_is_corrected_and_every_element_agrees(digits):
    """For h = 6e-6 the rounding error, a few eps |loss| / h, is 2e-10. The truncation error, h² |f'''| / 6, is smaller:
    |f'''| = |p (1 - p) (1 - 2p)| < 0.1 for a logit, times the cube of the input for a weight. The bound of 1e-8 is
    50 times as large."""
    x, t, *_ = digits
    net = numpy_ref.TwoLayerNet(64, 50, 10)
    assert largest_difference(net.gradient(x[:3], t[:3]), net.numerical_gradient(x[:3], t[:3])) < 1e-8


def test_defect_2_the_check_leaves_every_parameter_shifted(digits):
    x, t, *_ = digits
    written, corrected = notebook.TwoLayerNet(64, 10, 10), numpy_ref.TwoLayerNet(64, 10, 10)
    before = {name: leaf.copy() for name, leaf in leaves_by_path(corrected.params).items()}
    written.numerical_gradient(x[:3], t[:3])
    corrected.numerical_gradient(x[:3], t[:3])
    for name, leaf in leaves_by_path(written.params).items():
        np.testing.assert_allclose(leaf - before[name], 1e-4, rtol=0, atol=1e-15)
    for name, leaf in leaves_by_path(corrected.params).items():
        np.testing.assert_array_equal(leaf, before[name])


@pytest.mark.slow
@pytest.mark.parametrize(("defects", "low", "high"), [((1,), 5e-7, 1e-4), ((1, 2), 0, 1e-9)], ids=["1", "1 and 2"])
def test_defect_2_causes_the_difference_that_remains_without_defect_1(digits, correct, defects, low, high):
    """The notebook's figures are 2e-5 with defect 1 corrected, and at most 5e-11 with both. The latter is truncation:
    |f'''| < 0.1 for a logit, as above, and h²/6 = 2e-9. The shift of defect 2 causes a larger error, because it moves
    the point by h, and so the gradient by h times its slope."""
    correct(*defects)
    x, t, *_ = digits
    for *_, difference in notebook.gradient_check(notebook.TwoLayerNet(64, 50, 10), x[:3], t[:3]).values():
        assert low < difference < high


def test_defect_3_every_row_of_the_gradient_of_a_scalar_is_the_sum_of_rows():
    X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    numerical = notebook.numerical_gradient_batch_v2(lambda X: np.sum(X**2), X)  # the true gradient is 2X
    np.testing.assert_allclose(numerical, [[2 + 6 + 10, 4 + 8 + 12]] * 3, rtol=1e-9)
    with pytest.raises(ValueError, match=r"f: returned shape \(\).*expected one value per row, \(3,\)"):
        numpy_ref.numerical_gradient_batch_v2(lambda X: np.sum(X**2), X)


@pytest.mark.parametrize("module", [notebook, numpy_ref])
def test_defect_3_does_not_affect_functions_of_rows(module):
    X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    numerical = module.numerical_gradient_batch_v2(lambda X: np.sum(X**2, axis=1), X)
    np.testing.assert_allclose(numerical, [[2, 4], [6, 8], [10, 12]], rtol=1e-8)  # roundoff, eps |f| / h, is 2e-9


@pytest.mark.parametrize(("module", "dout_after"), [(notebook, [[0.0, 5.0]]), (numpy_ref, [[5.0, 5.0]])])
def test_defect_4_relu_overwrites_dout(module, dout_after):
    layer, dout = module.ReLU(), np.array([[5.0, 5.0]])
    layer.forward(np.array([[-1.0, 2.0]]))
    np.testing.assert_array_equal(layer.backward(dout), [[0, 5]])
    np.testing.assert_array_equal(dout, dout_after)


@pytest.mark.parametrize(("module", "factor"), [(notebook, 1), (numpy_ref, 3)])
def test_defect_5_the_loss_layer_ignores_dout(module, factor):
    """Uses a single sample, for which defect 1 has no effect. With four equal logits, each y is 1/4."""
    layer, logits, t = module.SoftmaxWithLoss(), np.zeros((1, 4)), np.array([[1.0, 0, 0, 0]])
    gradient = np.array([[-3 / 4, 1 / 4, 1 / 4, 1 / 4]])
    scaled = numpy_ref.numerical_gradient(lambda x: 3 * layer.forward(x, t), logits)
    np.testing.assert_allclose(scaled, 3 * gradient, rtol=0, atol=1e-8)
    layer.forward(logits, t)
    np.testing.assert_allclose(layer.backward(1.0), gradient, rtol=1e-15)
    np.testing.assert_allclose(layer.backward(3.0), factor * gradient, rtol=1e-15)


@pytest.mark.parametrize(("t", "written", "corrected"), [([0.0, 1.0], np.inf, 2000.0), ([1.0, 0.0], np.nan, 0.0)])
def test_defect_6_the_log_of_a_probability_of_0_is_infinite_or_nan(t, written, corrected):
    """log(exp(1000) + exp(-1000)) is 1000 to all digits, so the losses are 1000 + 1000 and 1000 - 1000."""
    logits, t = np.array([[1000.0, -1000.0]]), np.array([t])
    with pytest.warns(RuntimeWarning, match="divide by zero"), np.errstate(invalid="ignore"):
        np.testing.assert_equal(notebook.SoftmaxWithLoss().forward(logits, t), written)
    layer = numpy_ref.SoftmaxWithLoss()
    assert layer.forward(logits, t) == corrected
    np.testing.assert_array_equal(layer.backward(), np.array([[1.0, 0.0]]) - t)


def test_defect_7_a_dead_logit_gets_no_gradient(digits):
    """Moves logit 3 to where its probability is 0. The true gradient of its bias is then minus the share of 3s."""
    x, t = digits[0][:100], digits[1][:100]
    written, corrected = notebook.TwoLayerNet(64, 50, 10), numpy_ref.TwoLayerNet(64, 50, 10)
    for net in (written, corrected):
        net.params["Affine2"]["b"][3] = -100
    assert written.predict(x).min() == 0
    assert corrected.predict(x).min() < -90
    dead, alive = (net.gradient(x, t)["Affine2"] for net in (written, corrected))
    assert np.all(dead["W"][:, 3] == 0)
    assert dead["b"][3] == 0
    assert alive["b"][3] == pytest.approx(-t[:, 3].mean(), rel=1e-12)
    assert np.abs(alive["W"][:, 3]).max() > 0.01


@pytest.mark.slow
def test_defect_7_makes_a_digit_unrecognizable(digits, correct):
    """With defects 1 and 8 corrected, a logit dies in training, and its digit is never recognized."""
    correct(1)
    x_train, _, x_test, t_test = digits
    written, corrected = notebook.TwoLayerNet(64, 50, 10), numpy_ref.TwoLayerNet(64, 50, 10)
    notebook.train(written, *digits, np.random.default_rng(0), 1000, 0.1)
    numpy_ref.train(corrected, *digits, batches(x_train, 1000), 0.1, eval_every=1000)
    written, corrected = (
        min(net.accuracy(x_test[rows], t_test[rows]) for rows in t_test.T == 1) for net in (written, corrected)
    )
    assert written == 0
    assert corrected > 0.7


@pytest.mark.slow
def test_defect_8_the_learning_rate_is_too_small(dataset, correct):
    """Compares test accuracies after 1,000 steps, with defects 1 and 7 corrected as well. The expected values are the
    notebook's for MNIST, and those of seeds 0 to 2 for digits; other seeds change either by 0.01."""
    correct(1)
    name, data = dataset
    slow, fast = {"digits": (0.855, 0.958), "mnist": (0.85, 0.93)}[name]
    written, corrected = (module.TwoLayerNet(data[0].shape[1], 50, 10) for module in (notebook, numpy_ref))
    del written.layers["Relu2"]
    rows = notebook.train(written, *data, np.random.default_rng(0), 1001)
    history = numpy_ref.train(corrected, *data, batches(data[0], 1000), eval_every=1000)
    assert rows[-1][-1] == pytest.approx(slow, abs=0.02)
    assert history.test_accuracy[-1] == pytest.approx(fast, abs=0.02)


@pytest.mark.slow
def test_defect_9_a_failed_gradient_check_does_not_stop_the_notebook(digits, capsys):
    x, t = digits[0][:3], digits[1][:3]
    means = notebook.gradient_check(notebook.TwoLayerNet(64, 50, 10), x, t)
    assert max(difference / analytic for analytic, _, difference in means.values()) > 0.4
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(AssertionError, match=r"Affine2\.b\[\d\]: .*receives a wrong gradient from last"):
        check_network(notebook.TwoLayerNet(64, 50, 10), x, t).raise_if_failed()
    check_network(numpy_ref.TwoLayerNet(64, 50, 10), x, t).raise_if_failed()
