"""torch.autograd.Function and modules with wrong backward passes."""

from jaxnet.crosscheck import check
from mutants.kinds import Draw, wrong


def tensors(seed, *shapes):
    """Returns double tensors of a seed."""
    import torch

    draw = Draw(seed)
    return [torch.tensor(draw(*shape)) for shape in shapes]


def function(forward, backward):
    """Returns apply of a Function that saves its inputs; backward takes (saved, grad)."""
    import torch

    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx, grad):
            return backward(ctx.saved_tensors, grad)

    return Custom.apply


@wrong("torch/swish", "x sigmoid(x), whose gradient lacks the term sigmoid(x).")
def _(seed):
    import torch

    def backward(saved, grad):
        s = torch.sigmoid(saved[0])
        return grad * saved[0] * s * (1 - s)

    return check(function(lambda x: x * torch.sigmoid(x), backward), *tensors(seed, (4, 5)))


@wrong("torch/linear-weight-transposed", "A linear function of a square weight, whose gradient is transposed.")
def _(seed):
    def backward(saved, grad):
        x, w = saved
        return grad @ w, x.T @ grad

    return check(function(lambda x, w: x @ w.T, backward), *tensors(seed, (5, 4), (4, 4)))


@wrong("torch/bias-mean", "The gradient of a bias is a mean instead of a sum.")
def _(seed):
    def backward(saved, grad):
        x, w, _ = saved
        return grad @ w, grad.T @ x, grad.mean(0)

    return check(function(lambda x, w, b: x @ w.T + b, backward), *tensors(seed, (5, 4), (3, 4), (3,)))


@wrong("torch/grad-ignored", "A loss whose backward does not use the upstream gradient.", off=1e-2)
def _(seed):
    import torch

    return check(function(torch.sin, lambda saved, grad: torch.cos(saved[0])), *tensors(seed, (4, 3)))


@wrong("torch/none-for-a-weight", "backward returns None for a weight that moves the output.", undecided=True)
def _(seed):
    import torch

    def backward(saved, grad):
        x, w = saved
        return grad * w * torch.cos(x * w), None

    return check(function(lambda x, w: torch.sin(x * w), backward), *tensors(seed, (5, 3), (3,)))


def _stride_error(seed):
    import torch

    x, dout = tensors(seed, (4, 4), (4, 4))
    x.requires_grad_(True)
    f = _storage_order()
    other = dout.T.contiguous().T
    right, got = (torch.autograd.grad(f(x), x, d)[0] for d in (dout, other))
    return float((got - right).norm() / right.norm())


def _storage_order():
    import torch

    def backward(saved, grad):
        memory = torch.as_tensor(grad.untyped_storage().tolist(), dtype=torch.uint8).view(grad.dtype)
        memory = torch.cat([memory, torch.zeros(grad.numel(), dtype=grad.dtype)])
        return memory[: grad.numel()].view(grad.shape) * torch.exp(saved[0])

    return function(torch.exp, backward)


@wrong(
    "torch/storage-order",
    "The kernel reads the gradient's storage as if it were contiguous.",
    true=_stride_error,
    says=r"(?i)contiguous|stride|order|layout",
)
def _(seed):
    return check(_storage_order(), *tensors(seed, (4, 4)))


@wrong("torch/module-with-a-wrong-function", "A module whose weight goes through a Function that doubles its gradient.")
def _(seed):
    import torch

    double = function(lambda x, w: x * w, lambda saved, grad: (grad * saved[1], 2 * (grad * saved[0]).sum(0)))

    class Scale(torch.nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = torch.nn.Parameter(w)

        def forward(self, x):
            return torch.tanh(double(x, self.w))

    x, w = tensors(seed, (6, 4), (4,))
    return check(Scale(w), x)


@wrong("torch/layernorm-mean-term", "LayerNorm's gradient lacks its mean term.")
def _(seed):
    import torch

    def forward(x):
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5)

    def backward(saved, grad):
        (x,) = saved
        s, y = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5), forward(x)
        return (grad - y * (grad * y).mean(-1, keepdim=True)) / s

    return check(function(forward, backward), *tensors(seed, (4, 6)))


@wrong(
    "torch/modifies-grad-in-place",
    "backward scales the upstream gradient in place, and uses it again for the second input.",
)
def _(seed):
    def backward(saved, grad):
        a, b = saved
        da = grad.mul_(b)
        return da, grad * a

    return check(function(lambda a, b: a * b, backward), *tensors(seed, (4, 3), (4, 3)))


@wrong("torch/clamped-inside", "A gradient clamped to [-0.1, 0.1].")
def _(seed):
    return check(
        function(lambda x: x**3, lambda saved, grad: (3 * saved[0] ** 2 * grad).clamp(-0.1, 0.1)),
        *tensors(seed, (4, 5)),
    )


@wrong("torch/float32-one-percent", "A float32 function whose gradient is 1 % too large.", off=5e-3, step=0.04)
def _(seed):
    import torch

    f = function(torch.tanh, lambda saved, grad: 1.01 * grad * (1 - torch.tanh(saved[0]) ** 2))
    return check(f, *[x.float() for x in tensors(seed, (4, 5))])


@wrong("torch/stacked-outputs", "The second row's gradient of a stack is dropped.")
def _(seed):
    import torch

    f = function(lambda x: torch.stack([torch.sin(x), torch.cos(x)]), lambda saved, grad: grad[0] * torch.cos(saved[0]))
    return check(f, *tensors(seed, (5,)))
