"""Products made the other way round are the same products; and which way they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import a_dataset, hand_built, random_params

import jaxnet
import numpy_ref
from jaxnet.train import compiled_steps, matmul_layout, step_config
from jaxnet.train.matmul_layout import ACROSS, AS_WRITTEN


@pytest.mark.parametrize("positions", [(), (3,)], ids=["rows", "positions"])
def test_a_network_lying_across_has_the_outputs_and_gradients_of_the_one_as_written(rng, x64, positions):
    net = jaxnet.multi_layer_net(6, [5, 4], 3, "tanh")
    params, x = random_params(net), rng.standard_normal((7, *positions, 6))
    t = rng.integers(0, 3, (7, *positions))

    def made(way):
        value, grads = jax.value_and_grad(lambda p: jaxnet.loss(way.net(net), p, x, t, decay=0.1))(params)
        return value, grads, way.net(net).infer(params, net.state, x)

    for one, other in zip(*map(jax.tree.leaves, map(made, (ACROSS, AS_WRITTEN))), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-15 * 6)  # sums of 6 numbers of order 1


def test_turning_twice_is_not_turning(rng):
    net = jaxnet.two_layer_net(4, 3, 2)
    tree = {"params": random_params(net), "key": jax.random.key(0), "step": jnp.array(3)}
    turned = ACROSS.turn(tree)
    assert turned["params"]["Affine1"]["W"].shape == (3, 4)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), ACROSS.turn(turned), tree)))


@pytest.mark.parametrize(
    ("net", "rows", "way"),
    [
        (jaxnet.two_layer_net(784, 50, 10), 32, ACROSS),
        (jaxnet.two_layer_net(784, 50, 10), 100, AS_WRITTEN),
        (jaxnet.two_layer_net(784, 50, 10), 1000, ACROSS),
        (jaxnet.notebook_net(784, 50, 10), 1000, ACROSS),
        (jaxnet.multi_layer_net(784, [512, 512], 10), 128, AS_WRITTEN),
        (jaxnet.multi_layer_net(64, [50], 10, batch_norm=True), 32, AS_WRITTEN),
        (jaxnet.multi_layer_net(64, [50], 10, dropout=0.5), 32, AS_WRITTEN),
        (jaxnet.simple_conv_net(), 1000, AS_WRITTEN),
        (jaxnet.transformer(20, 8, size=16), 1000, AS_WRITTEN),
        (jaxnet.nn.affine(4, 3), 32, AS_WRITTEN),
        (jaxnet.nn.sequential({}), 32, AS_WRITTEN),
        (jaxnet.nn.sequential({"Relu1": jaxnet.nn.relu()}), 32, ACROSS),
    ],
    ids=lambda value: value.description[0] if isinstance(value, jaxnet.nn.Layer) else None,
)
def test_only_plain_networks_lie_across_where_that_is_quicker(net, rows, way):
    assert matmul_layout.way_of(net, rows) is way


@pytest.mark.parametrize(
    ("sizes", "rows", "eigen"),
    [
        ((784, 50, 10), 32, False),
        ((784, 50, 10), 100, True),
        ((784, 50, 10), 1000, False),
        ((784, 255, 10), 128, True),
        ((784, 256, 10), 128, False),
        ((784, 512, 512, 10), 128, False),
    ],
)
def test_narrow_networks_that_stay_as_written_are_multiplied_by_eigen(sizes, rows, eigen):
    net = jaxnet.multi_layer_net(sizes[0], sizes[1:-1], sizes[-1])
    params = net.init(jax.random.key(0), 0.1)
    assert matmul_layout.by_eigen(net, params, rows) is eigen
    known = matmul_layout._without_ynnpack()  # nothing, where this version of XLA does not know of it
    assert matmul_layout.compiler_options(net, params, rows) == (known if eigen else {})


def test_this_xla_is_told_of_eigen_or_does_not_know_ynnpack():
    """The option is private to XLA: where a version renames it, this says so, and the figures in the README are old."""
    options = matmul_layout._without_ynnpack()
    assert (
        options or "ynn" not in jax.jit(jnp.matmul).lower(jnp.ones((64, 512)), jnp.ones((512, 512))).compile().as_text()
    )


@pytest.mark.parametrize("few", [0, matmul_layout.FEW], ids=["as written", "across"])
@pytest.mark.parametrize("at_once", [1, 3, 100], ids="fetched {}".format)
def test_the_trajectory_is_the_same_either_way_and_however_many_batches_are_fetched_at_once(
    rng, x64, monkeypatch, few, at_once
):
    """35 steps, in chunks of 10, are no multiple of 3; a batch fetched twice or not at all would show in its loss."""
    data = jax.tree.map(lambda a: a.astype(float) if a.ndim == 2 else a, a_dataset(rng))
    batches = jaxnet.draw_batches(jax.random.key(7), len(data.x_train), 10, 35)
    monkeypatch.setattr(matmul_layout, "FEW", few)
    monkeypatch.setattr(compiled_steps, "FETCHED", at_once * 10 * 12 * 8)  # rows of 12 numbers of 8 bytes
    net = jaxnet.two_layer_net(12, 7, 5)
    params = random_params(net)
    network = hand_built(net, params)
    by_hand = numpy_ref.train(network, *data, np.asarray(batches), 0.1, eval_every=10)
    jax.clear_caches()  # the constants above are no arguments
    state, history = jaxnet.fit(net, params, data, batches, learning_rate=0.1, eval_every=10)
    np.testing.assert_allclose(history.loss, by_hand.loss, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(history.test_accuracy, by_hand.test_accuracy)
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(network.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_program_makes_every_product_with_its_long_side_along_the_rows():
    """XLA would turn them round again if it were let: then there is one of (784, 50) or (1000, 50)."""
    net = jaxnet.two_layer_net(784, 50, 10)
    params = net.init(jax.random.key(0), 0.1)
    recipe, rates = step_config.recipe_of(net, params, {"learning_rate": 0.1})
    now = jaxnet.initial_state(net, params, learning_rate=0.1)
    x, t, batches = (jnp.zeros(*of) for of in (((2000, 784),), ((2000,), int), ((5, 1000), int)))
    lowered = compiled_steps.compiled(compiled_steps.run_steps, net, params, 1000, "recipe", "length").lower(
        recipe, rates, now, x, t, batches, 5, length=5
    )
    products_of = [line.split(" = ")[1] for line in lowered.compile().as_text().splitlines() if " dot(" in line]
    made = sorted(line.split("{")[0] for line in products_of)
    assert made == ["f32[10,1000]", "f32[10,50]", "f32[50,1000]", "f32[50,1000]", "f32[50,784]"]
