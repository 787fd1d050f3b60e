"""Functions with a right gradient whose own derivative may be wrong."""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mutants.torch_functions.case import Ability, right, shapes, wrong

MATRIX = shapes((4, 5))
SECOND = Ability.SECOND_ORDER


class Cube(Function):
    """y = x³."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3


@right("is differentiable once, and says so", MATRIX, order=1)
class Once(Cube):
    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return 3 * dout * x**2


@wrong("backward detaches the input", MATRIX, SECOND)
class Detached(Cube):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return 3 * dout * x.detach() ** 2


@wrong("backward detaches dout", MATRIX, SECOND)
class DetachedDout(Cube):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return 3 * dout.detach() * x**2


@wrong("backward runs under no_grad", MATRIX, SECOND)
class WithoutGraph(Cube):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return 3 * dout * x**2


@wrong("a part of backward runs under no_grad", MATRIX, SECOND)
class SlopeWithoutGraph(Cube):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            slope = 3 * x**2
        return dout * slope


@wrong("forward keeps an intermediate value, which has no graph", MATRIX, SECOND)
class KeptIntermediate(Function):
    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx, dout):
        x, s = ctx.saved_tensors
        return dout * (s + x * s * (1 - s))


@wrong("forward keeps the input as an attribute, in float64 NumPy", MATRIX, SECOND)
class InNumpy(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach().numpy().copy()
        return x**3

    @staticmethod
    def backward(ctx, dout):
        return dout * torch.from_numpy(3 * ctx.x**2)


class CubeGradient(Function):
    """3 dout x², with its own backward."""

    factor = 6

    @staticmethod
    def forward(ctx, dout, x):
        ctx.save_for_backward(dout, x)
        return 3 * dout * x**2

    @staticmethod
    def backward(ctx, ddx):
        dout, x = ctx.saved_tensors
        return 3 * ddx * x**2, 6 * ddx * dout * x


@right("has a backward with a backward of its own", MATRIX)
class DoubleBackward(Cube):
    @staticmethod
    def backward(ctx, dout):
        return CubeGradient.apply(dout, *ctx.saved_tensors)


class CubeGradientFactor(CubeGradient):
    @staticmethod
    def backward(ctx, ddx):
        dout, x = ctx.saved_tensors
        return 3 * ddx * x**2, 3 * ddx * dout * x


@wrong("the second backward lacks a factor of 2", MATRIX, SECOND)
class DoubleBackwardFactor(Cube):
    @staticmethod
    def backward(ctx, dout):
        return CubeGradientFactor.apply(dout, *ctx.saved_tensors)


class CubeGradientNone(CubeGradient):
    @staticmethod
    def backward(ctx, ddx):
        dout, x = ctx.saved_tensors
        return None, 6 * ddx * dout * x


@wrong("the second backward returns None for dout", MATRIX, SECOND)
class DoubleBackwardNone(Cube):
    @staticmethod
    def backward(ctx, dout):
        return CubeGradientNone.apply(dout, *ctx.saved_tensors)


@right("saves its output, which has a graph", MATRIX)
class SavedOutput(Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dout):
        (y,) = ctx.saved_tensors
        return dout * (1 - y**2)
