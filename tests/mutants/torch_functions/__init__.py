"""Planted bugs in `torch.autograd.Function`s, and right ones, some of them tricky. Needs PyTorch."""

from mutants.torch_functions import (
    dense,
    forward_mode,
    gradients_needed,
    indexing,
    losses,
    memory,
    normalisation,
    pointwise,
    second_order,
    several_outputs,
    state,
)
from mutants.torch_functions.case import TORCH_CASES, Ability, TorchCase

__all__ = [
    "TORCH_CASES",
    "Ability",
    "TorchCase",
    "dense",
    "forward_mode",
    "gradients_needed",
    "indexing",
    "losses",
    "memory",
    "normalisation",
    "pointwise",
    "second_order",
    "several_outputs",
    "state",
]
