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


def test_messages_say_why_there_is_no_derivative():
    with pytest.raises(SubjectError, match="returns no gradient for any input"):
        check(lambda x: tf.numpy_function(np.sin, [x], tf.float64), X)
    with pytest.raises(SubjectError, match="expected tensors of TensorFlow"):
        check(lambda x: np.sin(x), tf.constant(X))
    with pytest.raises(SubjectError, match=r"mode: .*TensorFlow"):
        check_function(tf.sin, tf.constant(X), mode="forward")
