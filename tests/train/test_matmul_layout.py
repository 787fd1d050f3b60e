"""Tests that both layouts of weights have the same results, and which one is chosen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import a_dataset, hand_built, random_params, sampled

import jaxnet
import numpy_ref
from jaxnet.train import compiled_steps, device_data, matmul_layout, step_config
from jaxnet.train.matmul_layout import Form, Layout


@pytest.mark.slow
@pytest.mark.parametrize("positions", [(), (3,)], ids=["rows", "positions"])
def test_transposed_and_as_written_networks_have_equal_outputs_and_gradients(rng, x64, positions):
    net = jaxnet.multi_layer_net(6, [5, 4], 3, "tanh")
    params, x = random_params(net), rng.standard_normal((7, *positions, 6))
    t = rng.integers(0, 3, (7, *positions))

    @partial(jax.jit, static_argnums=0)
    def results(layout):
        value, grads = jax.value_and_grad(lambda p: jaxnet.loss(layout.network(net), p, x, t, weight_decay=0.1))(params)
        return value, grads, layout.network(net).infer(params, net.state, x)

    for a, b in zip(*map(jax.tree.leaves, map(results, (Layout.TRANSPOSED, Layout.AS_WRITTEN))), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15 * 6)  # sums of 6 numbers of order 1


def test_converting_twice_changes_nothing():
    net = jaxnet.two_layer_net(4, 3, 2)
    tree = {"params": random_params(net), "key": jax.random.key(0), "step": jnp.array(3)}
    converted = Layout.TRANSPOSED.convert(tree)
    assert converted["params"]["Affine1"]["W"].shape == (3, 4)
    twice = Layout.TRANSPOSED.convert(converted)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), twice, tree)))


NARROW, WIDE = 50, 256
AS_WRITTEN, TRANSPOSED, FOR_CPU = Form(), Form(Layout.TRANSPOSED), Form(Layout.FOR_CPU)
BY_EIGEN, FOR_CPU_BY_EIGEN = Form(uses_eigen=True), Form(Layout.FOR_CPU, uses_eigen=True)


@pytest.mark.parametrize(
    ("net", "rows", "form"),
    [
        (jaxnet.two_layer_net(784, NARROW, 10), 32, TRANSPOSED),
        (jaxnet.two_layer_net(784, NARROW, 10), 100, BY_EIGEN),
        (jaxnet.two_layer_net(784, NARROW, 10), 1000, TRANSPOSED),
        (jaxnet.notebook_net(784, NARROW, 10), 1000, TRANSPOSED),
        (jaxnet.two_layer_net(784, WIDE - 1, 10), 128, BY_EIGEN),
        (jaxnet.two_layer_net(784, WIDE, 10), 128, AS_WRITTEN),
        (jaxnet.multi_layer_net(784, [512, 512], 10), 128, AS_WRITTEN),
        (jaxnet.multi_layer_net(64, [NARROW], 10, batch_norm=True), 32, BY_EIGEN),
        (jaxnet.multi_layer_net(64, [NARROW], 10, dropout=0.5), 32, BY_EIGEN),
        (jaxnet.simple_conv_net(), 1000, FOR_CPU_BY_EIGEN),
        (jaxnet.transformer(20, 8, size=64), 1000, FOR_CPU),  # its MLP has 256 columns
        (jaxnet.nn.affine(4, 3), 32, BY_EIGEN),
        (jaxnet.nn.sequential({}), 32, BY_EIGEN),
        (jaxnet.nn.sequential({"Relu1": jaxnet.nn.relu()}), 32, TRANSPOSED),
    ],
    ids=lambda value: value.description[0] if isinstance(value, jaxnet.nn.Layer) else str(value),
)
def test_the_usual_form_is_possible_and_the_one_that_is_faster(net, rows, form):
    params = jax.eval_shape(lambda key: net.init(key, 0.1), jax.random.key(0))
    assert matmul_layout.usual_form(net, params, rows) == form
    assert form in matmul_layout.possible_forms(net)


def test_eigen_multiplies_where_ynnpack_is_disabled():
    options = matmul_layout._without_ynnpack()  # empty if this version of XLA does not have the option
    assert (BY_EIGEN.compiler_options, AS_WRITTEN.compiler_options) == (options, {})


def test_xla_has_the_option_to_disable_ynnpack_or_does_not_use_it():
    """The option is private to XLA: if a version renames it, this fails, and the figures in the README are outdated."""
    options = matmul_layout._without_ynnpack()
    assert (
        options or "ynn" not in jax.jit(jnp.matmul).lower(jnp.ones((64, 512)), jnp.ones((512, 512))).compile().as_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("small_product", [0, matmul_layout.SMALL_PRODUCT], ids=["as written", "transposed"])
@pytest.mark.parametrize("gathered", sampled([3, 1, 100], every=3), ids="gathered {}".format)
def test_the_trajectory_does_not_depend_on_the_layout_or_the_number_of_gathered_batches(
    rng, x64, monkeypatch, small_product, gathered
):
    """35 steps in chunks of 10 are not a multiple of 3; a batch gathered twice or not at all would show in its loss."""
    data = jax.tree.map(lambda a: a.astype(float) if a.ndim == 2 else a, a_dataset(rng))
    batches = jaxnet.draw_batches(jax.random.key(7), len(data.x_train), 10, 35)
    monkeypatch.setattr(matmul_layout, "SMALL_PRODUCT", small_product)
    monkeypatch.setattr(compiled_steps, "GATHERED_BYTES", gathered * 10 * 12 * 8)  # rows of 12 numbers of 8 bytes
    net = jaxnet.two_layer_net(12, 7, 5)
    params = random_params(net)
    network = hand_built(net, params)
    by_hand = numpy_ref.train(network, *data, np.asarray(batches), 0.1, eval_every=10)
    jax.clear_caches()  # the constants above are not arguments of the programs
    state, history = jaxnet.fit(net, params, data, batches, learning_rate=0.1, eval_every=10)
    np.testing.assert_allclose(history.loss, by_hand.loss, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(history.test_accuracy, by_hand.test_accuracy)
    for array, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(network.params), strict=True):
        np.testing.assert_allclose(array, other, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_every_product_of_the_compiled_program_is_transposed():
    """Without the barriers, XLA swaps the operands: then one of them is (784, 50) or (1000, 50)."""
    net = jaxnet.two_layer_net(784, 50, 10)
    params = net.init(jax.random.key(0), 0.1)
    config, hyperparameters = step_config.configure(net, params, learning_rate=0.1)
    state = jaxnet.initial_state(net, params, learning_rate=0.1)
    data = device_data.TrainingData(jnp.zeros((2000, 784)), jnp.zeros(2000, int), jnp.zeros((5, 1000), int))
    lowered = compiled_steps.compiled_in(TRANSPOSED, compiled_steps.run_steps, "config", "max_steps").lower(
        config._replace(form=TRANSPOSED), hyperparameters, state, data, 5, max_steps=5
    )
    products = [line.split(" = ")[1] for line in lowered.compile().as_text().splitlines() if " dot(" in line]
    shapes = sorted(line.split("{")[0] for line in products)
    assert shapes == ["f32[10,1000]", "f32[10,50]", "f32[50,1000]", "f32[50,1000]", "f32[50,784]"]
