"""Tests that samples read from the host, ahead of the steps, train as samples on the device do."""

import gc
import sys
import threading
import time

import jax
import numpy as np
import pytest
from conftest import random_params

import jaxnet
from jaxnet.train.sample_sources import SHARES, bytes_of

ROWS, STEPS, BATCH = 305, 37, 10
SAMPLE = 4 * (12 + 1)  # bytes of 12 float32 numbers and a label
SETTINGS = {"eval_every": 10, "learning_rate": 0.05, "optimizer": "momentum"}


def in_files(folder, **arrays):
    """Returns a Dataset of memory maps of these arrays."""
    maps = {}
    for name, array in arrays.items():
        maps[name] = np.memmap(folder / name, array.dtype, "w+", shape=array.shape)
        maps[name][:] = array
    return jaxnet.Dataset(**maps)


@pytest.fixture
def data(tmp_path, rng):
    return in_files(
        tmp_path,
        x_train=rng.normal(size=(ROWS, 12)).astype(np.float32), t_train=rng.integers(0, 5, ROWS),
        x_test=rng.normal(size=(31, 12)).astype(np.float32), t_test=rng.integers(0, 5, 31),
    )  # fmt: skip


@pytest.fixture
def net():
    return jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)


def arguments(net, data):
    batches = jaxnet.draw_batches(jax.random.key(1), ROWS, BATCH, STEPS)
    return (net, random_params(net, dtype=np.float32), data, batches), SETTINGS | {"key": jax.random.key(3)}


def assert_same_bits(run, other):
    for a, b in zip(*(jax.tree.leaves((r.state._replace(key=0), r.history)) for r in (run, other)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_two_layer_network_has_the_same_bits_wherever_its_samples_are(data):
    positional, named = arguments(jaxnet.two_layer_net(12, 8, 5), data)
    limit = SHARES * BATCH * SAMPLE * 2
    assert_same_bits(jaxnet.fit(*positional, **named), jaxnet.fit(*positional, max_data_bytes=limit, **named))


@pytest.mark.slow
@pytest.mark.parametrize("steps_in_a_block", [1, 4])
def test_a_run_has_the_same_bits_wherever_its_samples_are(net, data, steps_in_a_block):
    positional, named = arguments(net, data)
    limit = SHARES * BATCH * SAMPLE * steps_in_a_block
    assert limit < bytes_of(data, ROWS, np.float32)
    assert_same_bits(jaxnet.fit(*positional, **named), jaxnet.fit(*positional, max_data_bytes=limit, **named))


@pytest.mark.slow
def test_a_run_whose_samples_are_read_is_resumed_within_a_block(net, data):
    positional, named = arguments(net, data)
    named["max_data_bytes"] = SHARES * BATCH * SAMPLE * 4
    for middle in jaxnet.iter_fit(*positional, **named):
        if middle.state.step == 10:
            break
    assert_same_bits(jaxnet.fit(*positional, **named), jaxnet.fit(*positional, resume=middle, **named))


@pytest.mark.slow
def test_ids_are_read_as_ids(tmp_path, rng):
    texts = rng.integers(0, 7, (60, 7))
    data = in_files(
        tmp_path, x_train=texts[:50, :-1], t_train=texts[:50, 1:], x_test=texts[50:, :-1], t_test=texts[50:, 1:]
    )
    net = jaxnet.transformer(7, 6, 8, 2, 1)
    batches = jaxnet.draw_batches(jax.random.key(1), 50, 4, 12)
    positional, named = (net, random_params(net, dtype=np.float32), data, batches), {"eval_every": 5}
    assert_same_bits(jaxnet.fit(*positional, **named), jaxnet.fit(*positional, max_data_bytes=2000, **named))


@pytest.mark.slow
def test_the_device_holds_no_more_bytes_of_samples_than_allowed(net, data):
    positional, named = arguments(net, data)
    limit = SHARES * BATCH * SAMPLE * 2
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(positional[1]))
    for _ in jaxnet.iter_fit(*positional, max_data_bytes=limit, **named):
        live = sum(array.nbytes for array in jax.live_arrays()) - before
        assert live < limit + 10 * parameters + 4 * STEPS * (BATCH + 1)


@pytest.mark.slow
def test_no_thread_outlives_a_run(net, data):
    positional, named = arguments(net, data)
    before = threading.active_count()
    for _ in jaxnet.iter_fit(*positional, max_data_bytes=SHARES * BATCH * SAMPLE, **named):
        break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.slow
def test_a_run_whose_samples_are_read_diverges_with_the_same_message(net, data):
    positional, named = arguments(net, data)
    messages = []
    for limit in (None, SHARES * BATCH * SAMPLE):
        with pytest.raises(jaxnet.DivergedError) as caught:
            jaxnet.fit(*positional, max_data_bytes=limit, **named | {"learning_rate": 1e30})
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


class Broken(np.ndarray):
    """Rows of which those after the 100th cannot be read."""

    def __getitem__(self, rows):
        if np.ndim(rows) == 2 and np.max(rows) > 100:
            raise OSError("the disk is gone")
        return super().__getitem__(rows)


@pytest.mark.slow
def test_what_fails_while_samples_are_read_ahead_ends_the_run(net, data):
    data = data._replace(x_train=np.asarray(data.x_train).view(Broken))
    positional, named = arguments(net, data)
    with pytest.raises(OSError, match="the disk is gone"):
        jaxnet.fit(*positional, max_data_bytes=SHARES * BATCH * SAMPLE, **named)


def test_too_few_bytes_are_refused(net, data):
    positional, named = arguments(net, data)
    with pytest.raises(ValueError, match=f"max_data_bytes: 1000, expected at least {6 * BATCH * SAMPLE}, room for 6"):
        jaxnet.fit(*positional, max_data_bytes=1000, **named)
    with pytest.raises(ValueError, match="max_data_bytes: 0, expected a whole number of at least 1"):
        jaxnet.fit(*positional, max_data_bytes=0, **named)


def test_without_grain_the_message_says_what_to_install(net, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    positional, named = arguments(net, data)
    with pytest.raises(ValueError, match=r"max_data_bytes: needs grain: pip install \"jaxnet-crosscheck\[stream\]\""):
        jaxnet.fit(*positional, max_data_bytes=10**9, **named)
