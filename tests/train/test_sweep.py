"""Many runs at once are the runs one by one."""

import jax
import numpy as np
import pytest
from conftest import a_dataset

import jaxnet

RATES, SCALES, SEEDS = (0.01, 0.1, 0.5), (0.1, 0.5), (0, 3)


@pytest.fixture
def data(rng):
    return a_dataset(rng)


def batches_for(data, steps):
    return jaxnet.draw_batches(jax.random.key(7), len(data.x_train), 10, steps)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_every_run_is_the_one_that_fit_makes(data, x64, optimizer):
    """In float64, to rounding: with running statistics and masks, over more than one chunk."""
    data = data._replace(x_train=data.x_train.astype(float), x_test=data.x_test.astype(float))
    net = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    batches, seen = batches_for(data, 130), []
    found = jaxnet.sweep(
        net, data, batches, learning_rates=RATES, scales=SCALES, seeds=SEEDS, optimizer=optimizer,
        clip_norm=5.0, weight_decay=0.001, on_steps=seen.append,
    )  # fmt: skip
    assert seen == [100, 130]
    assert found.loss.shape == (3, 2, 2, 130)
    for i, j, k in [(0, 0, 0), (1, 1, 0), (2, 0, 1)]:
        _, history = jaxnet.fit(
            net, net.init(jax.random.key(SEEDS[k]), SCALES[j]), data, batches, learning_rate=RATES[i],
            optimizer=optimizer, clip_norm=5.0, weight_decay=0.001, key=jax.random.key(0),
        )  # fmt: skip
        np.testing.assert_allclose(found.loss[i, j, k], history.loss, rtol=0, atol=1e-9)
        assert found.train_accuracy[i, j, k] == pytest.approx(history.train_accuracy[-1], abs=1e-12)
        assert found.test_accuracy[i, j, k] == pytest.approx(history.test_accuracy[-1], abs=1e-12)
    assert len({loss.tobytes() for loss in found.loss.reshape(12, -1)}) == 12  # no two of them are one
    assert not found.diverged.any()


@pytest.mark.slow
def test_a_run_that_diverges_takes_no_other_with_it(data):
    net, batches = jaxnet.two_layer_net(12, 8, 5), batches_for(data, 40)
    alone = jaxnet.sweep(net, data, batches, learning_rates=[0.1])
    found = jaxnet.sweep(net, data, batches, learning_rates=[0.1, 1e25])
    assert found.diverged[:, 0, 0].tolist() == [False, True]
    np.testing.assert_allclose(found.loss[0], alone.loss[0], atol=1e-5)
    first_bad = int(np.flatnonzero(np.isnan(found.loss[1, 0, 0]))[0])
    assert 0 < first_bad < 40
    assert np.isnan(found.loss[1, 0, 0, first_bad:]).all()
    assert np.isnan(found.test_accuracy[1, 0, 0])


BAD = {
    "learning_rates: empty, expected": {"learning_rates": []},
    r"learning_rates\[1\]: -1": {"learning_rates": [0.1, -1]},
    r"scales\[0\]: nan": {"learning_rates": [0.1], "scales": [float("nan")]},
    r"learning_rates\[0\]: 1e\+39, expected a number that float32 can hold": {"learning_rates": [1e39]},
    r"seeds\[0\]: -2": {"learning_rates": [0.1], "seeds": [-2]},
    r"seeds\[1\]: 1.5, expected a whole number": {"learning_rates": [0.1], "seeds": [1, 1.5]},
    "optimizer: 'sdg'": {"learning_rates": [0.1], "optimizer": "sdg"},
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_swept_is_refused_by_name(data, message):
    with pytest.raises(ValueError, match=message):
        jaxnet.sweep(jaxnet.two_layer_net(12, 8, 5), data, batches_for(data, 10), **BAD[message])


def test_a_seed_may_be_as_large_as_a_key_takes_and_a_rate_of_any_kind_of_number(data):
    net, batches = jaxnet.two_layer_net(12, 8, 5), batches_for(data, 3)
    swept = jaxnet.sweep(net, data, batches, learning_rates=[np.float16(0.5), 0.1], seeds=[2**31])
    params = net.init(jax.random.key(2**31), 0.1)
    alone = jaxnet.fit(net, params, data, batches, learning_rate=0.1).history
    np.testing.assert_allclose(swept.loss[1, 0, 0], alone.loss, rtol=1e-6)


def test_what_the_optimizer_gathers_is_seen_to_overflow(data):
    data = data._replace(x_train=np.float32(1e25) * data.x_train)
    net = jaxnet.two_layer_net(12, 8, 5)
    swept = jaxnet.sweep(net, data, batches_for(data, 3), learning_rates=[1e-3], optimizer="adam")
    assert np.isfinite(swept.loss).all()
    assert swept.diverged.all()
