"""Matrix products, attention, convolution, and reductions over axes. Squares hide transposes from shapes."""

import torch
from torch.nn.functional import conv1d

from mutants.torch_functions.case import Formula, right, shapes, wrong

SQUARE = shapes((4, 4), (4, 4))

matmul = Formula("matmul", lambda x, w: x @ w, lambda dout, y, x, w: (dout @ w.T, x.T @ dout), SQUARE)
matmul.wrong("transposed", "dx = dout w, without the transpose", lambda dout, y, x, w: (dout @ w, x.T @ dout))
matmul.wrong("exchanged", "the gradients are returned in another order", lambda dout, y, x, w: (x.T @ dout, dout @ w.T))
matmul.wrong("none", "None is returned for w", lambda dout, y, x, w: (dout @ w.T, None))

linear = Formula(
    "linear",
    lambda x, w, b: x @ w + b,
    lambda dout, y, x, w, b: (dout @ w.T, x.T @ dout, dout.sum(0)),
    shapes((4, 3), (3, 4), (4,)),
)
linear.wrong(
    "bias_dim", "db is summed over the outputs", lambda dout, y, x, w, b: (dout @ w.T, x.T @ dout, dout.sum(1))
)
linear.wrong("bias_mean", "db is a mean", lambda dout, y, x, w, b: (dout @ w.T, x.T @ dout, dout.mean(0)))

broadcast = Formula(
    "broadcast",
    lambda x, w: x * w,
    lambda dout, y, x, w: ((dout * w).sum_to_size(x.shape), (dout * x).sum_to_size(w.shape)),
    shapes((4, 3), (1, 3)),
)
broadcast.right(
    "left_to_torch", "PyTorch sums gradients that are too large", lambda dout, y, x, w: (dout * w, dout * x)
)
broadcast.wrong(
    "mean", "the gradient of w is a mean", lambda dout, y, x, w: (dout * w, (dout * x).mean(0, keepdim=True))
)
broadcast.wrong(
    "first_row", "the gradient of w is that of the first row", lambda dout, y, x, w: (dout * w, (dout * x)[:1])
)

outer = Formula(
    "outer_sum",
    lambda x, w: x[:, None] + w[None, :],
    lambda dout, y, x, w: (dout.sum(1), dout.sum(0)),
    shapes((4,), (4,)),
)
outer.wrong("dims", "the sums are over the other dims", lambda dout, y, x, w: (dout.sum(0), dout.sum(1)))

total = Formula("total", lambda x: x.sum(), lambda dout, y, x: dout.expand_as(x), shapes((4, 5)))
average = Formula(
    "average", lambda x: x.mean(1), lambda dout, y, x: (dout / x.shape[1])[:, None].expand_as(x), shapes((4, 5))
)
average.wrong(
    "other_axis", "divided by the size of the other axis", lambda dout, y, x: (dout / len(x))[:, None].expand_as(x)
)
average.wrong("sum", "not divided", lambda dout, y, x: dout[:, None].expand_as(x))

determinant = Formula(
    "determinant", torch.linalg.det, lambda dout, y, a: dout * y * torch.linalg.inv(a).T, shapes((4, 4))
)
determinant.wrong("transposed", "the inverse is not transposed", lambda dout, y, a: dout * y * torch.linalg.inv(a))

cumulated = Formula("cumulated", lambda x: x.cumsum(0), lambda dout, y, x: dout.flip(0).cumsum(0).flip(0), shapes((6,)))
cumulated.wrong("no_flip", "the sum runs forward", lambda dout, y, x: dout.cumsum(0))

rolled = Formula("rolled", lambda x: x.roll(1), lambda dout, y, x: dout.roll(-1), shapes((6,)))
rolled.wrong("same_way", "rolled in the same direction", lambda dout, y, x: dout.roll(1))


def attend(q, k, v):
    p = torch.softmax(q @ k.T / q.shape[1] ** 0.5, 1)
    return p @ v


def attention_gradients(dout, q, k, v, scale_of_k=True, normalised=True, transposed=True):
    scale = q.shape[1] ** -0.5
    p = torch.softmax(q @ k.T * scale, 1)
    dp = dout @ v.T
    ds = p * (dp - (dp * p).sum(1, keepdim=True)) if normalised else p * dp
    return scale * ds @ k, (scale if scale_of_k else 1) * ds.T @ q, (p.T if transposed else p) @ dout


attention = Formula(
    "attention", attend, lambda dout, y, *qkv: attention_gradients(dout, *qkv), shapes((4, 3), (4, 3), (4, 3))
)
attention.wrong(
    "scale", "the scale is forgotten in dk", lambda dout, y, *qkv: attention_gradients(dout, *qkv, scale_of_k=False)
)
attention.wrong(
    "row_term", "softmax's sum is missing", lambda dout, y, *qkv: attention_gradients(dout, *qkv, normalised=False)
)
attention.wrong(
    "transposed",
    "dv takes p for its transpose",
    lambda dout, y, *qkv: attention_gradients(dout, *qkv, transposed=False),
)


def kernel_gradient(dout, x):
    return conv1d(x.transpose(0, 1), dout.transpose(0, 1)).transpose(0, 1)


def padded_conv(dout, w):
    return conv1d(dout, w.transpose(0, 1), padding=w.shape[2] - 1)


convolution = Formula(
    "convolution",
    conv1d,
    lambda dout, y, x, w: (padded_conv(dout, w.flip(2)), kernel_gradient(dout, x)),
    shapes((2, 3, 7), (4, 3, 3)),
)
convolution.wrong("no_flip", "the kernel is not flipped in dx",
                  lambda dout, y, x, w: (padded_conv(dout, w), kernel_gradient(dout, x)))  # fmt: skip
convolution.wrong("flipped_kernel", "the gradient of the kernel is flipped",
                  lambda dout, y, x, w: (padded_conv(dout, w.flip(2)), kernel_gradient(dout, x).flip(2)))  # fmt: skip


class Recomputed(torch.autograd.Function):
    """Runs a part of a network again in backward, as checkpointing does."""

    factor = 1

    @classmethod
    def compute(cls, x, w):
        return torch.tanh(x @ w)

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return Recomputed.compute(x, w)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout):
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            y = Recomputed.compute(*inputs)
        return torch.autograd.grad(y, inputs, dout)


right("runs a part again in backward, as checkpointing does", shapes((4, 3), (3, 5)), order=1)(Recomputed)


class RecomputedOther(Recomputed):
    """Runs another function again."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout):
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            y = torch.sigmoid(inputs[0] @ inputs[1])
        return torch.autograd.grad(y, inputs, dout)


wrong("runs another function again in backward", shapes((4, 3), (3, 5)), order=1)(RecomputedOther)
