"""Tests PyTorch functions and modules: wrong gradients fail, right ones pass, and JAX is never called with tensors."""

import copy
import functools

import numpy as np
import pytest
from conftest import sampled
from tensors import T, custom, one_thread, same_weights, scale, tanh  # noqa: F401 the fixtures act by being here

from jaxnet.crosscheck import check

torch = pytest.importorskip("torch")
F, nn, Function = torch.nn.functional, torch.nn, torch.autograd.Function


def linear(x, w, b):
    return x @ w + b


def softmax(x):
    return torch.softmax(x, -1)


def divide(a, b):
    return a / b


def layer_norm(x, gamma, beta):
    return F.layer_norm(x, x.shape[-1:], gamma, beta, 1e-5)


def matmul(q, k):
    return q @ k.mT


def rms_norm(x, w):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * w


def swiglu(x, gate):
    return x * F.silu(gate)


def mean_square(y, t):
    return ((y - t) ** 2).mean()


def layer_norm_gradient(g, x, gamma, beta, y, mean_term=1.0, variance_term=1.0, eps=1e-5):
    s = torch.rsqrt(x.var(-1, keepdim=True, unbiased=False) + eps)
    n, d = (x - x.mean(-1, keepdim=True)) * s, g * gamma
    mean, along = d.mean(-1, keepdim=True), n * (d * n).mean(-1, keepdim=True)
    return s * (d - mean_term * mean - variance_term * along), (g * n).sum(0), g.sum(0)


def rms_norm_gradient(g, x, w, y, term=1.0):
    r = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
    d = g * w
    return r * (d - term * x * r * r * (d * x).mean(-1, keepdim=True)), (g * x * r).sum(0)


def silu_slope(x):
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


