"""Texts as numbers, what is held out of them, and sampling more of one."""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_params

import jaxnet
from jaxnet.data import DatasetError, text


def test_a_text_and_its_ids_are_each_others_inverse():
    words = "naïve\ncafé\t→ ok"
    vocabulary = text.vocabulary_of(words)
    ids = text.encode(words, vocabulary)
    assert ids.dtype == np.int32
    assert sorted(set(ids.tolist())) == list(range(len(vocabulary)))
    assert text.decode(ids, vocabulary) == words


@pytest.mark.parametrize(("characters", "stride"), [(200, 1), (9000, 4), (100_000, 8)])
def test_windows_say_what_comes_next_and_the_end_is_held_out(characters, stride):
    words = "".join(chr(ord("a") + i) for i in np.random.default_rng(0).integers(0, 26, characters))
    vocabulary = text.vocabulary_of(words)
    data = text.windows(words, vocabulary, 8)
    begin = characters - max(characters // 10, 9)
    assert text.decode(data.x_train[0], vocabulary) == words[:8]
    assert text.decode(data.x_train[3], vocabulary) == words[3 * stride : 3 * stride + 8]
    assert text.decode(data.x_test[0], vocabulary) == words[begin : begin + 8]
    for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
        np.testing.assert_array_equal(x[:, 1:], t[:, :-1])
    assert (len(data.x_train) - 1) * stride + 8 < begin  # not a character of what is held out is trained on
    assert len(data.x_train) >= min(2000, begin - 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text.windows("abcabcabc", "abc", 4), "text: 9 characters, expected at least 10"),
        (lambda: text.windows("abc" * 9, "abc", 0), "windows of 0"),
        (lambda: text.encode("abd", "abc"), "'d' is not in the vocabulary"),
    ],
)
def test_texts_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_text_of_ones_own_is_read_and_what_is_none_is_one_line(tmp_path):
    (tmp_path / "mine.txt").write_text("für mich", encoding="utf-8")
    assert text.read_text(tmp_path / "mine.txt") == "für mich"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for name in ("bytes", "nowhere.txt"):
        with pytest.raises(DatasetError, match=f"{name}: cannot be read") as refused:
            text.read_text(tmp_path / name)
        assert len(str(refused.value).splitlines()) == 1


def test_the_readme_is_found_in_a_checkout_in_an_installed_package_and_else_asked_for(monkeypatch, tmp_path):
    assert text.read_text().startswith("# jaxnet\n")
    monkeypatch.setattr(text, "__file__", str(tmp_path / "site-packages" / "jaxnet" / "data" / "text.py"))

    class Installed:
        def read_text(self, name):
            return {"METADATA": "Name: jaxnet\nDescription-Content-Type: text/markdown\n\n# it\n\nall of it"}[name]

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert text.read_text() == "# it\n\nall of it"

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DatasetError, match="name a text of yours"):
        text.read_text()


NET, LENGTH = jaxnet.transformer(5, 6, size=8, heads=2, blocks=1), 6


def one_by_one(params, prompt, keys, temperature):
    """The same, written with a growing list."""
    ids, infer = list(prompt), jax.jit(NET.infer)
    for key in keys:
        logits = infer(params, {}, jnp.array([ids[-LENGTH:]]))[0, -1]
        ids.append(int(jax.random.categorical(key, logits[None] / temperature)[0]))
    return ids[len(prompt) :]


@pytest.mark.parametrize("prompt", [[3, 1, 0, 2], [1, 2, 3, 4, 0, 1], [0, 1, 2, 3, 4, 0, 1, 2, 3]])
def test_samples_are_drawn_from_what_the_net_says_of_the_last_characters(prompt):
    params, key = random_params(NET, dtype=np.float32), jax.random.key(3)
    ids = jaxnet.sample(NET, params, {}, key, np.array([prompt]), 0.7, length=LENGTH, count=10)
    assert ids.shape == (1, 10)
    assert ids[0].tolist() == one_by_one(params, prompt, jax.random.split(key, 10), 0.7)


@pytest.mark.slow
def test_a_low_temperature_takes_the_likeliest_and_the_key_decides_at_a_high_one():
    params = random_params(NET, dtype=np.float32)
    prompts = np.repeat([[0, 1]], 4, axis=0)
    cold, hot, other = (
        jaxnet.sample(NET, params, {}, jax.random.key(k), prompts, temperature, length=LENGTH, count=20)
        for k, temperature in ((0, 1e-4), (0, 5.0), (1, 5.0))
    )
    likeliest = NET.infer(params, {}, prompts[:1])[0, -1].argmax()
    assert (cold == cold[0]).all()
    assert cold[0, 0] == likeliest
    assert not (hot == hot[0]).all()
    assert not (hot == other).all()


def test_a_prompt_of_nothing_is_refused():
    params = random_params(NET, dtype=np.float32)
    for prompt, count in ((np.zeros((1, 0), int), 3), (np.zeros((1, 2)), 3), (np.zeros((1, 2), int), 0)):
        with pytest.raises(ValueError, match="expected"):
            jaxnet.sample(NET, params, {}, jax.random.key(0), prompt, length=LENGTH, count=count)


@pytest.mark.parametrize("samples", [1, 249, 250, 251, 500, 620])
def test_predictions_do_not_depend_on_the_chunks(rng, samples):
    net = jaxnet.two_layer_net(6, 5, 3)
    params, x = random_params(net, dtype=np.float32), rng.standard_normal((samples, 6)).astype(np.float32)
    predicted = jaxnet.predict(net, params, {}, x)
    np.testing.assert_allclose(predicted, net.infer(params, {}, x), rtol=0, atol=1e-5)
