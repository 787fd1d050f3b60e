"""Functions with several outputs, some of which may have no upstream gradient."""

import torch
from torch.autograd import Function

from mutants.torch_functions.case import Ability, right, shapes, wrong

MATRIX = shapes((4, 5))
UNDEFINED = Ability.UNDEFINED


class SineAndCosine(Function):
    """Returns sin(x) and cos(x), and leaves undefined upstream gradients as None."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return torch.sin(x), torch.cos(x)


@right("has two outputs", MATRIX)
class TwoOutputs(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x), torch.cos(x)

    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        (x,) = ctx.saved_tensors
        return d_sine * torch.cos(x) - d_cosine * torch.sin(x)


@wrong("the upstream gradients of two outputs are exchanged", MATRIX)
class TwoOutputsExchanged(TwoOutputs):
    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        return TwoOutputs.backward(ctx, d_cosine, d_sine)


@wrong("the upstream gradient of the second output is left out", MATRIX)
class SecondOutputLeftOut(TwoOutputs):
    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        (x,) = ctx.saved_tensors
        return d_sine * torch.cos(x)


@right("handles upstream gradients that are None", MATRIX)
class UndefinedHandled(SineAndCosine):
    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        (x,) = ctx.saved_tensors
        terms = []
        if d_sine is not None:
            terms.append(d_sine * torch.cos(x))
        if d_cosine is not None:
            terms.append(-d_cosine * torch.sin(x))
        return sum(terms[1:], terms[0]) if terms else None


@wrong("raises if an upstream gradient is None", MATRIX, UNDEFINED)
class UndefinedRaises(SineAndCosine):
    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        return TwoOutputs.backward(ctx, d_sine, d_cosine)


@wrong("the sign is missing if only the second output has an upstream gradient", MATRIX, UNDEFINED)
class UndefinedSign(SineAndCosine):
    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        (x,) = ctx.saved_tensors
        if d_sine is None:
            return None if d_cosine is None else d_cosine * torch.sin(x)
        return UndefinedHandled.backward(ctx, d_sine, d_cosine)


@wrong("there is no gradient unless both outputs have an upstream gradient", MATRIX, UNDEFINED)
class UndefinedDropped(SineAndCosine):
    @staticmethod
    def backward(ctx, d_sine, d_cosine):
        if d_sine is None or d_cosine is None:
            return None
        return UndefinedHandled.backward(ctx, d_sine, d_cosine)


@wrong("raises if the upstream gradient of the only output is None", MATRIX, UNDEFINED)
class OnlyUndefinedRaises(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout * torch.cos(x)


@wrong("returns ones if the upstream gradient is None", MATRIX, UNDEFINED)
class UndefinedAsOnes(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return torch.cos(x) if dout is None else dout * torch.cos(x)


@right("has an output of integers and one without a gradient, which is marked", MATRIX)
class MarkedNonDifferentiable(Function):
    @staticmethod
    def forward(ctx, x):
        values, order = x.sort(1)
        rounded = x.round()
        ctx.mark_non_differentiable(order, rounded)
        ctx.save_for_backward(order)
        return values, order, rounded

    @staticmethod
    def backward(ctx, d_values, d_order, d_rounded):
        (order,) = ctx.saved_tensors
        return torch.zeros_like(d_values).scatter(1, order, d_values)


@wrong("the order of a sort is not undone", shapes((4, 5)))
class SortNotUndone(Function):
    @staticmethod
    def forward(ctx, x):
        values, order = x.sort(1)
        ctx.mark_non_differentiable(order)
        ctx.save_for_backward(order)
        return values, order

    @staticmethod
    def backward(ctx, d_values, d_order):
        (order,) = ctx.saved_tensors
        return d_values.gather(1, order)


@wrong("the two halves are joined in another order", shapes((4, 6)))
class HalvesExchanged(Function):
    @staticmethod
    def forward(ctx, x):
        return x[:, :3].clone(), x[:, 3:].clone()

    @staticmethod
    def backward(ctx, d_left, d_right):
        return torch.cat([d_right, d_left], 1)


@right("passes on an expanded upstream gradient", shapes((4, 5)))
def expanded(x):
    return UndefinedHandled.apply(x)[0].sum()
