"""Compares batches that are drawn a block at a time with those that are drawn at once, and runs that train on both."""

import jax
import numpy as np
import pytest
from conftest import a_dataset, slow

import jaxnet
from jaxnet.train import random_batches
from jaxnet.train.checkpoints import identity

KEYS = {
    "typed": jax.random.key(0),
    "large seed": jax.random.key(2**31 + 5),
    "untyped": jax.random.PRNGKey(3),
    "another kind": jax.random.key(4, impl="rbg"),
}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Makes blocks of 7 steps of 10 rows."""
    monkeypatch.setattr(random_batches, "BLOCK_NUMBERS", 70)
    monkeypatch.setattr(random_batches, "MIN_BLOCK", 1)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("samples", [1, 1000, 2**16 + 1, 2**31 - 1])
def test_blocks_have_the_row_numbers_that_are_drawn_at_once(key, samples):
    batches = jaxnet.RandomBatches(key, samples, 10, 40)
    whole = np.asarray(jaxnet.draw_batches(key, samples, 10, 40))
    assert len(batches.draw(0)) == 7
    np.testing.assert_array_equal(batches[:], whole)
    np.testing.assert_array_equal(batches[12:30], whole[12:30])
    np.testing.assert_array_equal(batches.draw(33), whole[33:])


def arguments():
    data, net = a_dataset(np.random.default_rng(0)), jaxnet.two_layer_net(12, 8, 5)
    whole = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), 10, 40)
    return net, data, whole, jaxnet.RandomBatches(jax.random.key(1), len(data.x_train), 10, 40)


def assert_same_bits(one, other):
    leaves = (jax.tree.leaves((run.state.params, run.history)) for run in (one, other))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("max_data_bytes", [slow(None), 6000])
def test_a_run_has_the_same_bits_and_is_resumed_within_a_block(max_data_bytes):
    net, data, whole, batches = arguments()
    params, settings = net.init(jax.random.key(0), "he"), {"eval_every": 9, "max_data_bytes": max_data_bytes}
    expected = jaxnet.fit(net, params, data, whole, eval_every=9)
    runs = list(jaxnet.iter_fit(net, params, data, batches, **settings))
    assert_same_bits(runs[-1], expected)
    stopped = next(run for run in runs if len(run.history.loss) == 18)
    assert_same_bits(jaxnet.fit(net, params, data, batches, resume=stopped, **settings), expected)


@pytest.mark.slow
def test_a_sweep_has_the_same_bits(monkeypatch):
    monkeypatch.setattr(random_batches, "MIN_BLOCK", 100)
    net, data, *_ = arguments()
    key, count = jax.random.key(1), (len(data.x_train), 10, 250)
    results = [
        jaxnet.sweep(net, data, draw(key, *count), learning_rates=[0.01, 0.1])
        for draw in (jaxnet.draw_batches, jaxnet.RandomBatches)
    ]
    np.testing.assert_array_equal(results[0].loss, results[1].loss)


def described(**changed):
    net, data, *_ = arguments()
    counts = {"key": jax.random.key(1), "samples": 60, "batch_size": 10, "steps": 40} | changed
    return identity(net, data, jaxnet.RandomBatches(**counts), np.float32, {})["batches"]


def test_the_identity_tells_what_batches_are_drawn_from():
    others = [{"samples": 59}, {"batch_size": 9}, {"steps": 39}, *({"key": key} for key in KEYS.values())]
    assert len({described(), *(described(**other) for other in others)}) == 1 + len(others)


def test_the_identity_of_a_long_run_is_described_without_drawing_all_batches(monkeypatch):
    drawn, draw = [], jaxnet.RandomBatches.draw
    monkeypatch.setattr(jaxnet.RandomBatches, "draw", lambda self, start: drawn.append(start) or draw(self, start))
    described(steps=10_000_000)
    assert sorted(drawn) == [0, 10_000_000 - 7]


def test_batches_of_more_rows_than_there_are_are_refused():
    net, data, *_ = arguments()
    batches = jaxnet.RandomBatches(jax.random.key(1), len(data.x_train) + 1, 10, 40)
    with pytest.raises(ValueError, match=r"^batches: drawn from 61 rows, expected at most 60"):
        jaxnet.fit(net, net.init(jax.random.key(0), "he"), data, batches)
