"""Values of earlier calls, random numbers, and gradients that are not linear in dout."""

from typing import ClassVar

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mutants.torch_functions.case import Ability, right, shapes, wrong

MATRIX = shapes((4, 5))


class Sine(Function):
    """y = sin(x)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)


@wrong("the input is kept by the class, so that the last call's is used", MATRIX, Ability.REPEATABILITY, order=1)
class KeptByClass(Function):
    @staticmethod
    def forward(ctx, x):
        KeptByClass.x = x
        return torch.sin(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        return dout * torch.cos(KeptByClass.x)


@wrong("the first call's input is kept by the class", MATRIX, Ability.REPEATABILITY, order=1)
class FirstKeptByClass(Function):
    slopes: ClassVar = {}

    @staticmethod
    def forward(ctx, x):
        FirstKeptByClass.slopes.setdefault(x.shape, torch.cos(x))
        return torch.sin(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        return dout * FirstKeptByClass.slopes[dout.shape]


@wrong("backward adds to a buffer of the class", MATRIX, Ability.REPEATABILITY, order=1)
class AddsUp(Sine):
    buffers: ClassVar = {}

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        buffer = AddsUp.buffers.setdefault(x.shape, torch.zeros_like(x))
        return buffer.add_(dout * torch.cos(x)).clone()


@wrong("backward adds noise", MATRIX, Ability.REPEATABILITY, order=1)
class Noisy(Sine):
    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout * torch.cos(x) * (1 + 1e-3 * torch.randn(x.shape, dtype=x.dtype))


def keep(shape, seed=0):
    """Returns a mask of dropout from a generator of its own."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).double()


@right("draws a mask with a seeded generator", MATRIX)
class SeededDropout(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mask = keep(x.shape)
        return x * ctx.mask / 0.5

    @staticmethod
    def backward(ctx, dout):
        return dout * ctx.mask / 0.5


@wrong("dropout's scale is missing in backward", MATRIX)
class DropoutScale(SeededDropout):
    @staticmethod
    def backward(ctx, dout):
        return dout * ctx.mask


@wrong("backward draws another mask", MATRIX)
class DropoutOtherMask(SeededDropout):
    @staticmethod
    def backward(ctx, dout):
        return dout * keep(dout.shape, seed=1) / 0.5


@wrong("backward draws its mask anew from the global generator", MATRIX, order=1)
class DropoutDrawnAgain(Function):
    @staticmethod
    def forward(ctx, x):
        return x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5) / 0.5

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        return dout * (torch.rand(dout.shape) < 0.5) / 0.5


@wrong("the gradient is clipped to 10", MATRIX, Ability.LINEARITY)
class Clipped(Sine):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return (dout * torch.cos(x)).clamp(-10, 10)


@wrong("the gradient is clipped to 0.1", MATRIX, Ability.LINEARITY)
class ClippedEarly(Sine):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return (dout * torch.cos(x)).clamp(-0.1, 0.1)


@wrong("a gradient that is not positive is masked, as in guided backprop", MATRIX, Ability.LINEARITY)
class Guided(Sine):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout.relu() * torch.cos(x)


@wrong("dout is taken to be 1", MATRIX, Ability.LINEARITY)
class IgnoresDout(Sine):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return torch.cos(x)
