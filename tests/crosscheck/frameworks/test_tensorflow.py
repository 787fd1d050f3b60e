"""Tests functions of TensorFlow, its custom gradients, and Keras layers with their variables."""

import functools

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
keras = pytest.importorskip("keras", reason="Keras is not installed")

from jaxnet.crosscheck import SubjectError, check, check_function  # noqa: E402

RNG = np.random.default_rng(6)
X, W = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))


def product(by_x=1.0, by_w=1.0):
    """Makes x @ w with rules that are wrong by these factors."""

    @tf.custom_gradient
    def dot(x, w):
        def pull(g):
            return tf.cast(by_x, g.dtype) * (g @ tf.transpose(w)), tf.cast(by_w, g.dtype) * (tf.transpose(x) @ g)

        return x @ w, pull

    return dot


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_right_rules_pass(dtype):
    report = check(product(), tf.constant(X, dtype), tf.constant(W, dtype))
    assert report.verdict.value == "PASS", str(report)
    assert [(leaf.name, leaf.derived_by) for leaf in report.leaves] == [("x", "TensorFlow"), ("w", "TensorFlow")]


@pytest.mark.parametrize("factor", [2.0, -1.0, 1.001])
def test_wrong_rule_fails_for_its_leaf_alone(factor):
    dot = product(by_w=factor)
    for f in (lambda p: tf.tanh(dot(p["x"], p["w"])), tf.function(lambda p: tf.tanh(dot(p["x"], p["w"])))):
        report = check(f, {"x": X, "w": W})
        assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]


def test_keras_layers_with_their_variables_which_stay_as_they_were():
    network = keras.Sequential([keras.layers.Dense(5, "tanh", dtype="float64"), keras.layers.Dense(2, dtype="float64")])
    network(X)
    before = [variable.numpy() for variable in network.variables]
    report = check(network, X)
    assert report.verdict.value == "PASS", str(report)
    assert [leaf.name for leaf in report.leaves] == ["inputs", "kernel", "bias", "kernel#2", "bias#2"]
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, network.variables, strict=True))


def test_layer_in_float32_is_judged_by_its_precision():
    assert check(keras.layers.Dense(2, "tanh"), X.astype(np.float32)).verdict.value == "PASS"


def test_wrong_rule_within_a_layer_fails():
    class Layer(keras.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 2), name="w")

        def call(self, x):
            return product(by_w=2.0)(x, tf.convert_to_tensor(self.w))

    report = check(Layer(dtype="float64"), X)
    assert [(leaf.name, leaf.verdict.value) for leaf in report.leaves] == [("x", "PASS"), ("w", "FAIL")]


def test_training_mode_by_keyword_and_its_statistics_which_stay_as_they_were():
    layer = keras.layers.BatchNormalization(dtype="float64")
    layer(X)
    before = layer.moving_mean.numpy()
    assert check(functools.partial(layer, training=True), X).verdict.value == "PASS"
    assert np.array_equal(layer.moving_mean.numpy(), before)
    dropout = keras.layers.Dropout(0.5, dtype="float64")
    assert check(functools.partial(dropout, training=True), X).verdict.value == "PASS"


def test_variables_of_closures_and_objects_are_leaves():
    w = tf.Variable(W, name="w")
    assert [leaf.name for leaf in check(lambda x: tf.tanh(x @ w), X).leaves] == ["x", "w"]
    assert np.array_equal(w.numpy(), W)

    class Model:
        def __init__(self):
            self.weight = tf.Variable(W)

        def __call__(self, x):
            return tf.tanh(x @ self.weight)

    assert [leaf.name for leaf in check(Model(), tf.constant(X)).leaves] == ["x", "weight"]


def test_ids_slices_and_several_outputs():
    report = check(lambda p, i: (tf.gather(p["E"], i), tf.reduce_sum(p["E"] ** 3)), {"E": X}, np.array([0, 1, 1]))
    assert report.verdict.value == "PASS", str(report)


def test_gradient_that_is_none_where_the_output_moves_fails():
    report = check(lambda x, w: x @ tf.stop_gradient(w), tf.constant(X), tf.constant(W))
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS", "FAIL"]


def sine(rule):
    """Makes sin(x) with this gradient, which is right or wrong as a function of x too."""

    @tf.custom_gradient
    def sin(x):
        return tf.sin(x), lambda g: rule(g, x)

    return sin


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "tf.function"])
def test_right_second_derivative_passes_and_one_of_a_constant_fails(wrap):
    right = check(wrap(sine(lambda g, x: g * tf.cos(x))), tf.constant(X), order=2)
    assert right.verdict.value == "PASS", str(right)
    wrong = check(wrap(sine(lambda g, x: g * tf.stop_gradient(tf.cos(x)))), tf.constant(X), order=2)
    assert [leaf.verdict.value for leaf in wrong.leaves] == ["PASS"]
    verdicts = [(leaf.name, leaf.verdict.value) for leaf in wrong.derivatives[0].leaves]
    assert verdicts == [("x", "FAIL"), ("dout", "PASS")], str(wrong)


def test_second_derivative_of_a_rule_with_a_rule_of_its_own_that_is_wrong_by_a_factor_fails():
    @tf.custom_gradient
    def cosine(x):
        return tf.cos(x), lambda g: -1.01 * g * tf.sin(x)

    report = check(sine(lambda g, x: g * cosine(x)), X, order=2)
    assert [leaf.verdict.value for leaf in report.leaves] == ["PASS"]
    assert report.derivatives[0].leaves[0].verdict.value == "FAIL"
    assert "1.01" in report.derivatives[0].leaves[0].diagnosis


def test_second_derivatives_of_layers_variables_slices_and_several_outputs():
    layers = [keras.layers.Dense(3, "tanh", dtype="float64"), keras.layers.Dense(2, dtype="float64")]
    v = tf.Variable(W, name="v")
    for f, *inputs in (
        (keras.Sequential(layers), X),
        (lambda x: (tf.tanh(x @ v), tf.reduce_sum(x**3)), tf.constant(X)),
        (lambda e, i: tf.gather(e, i) ** 3, tf.constant(X), np.array([0, 1, 1])),
    ):
        report = check(f, *inputs, order=2)
        assert report.verdict.value == "PASS", str(report)
    assert np.array_equal(v.numpy(), W)


def test_second_derivative_that_cannot_be_had_is_refused():
    def in_numpy(g, x):
        return tf.numpy_function(lambda g, x: g * np.cos(x), [g, x], tf.float64)

    assert check(sine(in_numpy), X).verdict.value == "PASS"
    with pytest.raises(SubjectError, match=r"order: TensorFlow cannot differentiate .*become arrays; write its rules"):
        check(sine(in_numpy), X, order=2)


def test_messages_say_why_there_is_no_derivative():
    with pytest.raises(SubjectError, match="returns no gradient for any input"):
        check(lambda x: tf.numpy_function(np.sin, [x], tf.float64), X)
    with pytest.raises(SubjectError, match="expected tensors of TensorFlow"):
        check(lambda x: np.sin(x), tf.constant(X))
    with pytest.raises(SubjectError, match=r"mode: .*TensorFlow"):
        check_function(tf.sin, tf.constant(X), mode="forward")
