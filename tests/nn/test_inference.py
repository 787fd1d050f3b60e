"""Tests what prediction and sampling accept, and what they refuse before they compile anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet
from jaxnet.nn import inference

CHUNK = inference.chunk_of(np.zeros((1, 4)))
KEY = jax.random.key(0)
NET = jaxnet.two_layer_net(4, 3, 2)
TRANSFORMER = jaxnet.transformer(7, 6, 8, 2, 1)


@pytest.fixture(scope="module")
def params():
    return NET.init(KEY, "he")


@pytest.mark.parametrize("form", [lambda x: x.tolist(), lambda x: x.astype(">f4"), jnp.asarray, lambda x: x[::1]])
def test_samples_may_be_lists_and_arrays_of_any_byte_order(params, rng, form):
    x = rng.normal(size=(5, 4)).astype(np.float32)
    expected = NET.infer(params, {}, x)
    np.testing.assert_allclose(jaxnet.predict(NET, params, {}, form(x)), expected, rtol=1e-6)


def test_samples_of_a_memory_map_are_copied_to_the_device_by_chunks(params, rng, tmp_path, monkeypatch):
    x = rng.normal(size=(2 * CHUNK + 3, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    of_device, lengths, infer = jaxnet.predict(NET, params, {}, jnp.asarray(x)), [], inference._predict
    monkeypatch.setattr(inference, "_predict", lambda *args: lengths.append(len(args[3])) or infer(*args))
    of_file = jaxnet.predict(NET, params, {}, np.load(tmp_path / "x.npy", mmap_mode="r"))
    np.testing.assert_allclose(of_file, of_device, rtol=1e-5, atol=1e-6)
    assert lengths == [CHUNK, CHUNK, 3]


def test_a_single_number_is_no_array_of_samples(params):
    with pytest.raises(ValueError, match=r"x: 5, a single number, expected an array of samples \(N, ...\)"):
        jaxnet.predict(NET, params, {}, 5)


TRANSFORMER_CASES = {
    "x: runs from 0 to 7, expected ids from 0 to 6": lambda p: jaxnet.predict(TRANSFORMER, p, {}, np.array([[0, 7]])),
    "x: runs from -1 to 3, expected ids from 0 to 6": lambda p: jaxnet.predict(TRANSFORMER, p, {}, [[3, -1]]),
    r"x: float64 of shape \(1, 2\), expected integers": lambda p: jaxnet.predict(TRANSFORMER, p, {}, np.ones((1, 2))),
    "prompt: runs from 9 to 9, expected ids from 0 to 6": lambda p: sample(p, [[9]]),
    r"prompt: int64 of shape \(1,\), expected integers \(N, P\)": lambda p: sample(p, [1]),
    "temperature: 0, expected a finite number > 0": lambda p: sample(p, temperature=0),
    "temperature: nan, expected a finite number > 0": lambda p: sample(p, temperature=float("nan")),
    "temperature: -1.0, expected a finite number > 0": lambda p: sample(p, temperature=-1.0),
    "temperature: True, expected a finite number > 0": lambda p: sample(p, temperature=True),
    "count: 0, expected a whole number of at least 1": lambda p: sample(p, count=0),
    "length: 0, expected a whole number of at least 1": lambda p: sample(p, length=0),
    r"key: 5, expected a key, such as jax.random.key\(0\)": lambda p: sample(p, key=5),
    "key: None, expected a key": lambda p: sample(p, key=None),
}


def sample(params, prompt=((1, 2),), temperature=1.0, *, key=KEY, length=6, count=2):
    return jaxnet.sample(TRANSFORMER, params, {}, key, prompt, temperature, length=length, count=count)


@pytest.mark.parametrize("message", TRANSFORMER_CASES)
def test_what_a_network_of_ids_cannot_use_is_refused_by_name(message):
    shapes = jax.eval_shape(lambda: TRANSFORMER.init(KEY, "he"))  # no value is needed
    with pytest.raises(ValueError, match=message):
        TRANSFORMER_CASES[message](shapes)


@pytest.mark.slow
def test_a_temperature_may_be_an_array_of_one_number():
    params = TRANSFORMER.init(KEY, "he")
    np.testing.assert_array_equal(sample(params, temperature=jnp.float32(0.5)), sample(params, temperature=0.5))
