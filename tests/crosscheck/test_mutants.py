"""Tests that every planted bug is found and every right layer passes; `scripts/scoreboard.py` checks more draws."""

import numpy as np
import pytest
from conftest import exhaustive, sampled
from mutants import CASES

from jaxnet.crosscheck import check_layer

WRONG = [name for name, case in CASES.items() if not case.right]
RIGHT = [name for name, case in CASES.items() if case.right]


def draw(name, dtype, seed=0):
    rng = np.random.default_rng(seed)
    right = CASES[name].right
    return CASES[name].make(rng, dtype, 10 ** (rng.uniform(-2, 2) if right else rng.uniform(-0.5, 0.5)))


def test_the_numbers_of_cases_are_those_in_the_readme():
    assert (len(WRONG), len(RIGHT)) == (229, 83)  # the README's and the scoreboard's figures
    assert len({case.sentence for case in CASES.values()}) > 100


@pytest.mark.parametrize("name", sampled(WRONG, every=16))
def test_a_planted_bug_is_found_in_its_leaf_and_named(name):
    case = CASES[name]
    layer, inputs, _ = draw(name, np.float64)
    report = check_layer(layer, *inputs)
    assert report.verdict == "FAIL", f"missed: {case.sentence}"
    text = "\n".join([*(leaf.diagnosis or leaf.reason for leaf in report.leaves), *report.behaviour])
    assert case.says in text, f"{case.sentence}: {text}"
    if case.leaf and not report.behaviour:
        place = [f"given[{i}]" for i in range(3)] if not isinstance(layer, tuple) else []  # *given in a class
        assert {leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"} <= {case.leaf, *place}


@pytest.mark.parametrize("name", sampled(WRONG[::4], every=16))
def test_a_planted_bug_is_found_in_single_precision(name):
    layer, inputs, _ = draw(name, np.float32, seed=1)
    assert check_layer(layer, *inputs).verdict == "FAIL", CASES[name].sentence


@pytest.mark.parametrize("seed", [0, exhaustive(1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", sampled(RIGHT, every=16))
def test_a_right_layer_does_not_fail(name, dtype, seed):
    layer, inputs, _ = draw(name, dtype, seed)
    with np.errstate(over="ignore"):
        report = check_layer(layer, *inputs, seed=seed)
    assert report.verdict != "FAIL", str(report)
    assert report.verdict == "PASS" or "cannot resolve errors below" in report.text(width=None)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(RIGHT, 40))
def test_a_right_layer_agrees_with_jax(name):
    """Compares the forward passes and the gradients."""
    layer, inputs, reference = draw(name, np.float64)
    if not isinstance(layer, tuple):
        layer, inputs, reference = draw(name, np.float64, seed=2)
    report = check_layer(layer, *inputs, reference=reference)
    assert report.forward is not None
    assert report.forward.within_tolerance
    assert report.verdict != "FAIL" or "kink" in report.text(width=None)  # at a tie JAX may choose another slope
