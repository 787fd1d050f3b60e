"""Tests that planted bugs in PyTorch functions are found, and that right functions do not fail."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import sampled  # noqa: E402
from mutants.torch_functions import TORCH_CASES, Ability  # noqa: E402
from mutants.torch_scoreboard import TORCH_CHECKERS, judge  # noqa: E402

from jaxnet.crosscheck import SubjectError, Verdict, check, check_function  # noqa: E402

OURS = TORCH_CHECKERS["jaxnet.crosscheck"]
UNDECIDED = {"rounding_straight_through", "cubed_in_half"}  # not proved to be wrong
WRONG = [name for name, case in TORCH_CASES.items() if not case.right]
RIGHT = [name for name, case in TORCH_CASES.items() if case.right]


def test_the_numbers_of_cases_are_those_in_the_readme():
    assert (len(WRONG), len(RIGHT)) == (111, 65)
    assert {case.ability for case in TORCH_CASES.values()} == set(Ability)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(WRONG, 24))
def test_a_planted_bug_is_found(name):
    expected = "unsure" if name in UNDECIDED else "wrong"
    assert judge(OURS, TORCH_CASES[name], seed=0) == expected, TORCH_CASES[name].sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(RIGHT, 24))
def test_a_right_function_does_not_fail(name):
    assert judge(OURS, TORCH_CASES[name], seed=0) != "wrong", TORCH_CASES[name].sentence


def test_gradcheck_answers_too():
    for name, answer in {"square": "right", "square_factor": "wrong"}.items():
        assert judge(TORCH_CHECKERS["gradcheck, slow"], TORCH_CASES[name], seed=0) == answer
        assert judge(TORCH_CHECKERS["both, all features"], TORCH_CASES[name], seed=0) == answer


class Tripled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x  # which JAX could trace

    @staticmethod
    def backward(ctx, dout):
        return 3 * dout


tripled = Tripled.apply


def calling_its_name(x):
    return Tripled.apply(x) + 1


def calling_its_alias(x, scale=2.0):
    return scale * tripled(x)


def calling_a_caller(x):
    return calling_its_alias(x)


def of_a_closure():
    function = Tripled
    return lambda x: function.apply(x)


@pytest.mark.parametrize("inputs", [(np.arange(3.0),), ((3,),)])
@pytest.mark.parametrize("f", [calling_its_name, calling_its_alias, calling_a_caller, of_a_closure()])
def test_a_function_of_tensors_within_a_function_of_arrays_is_not_left_to_jax(f, inputs):
    for report in (check(f, *inputs), check_function(f, *inputs)):
        assert report.verdict is Verdict.FAIL
        assert [(leaf.name, leaf.derived_by) for leaf in report.leaves] == [("x", "PyTorch")]


def test_a_function_that_applies_none_stays_with_jax():
    assert check(lambda x: 2 * x, np.arange(3.0)).leaves[0].derived_by == "JAX"
    assert check_function(calling_its_name, np.arange(3.0), gradient=lambda x, dout: 2 * dout).verdict is Verdict.PASS


def test_missing_inputs_of_a_function_that_applies_one_are_named():
    with pytest.raises(SubjectError, match="calling_its_name takes x: x is missing"):
        check(calling_its_name)
