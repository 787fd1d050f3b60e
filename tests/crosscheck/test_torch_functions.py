"""Tests that planted bugs in PyTorch functions are found, and that right functions do not fail."""

import pytest

torch = pytest.importorskip("torch")

from conftest import sampled  # noqa: E402
from mutants.torch_functions import TORCH_CASES, Ability  # noqa: E402
from mutants.torch_scoreboard import TORCH_CHECKERS, judge  # noqa: E402

OURS = TORCH_CHECKERS["jaxnet.crosscheck"]
UNDECIDED = {"rounding_straight_through", "cubed_in_half"}  # not proved to be wrong
MISSED = {"FirstKeptByClass"}  # right at the inputs of the first call, and at no others
WRONG = [name for name, case in TORCH_CASES.items() if not case.right]
RIGHT = [name for name, case in TORCH_CASES.items() if case.right]


def test_the_numbers_of_cases_are_those_in_the_readme():
    assert (len(WRONG), len(RIGHT)) == (111, 65)
    assert {case.ability for case in TORCH_CASES.values()} == set(Ability)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(WRONG, 24))
def test_a_planted_bug_is_found(name):
    expected = "unsure" if name in UNDECIDED else "right" if name in MISSED else "wrong"
    assert judge(OURS, TORCH_CASES[name], seed=0) == expected, TORCH_CASES[name].sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(RIGHT, 24))
def test_a_right_function_does_not_fail(name):
    assert judge(OURS, TORCH_CASES[name], seed=0) != "wrong", TORCH_CASES[name].sentence


def test_gradcheck_answers_too():
    for name, answer in {"square": "right", "square_factor": "wrong"}.items():
        assert judge(TORCH_CHECKERS["gradcheck, slow"], TORCH_CASES[name], seed=0) == answer
        assert judge(TORCH_CHECKERS["both, all features"], TORCH_CASES[name], seed=0) == answer
