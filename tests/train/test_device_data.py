"""Tests that pixels are stored as bytes on the device, and other data unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.train.device_data import to_device, to_floats


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_become_the_quotients_that_numpy_computes(dtype, x64):
    k = np.arange(256, dtype=np.uint8).reshape(2, 128)
    np.testing.assert_array_equal(jax.jit(lambda rows: to_floats(rows, dtype))(k), k.astype(dtype) / dtype(255))


def test_only_floats_that_bytes_represent_exactly_are_stored_as_bytes(rng):
    pixels = (rng.integers(0, 256, (20, 30)) / 255).astype(np.float32)
    assert to_device(pixels, np.float32).dtype == np.uint8
    np.testing.assert_array_equal(to_floats(to_device(pixels, np.float32), np.float32), pixels)
    for other in (pixels * np.float32(1 + 2e-7), pixels - 1, pixels * 2, pixels / 255 * 16):
        stored = to_device(other.astype(np.float32), np.float32)
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(to_floats(stored, np.float32), other.astype(np.float32))


def test_integers_are_not_pixels():
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert to_device(ids, np.float32).dtype == jnp.int32
    np.testing.assert_array_equal(to_floats(to_device(ids, np.float32), np.float32), ids)