X, W, B = T(5, 4), T(4, 3, seed=4), T(3, seed=6)
RIGHT_GRADIENTS = {
    linear: ((X, W, B), lambda g, x, w, b, y: (g @ w.T, x.T @ g, g.sum(0))),
    scale: ((X, T(4)), lambda g, x, gamma, y: (g * gamma, (g * x).sum(0))),
    tanh: ((X,), lambda g, x, y: g * (1 - y * y)),
    softmax: ((X,), lambda g, x, y: y * (g - (g * y).sum(-1, keepdim=True))),
    divide: ((X, T(5, 4, seed=7)), lambda g, a, b, y: (g / b, -g * a / b**2)),
    layer_norm: ((T(6, 8), T(8), T(8, seed=8)), layer_norm_gradient),
    matmul: ((T(2, 5, 4), T(2, 3, 4, seed=9)), lambda g, q, k, y: (g @ k, g.mT @ q)),
    rms_norm: ((T(6, 8), T(8)), rms_norm_gradient),
    swiglu: ((X, T(5, 4, seed=7)), lambda g, x, gate, y: (g * F.silu(gate), g * x * silu_slope(gate))),
    mean_square: (
        (X, T(5, 4, seed=7)),
        lambda g, y, t, loss: (2 * g * (y - t) / y.numel(), -2 * g * (y - t) / y.numel()),
    ),
}
WRONG_GRADIENTS = {
    "linear: x twice": (linear, lambda g, x, w, b, y: (2 * g @ w.T, x.T @ g, g.sum(0))),
    "linear: w by the batch's mean": (linear, lambda g, x, w, b, y: (g @ w.T, x.T @ g / len(x), g.sum(0))),
    "linear: b by the mean": (linear, lambda g, x, w, b, y: (g @ w.T, x.T @ g, g.mean(0))),
    "linear: b of the last row": (linear, lambda g, x, w, b, y: (g @ w.T, x.T @ g, g[-1])),
    "linear: saved output for x": (linear, lambda g, x, w, b, y: (y @ w.T, x.T @ g, g.sum(0))),
    "linear: ignores dout": (
        linear,
        lambda g, x, w, b, y: (torch.ones_like(g) @ w.T, x.T @ torch.ones_like(g), g.sum(0)),
    ),
    "linear: None for w": (linear, lambda g, x, w, b, y: (g @ w.T, None, g.sum(0))),
    "linear: None for b": (linear, lambda g, x, w, b, y: (g @ w.T, x.T @ g, None)),
    "linear: zeros for w": (linear, lambda g, x, w, b, y: (g @ w.T, torch.zeros_like(w), g.sum(0))),
    "linear: w reshaped where transposed": (linear, lambda g, x, w, b, y: (g @ w.T, (g.T @ x).reshape(4, 3), g.sum(0))),
    "linear: w transposed": (linear, lambda g, x, w, b, y: (g @ w.T, g.T @ x, g.sum(0))),
    "linear: a gradient too few": (linear, lambda g, x, w, b, y: (g @ w.T, x.T @ g)),
    "linear: order of the gradients": (linear, lambda g, x, w, b, y: (x.T @ g, g @ w.T, g.sum(0))),
    "linear: reads dout flat": (linear, lambda g, x, w, b, y: (g.mT.reshape(5, 3) @ w.T, x.T @ g, g.sum(0))),
    "scale: gamma forgotten": (scale, lambda g, x, gamma, y: (g, (g * x).sum(0))),
    "scale: x forgotten": (scale, lambda g, x, gamma, y: (g * gamma, g.sum(0))),
    "scale: not broadcast back": (scale, lambda g, x, gamma, y: (g * gamma, (g * x)[0])),
    "scale: y for x": (scale, lambda g, x, gamma, y: (g * gamma, (g * y).sum(0))),
    "tanh: of x": (tanh, lambda g, x, y: g * (1 - x * x)),
    "tanh: without square": (tanh, lambda g, x, y: g * (1 - y)),
    "tanh: sign": (tanh, lambda g, x, y: -g * (1 - y * y)),
    "tanh: one percent": (tanh, lambda g, x, y: 1.01 * g * (1 - y * y)),
    "tanh: clipped": (tanh, lambda g, x, y: (g * (1 - y * y)).clamp(-0.1, 0.1)),
    "tanh: dout squared": (tanh, lambda g, x, y: g * g * (1 - y * y)),
    "tanh: adds to dout in place": (tanh, lambda g, x, y: g.mul_(1 - y * y).add_(g)),
    "softmax: sum forgotten": (softmax, lambda g, x, y: y * g),
    "softmax: diagonal alone": (softmax, lambda g, x, y: g * y * (1 - y)),
    "softmax: wrong axis": (softmax, lambda g, x, y: y * (g - (g * y).sum(0, keepdim=True))),
    "softmax: mean for sum": (softmax, lambda g, x, y: y * (g - (g * y).mean(-1, keepdim=True))),
    "softmax: of log-softmax": (softmax, lambda g, x, y: g - y * g.sum(-1, keepdim=True)),
    "divide: sign of b": (divide, lambda g, a, b, y: (g / b, g * a / b**2)),
    "divide: b not squared": (divide, lambda g, a, b, y: (g / b, -g * a / b)),
    "divide: gradients exchanged": (divide, lambda g, a, b, y: (-g * a / b**2, g / b)),
    "layer norm: mean forgotten": (layer_norm, functools.partial(layer_norm_gradient, mean_term=0)),
    "layer norm: variance forgotten": (layer_norm, functools.partial(layer_norm_gradient, variance_term=0)),
    "layer norm: another eps": (layer_norm, functools.partial(layer_norm_gradient, eps=1e-3)),
    "matmul: k transposed": (matmul, lambda g, q, k, y: (g @ k, (q.mT @ g).reshape(k.shape))),
    "matmul: first of the batch": (matmul, lambda g, q, k, y: (g @ k[:1], g.mT @ q)),
    "rms norm: term forgotten": (rms_norm, functools.partial(rms_norm_gradient, term=0)),
    "rms norm: sum for mean": (rms_norm, functools.partial(rms_norm_gradient, term=8)),
    "swiglu: slope of sigmoid": (
        swiglu,
        lambda g, x, s, y: (g * F.silu(s), g * x * torch.sigmoid(s) * (1 - torch.sigmoid(s))),
    ),
    "swiglu: gate as x": (swiglu, lambda g, x, s, y: (g * F.silu(x), g * x * silu_slope(s))),
    "mean square: by rows": (mean_square, lambda g, y, t, loss: (2 * g * (y - t) / len(y), -2 * g * (y - t) / len(y))),
    "mean square: ignores dout": (
        mean_square,
        lambda g, y, t, loss: (2 * (y - t) / y.numel(), -2 * (y - t) / y.numel()),
    ),
    "mean square: 2 forgotten": (
        mean_square,
        lambda g, y, t, loss: (g * (y - t) / y.numel(), -2 * g * (y - t) / y.numel()),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(WRONG_GRADIENTS, 6))
def test_a_wrong_gradient_fails(name):
    forward, backward = WRONG_GRADIENTS[name]
    inputs = [x.clone().requires_grad_() for x in RIGHT_GRADIENTS[forward][0]]
    report = check(custom(forward, backward).apply, *inputs)
    assert report.verdict == "FAIL", str(report)


@pytest.mark.slow
@pytest.mark.parametrize("forward", sampled(RIGHT_GRADIENTS, 4))
def test_a_right_gradient_passes_by_its_class_and_by_its_apply(forward):
    inputs, backward = RIGHT_GRADIENTS[forward]
    passed = [x.clone() for x in inputs]
    for thing in (custom(forward, backward), custom(forward, backward).apply):
        report = check(thing, *passed)
        assert report.verdict == "PASS", str(report)
        assert [leaf.name for leaf in report.leaves] == list(forward.__code__.co_varnames[: len(inputs)])
    assert all(
        torch.equal(x, y) and not x.requires_grad and x.grad is None for x, y in zip(inputs, passed, strict=True)
    )


# ------------------------------------------------------------------------------------------- styles of torch.autograd


class Ctx(Function):
    """Computes sin(x) w in the style with a context, with attributes on ctx."""

    @staticmethod
    def forward(ctx, x, w, power=1):
        ctx.save_for_backward(x, w)
        ctx.power = power
        return torch.sin(x) * w**power

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = dout * torch.cos(x) * w**ctx.power
        if ctx.needs_input_grad[1]:
            dw = dout * torch.sin(x) * ctx.power * w ** (ctx.power - 1)
        return dx, dw, None


def deriving(base=Ctx, **passes):
    return type("Derived", (base,), {name: staticmethod(method) for name, method in passes.items()})


def only_needs_x(ctx, dout):  # looks at the first flag for both
    dx, dw, _ = Ctx.backward(ctx, dout)
    return dx, dw if ctx.needs_input_grad[2] else None, None


def spoils_what_it_saved(ctx, dout):
    x, w = ctx.saved_tensors
    x.data.mul_(2)
    return dout * torch.cos(x) * w, dout * torch.sin(x), None


def reads_memory(ctx, dout):
    """Reads dout in memory order, as a kernel does that ignores strides."""
    x, w = ctx.saved_tensors
    memory = torch.as_strided(dout, (min(dout.untyped_storage().nbytes() // 8, dout.numel()),), (1,))
    g = torch.cat([memory, memory.new_zeros(dout.numel() - len(memory))]).view(dout.shape)
    return g * torch.cos(x) * w, g * torch.sin(x), None


def saves_too_early(ctx, x, w, power=1):
    ctx.power = power
    y = torch.sin(x)
    ctx.save_for_backward(y, w)  # saves y instead of x
    return y * w**power


def changes_what_it_saved(ctx, x, w, power=1):
    ctx.power = power
    ctx.save_for_backward(x, w)
    y = torch.sin(x) * w**power
    x.add_(1)
    return y


def draws_again(ctx, dout):
    keep = torch.rand(dout.shape, dtype=dout.dtype) > 0.5
    return dout * keep, None, None


def drops(ctx, x, w, power=1):
    return x * (torch.rand(x.shape, dtype=x.dtype) > 0.5)


STYLES_WRONG = {
    "needs_input_grad of another": (deriving(backward=only_needs_x), (X, T(4))),
    "changes what it saved, in backward": (deriving(backward=spoils_what_it_saved), (X, T(5, 4, seed=7))),
    "changes what it saved, in forward": (deriving(forward=changes_what_it_saved), (X, T(5, 4, seed=7))),
    "saves the wrong tensor": (deriving(forward=saves_too_early), (X, T(5, 4, seed=7))),
    "power forgotten": (
        deriving(backward=lambda c, g: (Ctx.backward(c, g)[0], Ctx.backward(c, g)[1] / 3, None)),
        (X, T(5, 4, seed=7), 3),
    ),
    "draws another mask in backward": (deriving(forward=drops, backward=draws_again), (X, T(4))),
    "dout's memory, transposed": (
        lambda x, w: (
            deriving(backward=reads_memory).apply(x, w).T.contiguous()
            @ x.detach().new_tensor(np.arange(10.0).reshape(5, 2))
        ),
        (X, T(5, 4, seed=7)),
    ),
    "dout's memory, spread": (
        lambda x, w: (deriving(backward=reads_memory).apply(x, w).sum(0) * torch.arange(1.0, 5)).sum(),
        (X, T(5, 4, seed=7)),
    ),
    "dout's memory, a part": (
        lambda x, w: torch.cat([deriving(backward=reads_memory).apply(x, w), x * w], 1),
        (X, T(5, 4, seed=7)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(STYLES_WRONG, 4))
def test_a_wrong_function_of_any_style_is_found(name):
    thing, (x, w, *rest) = STYLES_WRONG[name]
    assert check(thing, x.clone().requires_grad_(), w.clone().requires_grad_(), *rest).verdict == "FAIL"


def test_a_half_precision_gradient_of_a_float64_function_does_not_pass():
    halved = custom(tanh, lambda g, x, y: (g.half() * (1 - y * y).half()).double())
    assert check(halved.apply, X).verdict != "PASS"


def test_a_float32_gradient_in_a_float64_function_is_named():
    rounded = custom(tanh, lambda g, x, y: (g.float() * (1 - y * y).float()).double())
    report = check(rounded.apply, X)
    assert report.verdict == "PASS"
    assert "the backward of Custom computes in float32, but forward does not" in report.text(width=None)
    assert not any("computes in" in note for leaf in check(tanh, X).leaves for note in leaf.notes)


# --------------------------------------------------------------------------------------------------- right code passes


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)


class InPlace(Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(3)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, dout):
        return 3 * dout


class WithIndices(Function):
    @staticmethod
    def forward(ctx, x):
        y, i = x.sort(-1)
        rank = i.to(x.dtype)
        ctx.mark_non_differentiable(i, rank)
        ctx.save_for_backward(i)
        return y, i, rank

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout, *_):
        (i,) = ctx.saved_tensors
        return torch.zeros_like(dout).scatter(-1, i, dout)


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(-1, 1, 20).reshape(5, 4))
        self.frozen = nn.Parameter(torch.full((4,), 1.5), requires_grad=False)
        self.weight = nn.Parameter(torch.randn(4))
        self.unused = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return {"y": (x + self.table) * self.frozen, "more": [torch.sin(x) * self.weight, None, 3]}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, ids):
        return self.out(torch.tanh(self.embedding(ids)))


class HasWriteBack(nn.Module):
    """Has a generator, a plain tensor that is trained, and a count of its calls."""

    def __init__(self):
        super().__init__()
        self.generator, self.gain, self.calls = torch.Generator().manual_seed(3), torch.ones(4).requires_grad_(), 0

    def forward(self, x):
        self.calls += 1
        return x * self.gain * torch.bernoulli(torch.full(x.shape, 0.5, dtype=x.dtype), generator=self.generator)


IDS = torch.tensor([[1, 2, 2], [0, 6, 1]])
RIGHT_MODULES = {
    "linear": (lambda: nn.Linear(4, 3), (X,)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (T(2, 2, 6, 5),)),
    "conv-transpose": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (T(2, 2, 5),)),
    "layer norm": (lambda: nn.LayerNorm(4), (X,)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (T(2, 4, 3, 3),)),
    "gelu": (nn.GELU, (X,)),
    "attention": (Attention, (T(2, 5, 4),)),
    "cross attention": (lambda: nn.MultiheadAttention(4, 2), (T(5, 2, 4), T(3, 2, 4, seed=4), T(3, 2, 4, seed=5))),
    "lstm": (lambda: nn.LSTM(4, 3, num_layers=2), (T(3, 2, 4),)),
    "gru with a state": (lambda: nn.GRU(4, 3), (T(3, 2, 4), T(1, 2, 3))),
    "embedding": (lambda: nn.Embedding(7, 4), (IDS,)),
    "embedding bag": (lambda: nn.EmbeddingBag(7, 4, mode="sum"), (IDS,)),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh()), (X,)),
    "dropout in eval": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)).eval(), (X,)),
    "batch norm": (lambda: nn.BatchNorm1d(4), (X,)),
    "batch norm in eval": (lambda: nn.BatchNorm1d(4).eval(), (X,)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (X,)),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 6, activation="gelu", batch_first=True), (T(2, 3, 4),)),
    "bilinear": (lambda: nn.Bilinear(4, 3, 2), (X, T(5, 3))),
    "cross entropy": (nn.CrossEntropyLoss, (X, torch.tensor([1, 0, 3, 3, 2]))),
    "buffers, frozen and unused": (Positions, (X,)),
    "tied": (Tied, (IDS,)),
    "with a generator": (HasWriteBack, (X,)),
    "sequence of tensors": (lambda: lambda xs, how=None: torch.cat(xs, 1).sin(), ([X, T(5, 2)], None)),
    "in place, declared": (lambda: InPlace.apply, (X,)),
    "in place, by an operation": (lambda: lambda x: x.sin_() * 2, (X,)),
    "not differentiable outputs": (lambda: WithIndices, (X,)),
    "of one's own, with a number": (lambda: Ctx, (X, T(5, 4, seed=7), 3)),
    "summed back by PyTorch": (lambda: custom(scale, lambda g, x, gamma, y: (g * gamma, g * x)), (X, T(4))),
    "a function of torch": (lambda: F.softplus, (X,)),
    "not contiguous": (lambda: Ctx, (T(4, 5).T, T(5, 8)[:, ::2])),
    "checkpointed": (
        lambda: lambda x, w: torch.utils.checkpoint.checkpoint(Ctx.apply, x, w, use_reentrant=False),
        (X, T(4)),
    ),
}


