"""Compares gradient checkers on the `torch.autograd.Function`s of `tests/mutants/torch_functions`.

The checkers are this project's, with `order=2`, and PyTorch's `gradcheck` and `gradgradcheck`. With all features on,
`check_forward_ad` and `check_batched_grad` are set for the functions that have a jvp or a vmap rule: both flags reject
a function without one.
"""

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import gradcheck, gradgradcheck

from jaxnet.cli.progress import track
from jaxnet.crosscheck import check
from mutants.checkers import ANSWERS, Answer
from mutants.torch_functions import TORCH_CASES, TorchCase

TorchChecker = Callable[[TorchCase, Callable[..., Any], tuple[Any, ...]], Answer]


def by_jaxnet(case: TorchCase, f: Callable[..., Any], inputs: tuple[Any, ...]) -> Answer:
    """Runs `jaxnet.crosscheck.check`, with the second derivative where there is one."""
    return ANSWERS[check(f, *inputs, order=case.order).verdict]


def by_gradcheck(fast_mode: bool = False) -> TorchChecker:
    """Returns `gradcheck` with its defaults."""

    def run(case: TorchCase, f: Callable[..., Any], inputs: tuple[Any, ...]) -> Answer:
        del case
        return _answer(gradcheck(f, inputs, fast_mode=fast_mode))

    return run


def by_gradgradcheck(case: TorchCase, f: Callable[..., Any], inputs: tuple[Any, ...]) -> Answer:
    """Runs `gradgradcheck` with its defaults, where there is a second derivative."""
    return _answer(case.order < 2 or gradgradcheck(f, inputs))


def by_all_features(case: TorchCase, f: Callable[..., Any], inputs: tuple[Any, ...]) -> Answer:
    """Runs `gradcheck` and `gradgradcheck` with all features on that the function supports."""
    flags = {
        "check_forward_ad": case.forward_mode,
        "check_batched_grad": case.vmap,
        "check_batched_forward_grad": case.vmap and case.forward_mode,
        "check_grad_dtypes": True,
        "check_undefined_grad": True,
    }
    passed = gradcheck(f, inputs, **flags)
    if passed and case.order > 1:
        passed = gradgradcheck(f, inputs, gen_non_contig_grad_outputs=True, check_grad_dtypes=True)
    return _answer(passed)


TORCH_CHECKERS: dict[str, TorchChecker] = {
    "jaxnet.crosscheck": by_jaxnet,
    "gradcheck, slow": by_gradcheck(),
    "gradcheck, fast": by_gradcheck(fast_mode=True),
    "gradgradcheck": by_gradgradcheck,
    "both, all features": by_all_features,
}


def judge(checker: TorchChecker, case: TorchCase, seed: int) -> Answer:
    """Returns the answer of a checker about one case; an exception counts as a bug that was found."""
    f, drawn = case.make(torch.Generator().manual_seed(seed))
    inputs = _requiring(drawn)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng([]):
        warnings.simplefilter("ignore")
        try:
            return checker(case, f, inputs)
        except Exception:
            return "wrong"


def torch_scoreboard(draws: int, seed: int) -> list[dict[str, Any]]:
    """Runs every checker on every case; returns counts, missed bugs and right functions that failed."""
    rows = []
    jobs = [(case, seed + draw) for case in TORCH_CASES.values() for draw in range(draws)]
    for name, checker in TORCH_CHECKERS.items():
        start = time.process_time()
        answers = [(case, judge(checker, case, number)) for case, number in track(jobs, name)]
        wrong = [(case, answer) for case, answer in answers if not case.right]
        right = [(case, answer) for case, answer in answers if case.right]
        missed = [f"{case.name} ({case.ability})" for case, answer in wrong if answer != "wrong"]
        failed = [case.name for case, answer in right if answer == "wrong"]
        rows.append(
            {"checker": name, "caught": len(wrong) - len(missed), "wrong": len(wrong), "missed": missed}
            | {"false alarms": len(failed), "right": len(right), "falsely failed": failed}
            | {"unsure": sum(answer == "unsure" for _, answer in answers), "seconds": time.process_time() - start}
        )
    return rows


def _requiring(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the inputs with copies of the float tensors that require a gradient, in their memory layout."""
    return tuple(
        part.detach().clone().requires_grad_() if isinstance(part, torch.Tensor) and part.is_floating_point() else part
        for part in inputs
    )


def _answer(passed: bool) -> Answer:
    return "right" if passed else "wrong"
