"""Tests that a sweep has the same results as its runs one by one."""

import jax
import numpy as np
import optax
import pytest
from conftest import a_dataset, exhaustive, mostly_slow

import jaxnet

RATES, INIT_STDS, SEEDS = (0.01, 0.1, 0.5), (0.1, 0.5), (0, 3)


@pytest.fixture
def data(rng):
    return a_dataset(rng)


def batches_for(data, steps):
    return jaxnet.draw_batches(jax.random.key(7), len(data.x_train), 10, steps)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", *map(exhaustive, ("sgd", "momentum"))])
def test_every_run_equals_that_of_fit(data, x64, optimizer):
    """Compares in float64, up to rounding, with running statistics and Dropout masks, over more than one chunk."""
    data = data._replace(x_train=data.x_train.astype(float), x_test=data.x_test.astype(float))
    net = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    batches, reports = batches_for(data, 130), []
    result = jaxnet.sweep(
        net, data, batches, learning_rates=RATES, init_stds=INIT_STDS, seeds=SEEDS, optimizer=optimizer,
        clip_norm=5.0, weight_decay=0.001, on_steps=reports.append,
    )  # fmt: skip
    assert reports == [100, 130]
    assert result.loss.shape == (3, 2, 2, 130)
    for i, j, k in [(0, 0, 0), (1, 1, 0), (2, 0, 1)]:
        _, history = jaxnet.fit(
            net, net.init(jax.random.key(SEEDS[k]), INIT_STDS[j]), data, batches, learning_rate=RATES[i],
            optimizer=optimizer, clip_norm=5.0, weight_decay=0.001, key=jax.random.key(0),
        )  # fmt: skip
        np.testing.assert_allclose(result.loss[i, j, k], history.loss, rtol=0, atol=1e-9)
        assert result.train_accuracy[i, j, k] == pytest.approx(history.train_accuracy[-1], abs=1e-12)
        assert result.test_accuracy[i, j, k] == pytest.approx(history.test_accuracy[-1], abs=1e-12)
    assert len({loss.tobytes() for loss in result.loss.reshape(12, -1)}) == 12  # all different
    assert not result.diverged.any()


@pytest.mark.slow
def test_a_diverging_run_does_not_affect_others(data):
    net, batches = jaxnet.two_layer_net(12, 8, 5), batches_for(data, 40)
    alone = jaxnet.sweep(net, data, batches, learning_rates=[0.1])
    result = jaxnet.sweep(net, data, batches, learning_rates=[0.1, 1e25])
    assert result.diverged[:, 0, 0].tolist() == [False, True]
    np.testing.assert_allclose(result.loss[0], alone.loss[0], atol=1e-5)
    first_bad = int(np.flatnonzero(np.isnan(result.loss[1, 0, 0]))[0])
    assert 0 < first_bad < 40
    assert np.isnan(result.loss[1, 0, 0, first_bad:]).all()
    assert np.isnan(result.test_accuracy[1, 0, 0])


BAD = {
    "learning_rates: empty, expected": {"learning_rates": []},
    r"learning_rates\[1\]: -1": {"learning_rates": [0.1, -1]},
    r"init_stds\[0\]: nan": {"learning_rates": [0.1], "init_stds": [float("nan")]},
    r"learning_rates\[0\]: 1e\+39, expected a number that float32 can hold": {"learning_rates": [1e39]},
    r"seeds\[0\]: -2": {"learning_rates": [0.1], "seeds": [-2]},
    r"seeds\[1\]: 1.5, expected a whole number": {"learning_rates": [0.1], "seeds": [1, 1.5]},
    r"seeds\[0\]: 4294967296, expected a whole number from 0 to 2\^32 - 1": {"learning_rates": [0.1], "seeds": [2**32]},
    "optimizer: an optax.GradientTransformation": {"learning_rates": [0.1], "optimizer": optax.sgd(0.1)},
    "optimizer: 'sdg'": {"learning_rates": [0.1], "optimizer": "sdg"},
}


@pytest.mark.parametrize("message", mostly_slow(BAD, 2))
def test_bad_input_is_refused_by_name(data, message):
    with pytest.raises(ValueError, match=message):
        jaxnet.sweep(jaxnet.two_layer_net(12, 8, 5), data, batches_for(data, 10), **BAD[message])


@pytest.mark.slow
def test_large_seeds_and_rates_of_any_float_type_are_accepted(data):
    net, batches = jaxnet.two_layer_net(12, 8, 5), batches_for(data, 3)
    result = jaxnet.sweep(net, data, batches, learning_rates=[np.float16(0.5), 0.1], seeds=[2**31])
    params = net.init(jax.random.key(2**31), 0.1)
    alone = jaxnet.fit(net, params, data, batches, learning_rate=0.1).history
    np.testing.assert_allclose(result.loss[1, 0, 0], alone.loss, rtol=1e-6)


@pytest.mark.slow
def test_an_overflow_in_the_optimizer_state_is_reported(data):
    data = data._replace(x_train=np.float32(1e25) * data.x_train)
    net = jaxnet.two_layer_net(12, 8, 5)
    result = jaxnet.sweep(net, data, batches_for(data, 3), learning_rates=[1e-3], optimizer="adam")
    assert np.isfinite(result.loss).all()
    assert result.diverged.all()
