"""Tests the encoding of texts, their division into training and test windows, and sampling from a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_params, sampled

import jaxnet
from jaxnet.data import DatasetError, datasets, text
from jaxnet.nn import decoding
from jaxnet.nn.layers import stateless


def test_decode_inverts_encode():
    source = "naïve\ncafé\t→ ok"
    vocabulary = text.vocabulary_of(source)
    ids = text.encode(source, vocabulary)
    assert ids.dtype == np.int32
    assert sorted(set(ids.tolist())) == list(range(len(vocabulary)))
    assert text.decode(ids, vocabulary) == source


@pytest.mark.parametrize(("characters", "stride"), [(200, 1), (9000, 4), (100_000, 8)])
def test_labels_are_the_next_characters_and_the_end_is_held_out(characters, stride):
    source = "".join(chr(ord("a") + i) for i in np.random.default_rng(0).integers(0, 26, characters))
    vocabulary = text.vocabulary_of(source)
    data = text.windows(source, vocabulary, 8)
    begin = characters - max(characters // 10, 9)
    assert text.decode(data.x_train[0], vocabulary) == source[:8]
    assert text.decode(data.x_train[3], vocabulary) == source[3 * stride : 3 * stride + 8]
    assert text.decode(data.x_test[0], vocabulary) == source[begin : begin + 8]
    for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
        np.testing.assert_array_equal(x[:, 1:], t[:, :-1])
    assert (len(data.x_train) - 1) * stride + 8 < begin  # no held-out character is trained on
    assert len(data.x_train) >= min(2000, begin - 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text.windows("abcabcabc", "abc", 4), "text: 9 characters, expected at least 10"),
        (lambda: text.windows("abc" * 9, "abc", 0), "windows of 0"),
        (lambda: text.encode("abd", "abc"), "'d' is not in the vocabulary"),
    ],
)
def test_short_texts_and_unknown_characters_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_text_file_is_read_and_another_file_raises_a_one_line_error(tmp_path):
    (tmp_path / "mine.txt").write_text("für mich", encoding="utf-8")
    assert text.read_text(tmp_path / "mine.txt") == "für mich"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for name in ("bytes", "nowhere.txt"):
        with pytest.raises(DatasetError, match=f"{name}: cannot be read") as refused:
            text.read_text(tmp_path / name)
        assert len(str(refused.value).splitlines()) == 1


def test_the_default_text_describes_the_data_sets_of_scikit_learn(monkeypatch):
    default = text.read_text()
    assert len(default) > 40_000
    from sklearn.datasets import load_iris, load_wine

    assert load_iris().DESCR in default  # as scikit-learn itself reads them
    assert load_wine().DESCR in default
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="a transformer without --text needs the extra"):
        text.read_text()


NET, LENGTH = jaxnet.transformer(5, 6, size=8, heads=2, blocks=1), 6


def sample_one_by_one(params, prompt, keys, temperature):
    """Samples with a growing list, as the expected result of `jaxnet.sample`."""
    ids, infer = list(prompt), jax.jit(NET.infer)
    for key in keys:
        logits = infer(params, {}, jnp.array([ids[-LENGTH:]]))[0, -1]
        ids.append(int(jax.random.categorical(key, logits[None] / temperature)[0]))
    return ids[len(prompt) :]


@pytest.mark.slow
def test_each_position_with_a_cache_has_the_logits_of_the_whole_window(x64):
    net = jaxnet.transformer(5, 6, size=8, heads=2, blocks=2, dropout=0.1)
    params, ids = random_params(net), np.random.default_rng(0).integers(0, 5, (3, 6))
    expected, cache = net.infer(params, {}, ids), decoding.empty_cache(net, 3, 6, float)
    for i in range(6):
        position = decoding.Position(np.array(i), ids[:, i : i + 1])
        logits, cache = decoding.decode(net, params, {}, cache, position)
        np.testing.assert_allclose(logits[:, 0], expected[:, i], rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_networks_without_causal_attention_are_sampled_by_whole_windows():
    """Logits that depend on all ids before: the next id is their sum modulo 5, for certain."""
    count_up = stateless(("Sum",), lambda _key, _std: {}, lambda _, x: 1e4 * jax.nn.one_hot(x.cumsum(axis=1) % 5, 5))
    assert not decoding.can_decode(count_up)
    assert decoding.can_decode(NET)
    ids = jaxnet.sample(count_up, {}, {}, jax.random.key(0), np.array([[1, 3]]), length=3, count=4)
    assert ids.tolist() == [[4, 3, 0, 2]]  # 1 + 3, 1 + 3 + 4, 3 + 4 + 3, 4 + 3 + 0


@pytest.mark.slow
@pytest.mark.parametrize("prompt", sampled([[0, 1, 2, 3, 4, 0, 1, 2, 3], [3, 1, 0, 2], [1, 2, 3, 4, 0, 1]], every=3))
def test_each_sample_is_drawn_from_the_logits_of_the_last_characters(prompt):
    params, key = random_params(NET, dtype=np.float32), jax.random.key(3)
    ids = jaxnet.sample(NET, params, {}, key, np.array([prompt]), 0.7, length=LENGTH, count=10)
    assert ids.shape == (1, 10)
    assert ids[0].tolist() == sample_one_by_one(params, prompt, jax.random.split(key, 10), 0.7)


@pytest.mark.slow
def test_samples_are_argmaxes_at_a_low_temperature_and_depend_on_the_key_at_a_high_one():
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


def test_an_invalid_prompt_or_count_is_refused():
    params = random_params(NET, dtype=np.float32)
    for prompt, count in ((np.zeros((1, 0), int), 3), (np.zeros((1, 2)), 3), (np.zeros((1, 2), int), 0)):
        with pytest.raises(ValueError, match="expected"):
            jaxnet.sample(NET, params, {}, jax.random.key(0), prompt, length=LENGTH, count=count)


@pytest.mark.parametrize("samples", [1, 249, 250, 251, 500, 620])
def test_predictions_in_chunks_equal_those_of_one_call(rng, samples):
    net = jaxnet.two_layer_net(6, 5, 3)
    params, x = random_params(net, dtype=np.float32), rng.standard_normal((samples, 6)).astype(np.float32)
    predicted = jaxnet.predict(net, params, {}, x)
    np.testing.assert_allclose(predicted, net.infer(params, {}, x), rtol=0, atol=1e-5)
