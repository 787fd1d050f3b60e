"""Functions with a `jvp`, with a rule for vmap, or with both."""

import torch
from torch.autograd import Function

from mutants.torch_functions.case import Ability, right, shapes, wrong

PAIR = shapes((4, 5), (4, 5))
SQUARE = shapes((4, 4))


class SineTimes(Function):
    """y = sin(x) w."""

    @staticmethod
    def forward(x, w):
        return torch.sin(x) * w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        return dout * torch.cos(x) * w, dout * torch.sin(x)

    @staticmethod
    def jvp(ctx, v_x, v_w):
        x, w = ctx.saved_tensors
        return v_x * torch.cos(x) * w + v_w * torch.sin(x)


@right("has a jvp", PAIR, forward_mode=True)
class WithJvp(SineTimes):
    pass


@right("has a jvp, and vmap by generate_vmap_rule", PAIR, forward_mode=True, vmap=True)
class WithGeneratedVmap(SineTimes):
    generate_vmap_rule = True


@wrong("the jvp has a factor 1.5", PAIR, Ability.FORWARD_MODE, forward_mode=True)
class JvpFactor(SineTimes):
    @staticmethod
    def jvp(ctx, v_x, v_w):
        return 1.5 * SineTimes.jvp(ctx, v_x, v_w)


@wrong("the jvp leaves an argument out", PAIR, Ability.FORWARD_MODE, forward_mode=True)
class JvpOfOneArgument(SineTimes):
    @staticmethod
    def jvp(ctx, v_x, v_w):
        x, w = ctx.saved_tensors
        return v_x * torch.cos(x) * w


@wrong("the jvp has another sign in one term", PAIR, Ability.FORWARD_MODE, forward_mode=True)
class JvpSign(SineTimes):
    @staticmethod
    def jvp(ctx, v_x, v_w):
        x, w = ctx.saved_tensors
        return v_x * torch.cos(x) * w - v_w * torch.sin(x)


@wrong("the jvp returns the tangents of two outputs in another order", SQUARE, Ability.FORWARD_MODE, forward_mode=True)
class JvpExchanged(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return torch.sin(x), torch.cos(x)

    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        (x,) = ctx.saved_tensors
        return d_sine * torch.cos(x) - d_cosine * torch.sin(x)

    @staticmethod
    def jvp(ctx, v):
        (x,) = ctx.saved_tensors
        return -v * torch.sin(x), v * torch.cos(x)


class RowSoftmax(Function):
    """The softmax of the last dim, with a vmap rule of its own."""

    @staticmethod
    def forward(x):
        return torch.softmax(x, -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, dout):
        (y,) = ctx.saved_tensors
        return y * (dout - (y * dout).sum(-1, keepdim=True))


@right("has a vmap rule", SQUARE, vmap=True)
class WithVmapRule(RowSoftmax):
    @staticmethod
    def vmap(info, in_dims, x):
        return WithVmapRule.apply(x.movedim(in_dims[0], 0)), 0


class ColumnSoftmax(Function):
    """The softmax of the first dim, which under vmap is another one."""

    @staticmethod
    def forward(x):
        return torch.softmax(x, 0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, dout):
        (y,) = ctx.saved_tensors
        return y * (dout - (y * dout).sum(0, keepdim=True))


@wrong("the vmap rule applies itself to the batch, whose axis comes first", SQUARE, Ability.VMAP, vmap=True)
class VmapOverBatch(ColumnSoftmax):
    @staticmethod
    def vmap(info, in_dims, x):
        return VmapOverBatch.apply(x.movedim(in_dims[0], 0)), 0


@wrong("the vmap rule returns the batch in another axis than it says", shapes((2, 2)), Ability.VMAP, vmap=True)
class VmapOutDim(RowSoftmax):
    @staticmethod
    def vmap(info, in_dims, x):
        return VmapOutDim.apply(x.movedim(in_dims[0], 0)), 1


@wrong("the vmap rule takes the first sample for all", SQUARE, Ability.VMAP, vmap=True)
class VmapFirstSample(RowSoftmax):
    @staticmethod
    def vmap(info, in_dims, x):
        first = x.movedim(in_dims[0], 0)[:1]
        return VmapFirstSample.apply(first.expand(info.batch_size, *first.shape[1:])), 0