@pytest.mark.parametrize("name", sampled(RIGHT_MODULES, 5))
def test_right_code_passes(name):
    make, inputs = RIGHT_MODULES[name]
    thing = make()
    if isinstance(thing, nn.Module):
        thing = thing.double()
    state = copy.deepcopy(thing.state_dict()) if isinstance(thing, nn.Module) else {}
    report = check(thing, *inputs)
    assert report.verdict == "PASS", str(report)
    for key, value in state.items():
        assert torch.equal(thing.state_dict()[key], value)


@pytest.mark.slow
@pytest.mark.parametrize("module", [nn.Linear(4, 3), nn.LayerNorm(4)])
def test_a_float32_module_takes_the_float64_inputs_that_numpy_makes(module):
    assert check(module, X.numpy()).verdict == "PASS"
    assert check(module, X).verdict == "PASS"
    assert check(module, (5, 4)).verdict == "PASS"
    assert module.bias.dtype == torch.float32
    assert module.bias.grad is None


# ------------------------------------------------------------------------------------- float32, where kinks are noise

FLOAT32 = ["linear", "conv2d", "layer norm", "group norm", "gelu", "attention", "lstm", "batch norm", "dropout"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(FLOAT32, 4))
def test_right_float32_modules_pass(name):
    make, inputs = RIGHT_MODULES[name]
    report = check(make(), *(x.float() for x in inputs))
    assert report.verdict == "PASS", str(report)


