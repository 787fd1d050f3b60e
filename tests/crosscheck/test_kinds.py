"""Every kind of input gets the verdict owed, and what is held to be wrong is wrong by another derivation."""

import numpy as np
import pytest
from conftest import mostly_slow
from mutants.kinds import KINDS, Draw
from mutants.kinds.scoring import outcome
from mutants.kinds.truth import derivative, error, relative

WRONG = [name for name, kind in KINDS.items() if not kind.right]

# What is not as owed yet, by kind and seed, and why.
KNOWN = {
    ("wrong/slip/std-without-eps", 0): "it is found, and the slip is not named",
    ("wrong/slip/std-without-eps", 1): "it is found, and the slip is not named",
}

pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_as_many_as_promised():
    assert len(WRONG) >= 250


def verdict_as_owed(name, seed):
    result = outcome(KINDS[name], seed)
    if result.verdict == "SKIPPED":
        pytest.skip(result.text)
    shortfalls = result.shortfalls(KINDS[name])
    if (name, seed) in KNOWN:
        assert shortfalls, f"{name} is as owed now: remove it from KNOWN"
        pytest.xfail(KNOWN[name, seed])
    assert not shortfalls, f"{KINDS[name].sentence}\n{result.text}"


@pytest.mark.parametrize("name", mostly_slow(KINDS, 12))
def test_the_verdict_is_the_one_owed(name):
    verdict_as_owed(name, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_verdict_is_the_one_owed_for_other_inputs(name):
    verdict_as_owed(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_what_is_held_to_be_wrong_is_wrong(name):
    try:
        found = error(KINDS[name], 0)
    except ImportError as missing:
        pytest.skip(str(missing))
    assert found >= KINDS[name].off


def test_the_independent_derivation_finds_nothing_where_all_is_right():
    x, dout = Draw(0)(4, 3), Draw(1)(4, 3)
    true = derivative(lambda: float((dout * np.sin(x)).sum()), x, 1e-3)
    assert relative(dout * np.cos(x), true) < 1e-11
    assert relative(dout * np.cos(x) * (1 + 1e-6), true) == pytest.approx(1e-6, rel=1e-3)
