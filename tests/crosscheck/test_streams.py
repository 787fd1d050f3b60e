"""Tests that the random numbers of a check are independent of those of its user, for all seeds."""

import random

import jax
import numpy as np
import pytest

from jaxnet.crosscheck import check_layer
from jaxnet.crosscheck.streams import Stream, stream

SEEDS = [*range(60), 42, 123, 1234, 2024, 2**31 - 1, 0x6A61786E]
SHAPE = 6, 5
X = np.sin(np.arange(30.0) ** 2).reshape(SHAPE) + 2.0  # not random


def of_numpy(seed):
    rng, old = np.random.default_rng(seed), np.random.RandomState(seed)
    yield from (rng.standard_normal(64), np.random.default_rng(seed).random(64), old.randn(64))
    yield np.random.RandomState(seed).rand(64)
    for bits in (np.random.Philox, np.random.MT19937, np.random.SFC64):
        yield np.random.Generator(bits(seed)).standard_normal(64)
    yield np.random.Generator(np.random.Philox(key=seed)).standard_normal(64)
    yield np.random.default_rng([seed, seed]).standard_normal(64)
    for child in np.random.SeedSequence(seed).spawn(8):
        yield np.random.Generator(np.random.Philox(child)).standard_normal(64)


def of_jax(seed):
    for make in (jax.random.key, jax.random.PRNGKey):
        key = make(seed % 2**31)
        yield from (jax.random.normal(key, (64,)), jax.random.uniform(key, (64,)))


def of_python(seed):
    rng = random.Random(seed)
    yield np.array([rng.gauss() for _ in range(64)])


GENERATORS = {"numpy": of_numpy, "jax": of_jax, "python": of_python}


def drawn(seed):
    return {
        purpose: np.concatenate([stream(purpose, seed).standard_normal(64), stream(purpose, seed).random(64)])
        for purpose in Stream
    }


@pytest.mark.parametrize("who", GENERATORS)
def test_streams_have_no_numbers_of_a_users_generator(who):
    user_numbers = {float(value) for seed in SEEDS for some in GENERATORS[who](seed) for value in np.float32(some)}
    for seed in SEEDS:
        for purpose, numbers in drawn(seed).items():
            common = user_numbers.intersection(map(float, np.float32(numbers)))
            assert len(common) < 3, (purpose, seed)  # in float32 a few numbers are equal by chance


def test_equal_generators_would_be_detected():
    user_numbers = {float(value) for some in of_numpy(7) for value in np.float32(some)}
    assert len(user_numbers.intersection(map(float, np.float32(np.random.default_rng(7).standard_normal(64))))) == 64


def test_each_purpose_and_each_seed_has_its_own_stream():
    first = [float(values[0]) for seed in range(100) for values in drawn(seed).values()]
    assert len(set(first)) == len(first) == 100 * len(Stream)
    again = [float(values[0]) for seed in range(100) for values in drawn(seed).values()]
    assert again == first


class Watched:
    """y = tanh(x). The class records the arguments of all instances."""

    inputs, douts = [], []

    def forward(self, x):
        self.inputs.append(x.copy())
        self.y = np.tanh(x)
        return self.y.copy()

    def backward(self, dout):
        self.douts.append(np.array(dout))
        return dout * (1 - self.y**2)


def watched(*inputs, seed=0):
    kind = type("Watched", (Watched,), {"inputs": [], "douts": []})
    assert check_layer(kind(), *inputs, seed=seed).verdict == "PASS"
    return kind


def likeness(a, b):
    """Returns the absolute correlation of two arrays."""
    a, b = (np.ravel(v) - np.mean(v) for v in (a, b))
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return abs(float(a @ b)) / size if size else 0.0


def arrays_of_user():
    for seed in range(12):
        yield np.random.default_rng(seed).standard_normal(SHAPE)
        yield np.random.RandomState(seed).randn(*SHAPE)
        yield np.random.default_rng(seed).random(SHAPE)
        yield np.asarray(jax.random.normal(jax.random.key(seed), SHAPE))


ALIKE = 0.85  # 30 independent numbers exceed this correlation once in 10⁹ draws


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_dout_and_no_direction_of_a_check_equals_numbers_of_the_user(seed):
    kind = watched(X, seed=seed)
    moves = [x - X for x in kind.inputs if x.shape == SHAPE and (x != X).any()]
    douts = [dout for dout in kind.douts if dout.shape == SHAPE]
    assert len(moves) > 20
    assert douts
    for user_array in arrays_of_user():
        assert max(likeness(user_array, array) for array in [*moves, *douts]) < ALIKE


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_drawn_input_equals_numbers_of_the_user(seed):
    drawn = watched(SHAPE, seed=seed).inputs[0]
    assert max(likeness(user_array, drawn) for user_array in arrays_of_user()) < ALIKE


def test_drawn_inputs_and_dout_are_independent():
    kind = watched(SHAPE)
    assert likeness(kind.inputs[0], next(dout for dout in kind.douts if dout.shape == SHAPE)) < ALIKE


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_gradient_that_vanishes_along_the_users_input_is_found(seed):
    """Checks x / |x|, which does not change along x: if dout were x, a gradient of 0 would be correct."""
    x = np.random.default_rng(seed).standard_normal(SHAPE)

    def normalised(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True), None

    assert check_layer((normalised, lambda dout, _: np.zeros(SHAPE)), x, seed=seed).verdict == "FAIL"
