"""Tests that every kind of input gets the expected verdict, and that wrong kinds are wrong by another derivation."""

import numpy as np
import pytest
from conftest import sampled
from mutants.kinds import KINDS, Draw
from mutants.kinds.scoring import outcome
from mutants.kinds.truth import derivative, error, relative

WRONG = [name for name, kind in KINDS.items() if not kind.right]

# Known shortfalls, by kind and seed, with the reason.
KNOWN = {
    ("wrong/slip/std-without-eps", 0): "the error is found, but the slip is not named",
    ("wrong/slip/std-without-eps", 1): "the error is found, but the slip is not named",
}

pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_at_least_250_wrong_kinds():
    assert len(WRONG) >= 250


def assert_as_expected(name, seed):
    result = outcome(KINDS[name], seed)
    if result.verdict == "SKIPPED":
        pytest.skip(result.text)
    shortfalls = result.shortfalls(KINDS[name])
    if (name, seed) in KNOWN:
        assert shortfalls, f"{name} is as expected: remove it from KNOWN"
        pytest.xfail(KNOWN[name, seed])
    assert not shortfalls, f"{KINDS[name].sentence}\n{result.text}"


@pytest.mark.parametrize("name", sampled(KINDS, 100))
def test_a_kind_gets_the_expected_verdict(name):
    assert_as_expected(name, 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", KINDS)
def test_a_kind_gets_the_expected_verdict_for_other_inputs(name):
    assert_as_expected(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(WRONG, 24))
def test_a_wrong_kind_is_wrong_by_another_derivation(name):
    try:
        relative_error = error(KINDS[name], 0)
    except ImportError as missing:
        pytest.skip(str(missing))
    assert relative_error >= KINDS[name].off


def test_the_other_derivation_finds_a_right_gradient_right():
    x, dout = Draw(0)(4, 3), Draw(1)(4, 3)
    true = derivative(lambda: float((dout * np.sin(x)).sum()), x, 1e-3)
    assert relative(dout * np.cos(x), true) < 1e-11
    assert relative(dout * np.cos(x) * (1 + 1e-6), true) == pytest.approx(1e-6, rel=1e-3)
