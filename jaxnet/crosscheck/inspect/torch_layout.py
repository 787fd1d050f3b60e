"""Clones tensors with their strides, which `torch.clone` replaces where elements overlap or have gaps between them."""

import functools
import math
from typing import Any


def clone_as_laid_out(tensor: Any) -> Any:
    """Returns a clone with the strides of a tensor, which may be changed in place as far as PyTorch allows."""
    clone = tensor.clone()
    return clone if clone.stride() == tensor.stride() else _as_laid_out().apply(tensor)


@functools.cache
def _as_laid_out() -> Any:
    """Returns the identity as a Function whose output has the strides of its input and is no view of it."""
    import torch

    class AsLaidOut(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, tensor: Any) -> Any:
            del ctx
            if 0 in tensor.stride():  # PyTorch writes to none whose elements overlap
                return tensor.detach()
            size = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            memory = tensor.new_full((size,), math.nan)  # so that a gradient that reads a gap is wrong
            return tensor.new_empty(0).set_(memory.untyped_storage(), 0, tensor.shape, tensor.stride()).copy_(tensor)

        @staticmethod
        def backward(ctx: Any, dout: Any) -> Any:
            del ctx
            return dout

    return AsLaidOut
