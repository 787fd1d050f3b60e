"""Functions that compute only the gradients that are needed, and arguments without a gradient."""

import torch
from torch.autograd import Function

from mutants.torch_functions.case import Ability, normal, right, shapes, wrong

PAIR = shapes((4, 5), (4, 5))


class Product(Function):
    """y = sin(x) w."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.sin(x) * w


@right("computes what needs_input_grad asks for", PAIR)
class Needed(Product):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = dout * torch.cos(x) * w if ctx.needs_input_grad[0] else None
        dw = dout * torch.sin(x) if ctx.needs_input_grad[1] else None
        return dx, dw


@wrong("needs_input_grad of the other argument is read", PAIR, Ability.PARTIAL)
class NeededExchanged(Product):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = dout * torch.cos(x) * w if ctx.needs_input_grad[1] else None
        dw = dout * torch.sin(x) if ctx.needs_input_grad[0] else None
        return dx, dw


@wrong("needs_input_grad is read one place too far", shapes((4, 5), (4, 5), (4, 5)), Ability.PARTIAL)
class NeededOffByOne(Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x * w + b

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return dout * w if needed[1] else None, dout * x if needed[2] else None, dout


@wrong("only the gradients that are needed are returned, so that they shift", PAIR, Ability.PARTIAL)
class NeededShifted(Product):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        gradients = [torch.zeros_like(x), torch.zeros_like(w)]
        place = 0
        if ctx.needs_input_grad[0]:
            gradients[place] = dout * torch.cos(x) * w
            place += 1
        if ctx.needs_input_grad[1]:
            gradients[place] = dout * torch.sin(x)
        return tuple(gradients)


@wrong("dw uses a value that is computed for dx", PAIR, Ability.PARTIAL)
class NeededShared(Product):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            slope = torch.cos(x)
            dx = dout * slope * w
        return dx, dout * torch.sin(x) if ctx.needs_input_grad[0] else dout * x


@wrong("raises if only w needs a gradient", PAIR, Ability.PARTIAL)
class NeededRaises(Product):
    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            common = dout * w
            dx = common * torch.cos(x)
        dw = common * torch.sin(x) / w
        return dx, dw


@wrong("the input that is saved depends on which gradients are needed", PAIR, Ability.PARTIAL)
class NeededInForward(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w if ctx.needs_input_grad[1] else torch.ones_like(w))
        return torch.sin(x) * w

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        return dout * torch.cos(x) * w, dout * torch.sin(x)


@right("has integers, which get None", lambda g: (normal(g, 4, 5), torch.randint(4, (6,), generator=g)))
class WithIntegers(Function):
    @staticmethod
    def forward(ctx, x, ids):
        ctx.save_for_backward(ids)
        ctx.rows = len(x)
        return x[ids] * 2

    @staticmethod
    def backward(ctx, dout):
        (ids,) = ctx.saved_tensors
        dx = torch.zeros(ctx.rows, dout.shape[1], dtype=dout.dtype)
        return dx.index_add(0, ids, 2 * dout), None


@right("reads only the shape of an argument", PAIR)
class OnlyShape(Function):
    @staticmethod
    def forward(ctx, x, like):
        ctx.save_for_backward(x)
        return torch.sin(x).reshape(like.shape)

    @staticmethod
    def backward(ctx, dout):
        (x,) = ctx.saved_tensors
        return dout.reshape(x.shape) * torch.cos(x), None


@right(
    "has weights in float32 and inputs in float64", lambda g: (normal(g, 4, 5), normal(g, 4, 5, dtype=torch.float32))
)
class Promoted(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.sin(x) * w

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        return (dout * torch.cos(x) * w).to(x.dtype), (dout * torch.sin(x)).to(w.dtype)
