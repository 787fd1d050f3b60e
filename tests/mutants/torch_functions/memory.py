"""Memory: layouts that are assumed, and tensors that are changed in place."""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mutants.torch_functions.case import Ability, normal, right, shapes, wrong

MATRIX = shapes((4, 5))


def transposed(generator):
    return (normal(generator, 5, 4).T,)


def in_memory_order(tensor):
    """Returns the first elements of a tensor's memory in its shape, and zeros where the memory ends."""
    room = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = torch.as_strided(tensor, (min(room, tensor.numel()),), (1,), 0)
    return torch.cat([memory, memory.new_zeros(tensor.numel() - len(memory))]).view(tensor.shape)


class Sine(Function):
    """y = sin(x)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout * torch.cos(x)


@right("takes an input that is not contiguous", transposed)
class TransposedInput(Sine):
    pass


@right("makes dout contiguous before it reads it as a row", MATRIX)
class MadeContiguous(Sine):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return (dout.contiguous().view(-1) * torch.cos(x).reshape(-1)).view(x.shape)


@wrong("views dout as a row, which raises for one that is not contiguous", MATRIX, Ability.LAYOUT)
class ViewOfDout(Sine):
    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return (dout.view(-1) * torch.cos(x).reshape(-1)).view(x.shape)


@wrong("reads dout in the order of its memory, as a kernel does", MATRIX, Ability.LAYOUT, order=1)
class KernelReadsDout(Sine):
    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return in_memory_order(dout) * torch.cos(x)


@wrong("reads the saved input in the order of its memory", MATRIX, Ability.LAYOUT, order=1)
class KernelReadsInput(Sine):
    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout * torch.cos(in_memory_order(x))


@wrong("keeps its output as an attribute and then changes it in place", MATRIX)
class ChangedAfterwards(Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        ctx.y = y
        return y.mul_(2).add_(1)

    @staticmethod
    def backward(ctx, dout):
        return dout * 2 * ctx.y


@wrong("changes dout in place", MATRIX, Ability.REPEATABILITY, order=1)
class ChangesDout(Sine):
    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout.mul_(torch.cos(x))


@wrong("changes its input and does not mark it", MATRIX, Ability.REPEATABILITY)
class ChangesInput(Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return 2 * dout * torch.cos(x)


@wrong("changes what it keeps for backward, so that a second backward differs", MATRIX, Ability.REPEATABILITY, order=1)
class ChangesCache(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.slope = torch.cos(x)
        return torch.sin(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        return ctx.slope.mul_(dout).clone()


class MarkedDirty(Function):
    """Exponentiates its input in place."""

    @staticmethod
    def forward(ctx, x):
        x.exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, dout):
        (y,) = ctx.saved_tensors
        return dout * y


@right("changes an intermediate value in place, and marks it", MATRIX)
def marked_dirty(x):
    return MarkedDirty.apply(2 * x)


class MarkedDirtyFactor(MarkedDirty):
    @staticmethod
    def backward(ctx, dout):
        (y,) = ctx.saved_tensors
        return dout * torch.exp(y)


@wrong("changes a value in place, and takes it for the old one in backward", MATRIX)
def marked_dirty_old_value(x):
    return MarkedDirtyFactor.apply(2 * x)