def computed_in_float32(factor):
    """A Function that accepts any float dtype, and computes in float32."""

    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.tanh(x.float() * w.float()).to(x.dtype)

    def backward(ctx, dout):
        x, w = (tensor.float() for tensor in ctx.saved_tensors)
        d = dout.float() * (1 - torch.tanh(x * w) ** 2)
        return factor * (d * w).to(dout.dtype), (d * x).sum(0).to(dout.dtype)

    return deriving(Function, forward=forward, backward=backward)


def only_float32(factor):
    """A Function that refuses dtypes other than float32."""

    def forward(ctx, x, w):
        assert x.dtype == w.dtype == torch.float32
        ctx.save_for_backward(x, w)
        return torch.tanh(x * w)

    def backward(ctx, dout):
        assert dout.dtype == torch.float32
        x, w = ctx.saved_tensors
        d = dout * (1 - torch.tanh(x * w) ** 2)
        return factor * d * w, (d * x).sum(0)

    return deriving(Function, forward=forward, backward=backward)


FLOAT32_FUNCTIONS = {
    "inside, float32 inputs": (computed_in_float32, torch.float32),
    "inside, float64 inputs": (computed_in_float32, torch.float64),
    "only, float32 inputs": (only_float32, torch.float32),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT32_FUNCTIONS)
@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_functions_that_compute_in_float32_pass_if_right_and_fail_if_wrong(name, factor):
    make, dtype = FLOAT32_FUNCTIONS[name]
    report = check(make(factor), X.to(dtype), T(4).to(dtype))
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), str(report)


def squares(x):
    return (x**2).sum()


def squares_grad(x):
    return 3 * x


def test_a_gradient_beside_a_function_of_tensors_is_named_if_it_was_not_checked():
    expected = "PyTorch's derivative was checked, not squares_grad; pass gradient=squares_grad"
    assert check(squares, torch.tensor([0.3, -0.2, 0.7], dtype=torch.float64)).notes == (expected,)
