"""PyTorch's functions and modules: wrong gradients are found, right ones pass, and JAX is never called with tensors."""

import copy
import functools
import subprocess
import sys
import types

import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, check, check_function, check_layer
from jaxnet.crosscheck.inspect.foreign import foreign_framework
from jaxnet.crosscheck.inspect.torch_function import CheckableTorch, is_torch
from jaxnet.crosscheck.measure.streams import Stream, stream

torch = pytest.importorskip("torch")
F, nn, Function = torch.nn.functional, torch.nn, torch.autograd.Function


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for small tensors several are slower
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield


def T(*shape, seed=3, dtype=torch.float64):
    """A tensor of numbers away from 0."""
    x = stream(Stream.INPUTS, seed).standard_normal(shape)
    return torch.from_numpy(np.asarray(x + 0.2 * np.sign(x))).to(dtype)


def custom(forward, backward):
    """A Function whose backward gets (dout, inputs and output); it has the forward's own argument names."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)

    passes = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(lambda ctx, dout: backward(dout, *ctx.saved_tensors)),
    }
    return type("Custom", (Function,), passes)


def linear(x, w, b):
    return x @ w + b


def scale(x, gamma):
    return x * gamma


def tanh(x):
    return torch.tanh(x)


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
    "tanh: in half": (tanh, lambda g, x, y: (g.half() * (1 - y * y).half()).double()),
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
    "mean square: by rows": (mean_square, lambda g, y, t, l: (2 * g * (y - t) / len(y), -2 * g * (y - t) / len(y))),
    "mean square: ignores dout": (mean_square, lambda g, y, t, l: (2 * (y - t) / y.numel(), -2 * (y - t) / y.numel())),
    "mean square: 2 forgotten": (
        mean_square,
        lambda g, y, t, l: (g * (y - t) / y.numel(), -2 * g * (y - t) / y.numel()),
    ),
}


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_a_wrong_gradient_fails(name):
    forward, backward = WRONG_GRADIENTS[name]
    inputs = [x.clone().requires_grad_() for x in RIGHT_GRADIENTS[forward][0]]
    report = check(custom(forward, backward).apply, *inputs)
    assert report.verdict == "FAIL", str(report)


@pytest.mark.parametrize("forward", RIGHT_GRADIENTS)
def test_a_right_gradient_passes_by_its_class_and_by_its_apply(forward):
    inputs, backward = RIGHT_GRADIENTS[forward]
    brought = [x.clone() for x in inputs]
    for thing in (custom(forward, backward), custom(forward, backward).apply):
        report = check(thing, *brought)
        assert report.verdict == "PASS", str(report)
        assert [leaf.name for leaf in report.leaves] == list(forward.__code__.co_varnames[: len(inputs)])
    assert all(
        torch.equal(x, y) and not x.requires_grad and x.grad is None for x, y in zip(inputs, brought, strict=True)
    )


# ------------------------------------------------------------------------------------------- styles of torch.autograd


class Ctx(Function):
    """The style with a context: sin(x) w, with attributes on ctx."""

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
    """Takes dout's memory in its order, as a kernel that does not look at strides."""
    x, w = ctx.saved_tensors
    memory = torch.as_strided(dout, (min(dout.untyped_storage().nbytes() // 8, dout.numel()),), (1,))
    g = torch.cat([memory, memory.new_zeros(dout.numel() - len(memory))]).view(dout.shape)
    return g * torch.cos(x) * w, g * torch.sin(x), None


def saves_too_early(ctx, x, w, power=1):
    ctx.power = power
    y = torch.sin(x)
    ctx.save_for_backward(y, w)  # y is not x
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


@pytest.mark.parametrize("name", STYLES_WRONG)
def test_a_wrong_function_of_any_style_is_found(name):
    thing, (x, w, *rest) = STYLES_WRONG[name]
    assert check(thing, x.clone().requires_grad_(), w.clone().requires_grad_(), *rest).verdict == "FAIL"


@pytest.mark.parametrize("name", ["transposed", "spread", "reversed"])
def test_a_gradient_from_above_is_handed_over_with_its_strides(name):
    dout = {
        "transposed": stream(Stream.DOUT, 1).standard_normal((4, 5)).T,
        "spread": np.broadcast_to(stream(Stream.DOUT, 1).standard_normal(4), (5, 4)),
        "reversed": stream(Stream.DOUT, 1).standard_normal((5, 4))[::-1],
    }[name]
    seen = []

    def records(ctx, g):
        seen.append(g.stride())
        return Ctx.backward(ctx, g)

    for backward, agrees in ((records, True), (reads_memory, name == "reversed")):
        opened = CheckableTorch(deriving(backward=backward), (X, T(5, 4, seed=7))).open({"x": X.numpy()})
        opened.forward()
        as_given, contiguous = opened.backward_as_given(dout), opened.backward(np.ascontiguousarray(dout))
        assert np.array_equal(as_given["x"], contiguous["x"]) is agrees
    expected = {"transposed": (1, 5), "spread": (0, 1), "reversed": (4, 1)}
    assert expected[name] in seen


def test_a_float32_gradient_in_a_float64_function_is_seen():
    rounded = custom(tanh, lambda g, x, y: (g.float() * (1 - y * y).float()).double())
    assert check(rounded.apply, X).verdict != "PASS"


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
    """Keeps its generator, a plain tensor that is trained, and a count of its calls."""

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


@pytest.mark.parametrize("name", RIGHT_MODULES)
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


@pytest.mark.parametrize("module", [nn.Linear(4, 3), nn.LayerNorm(4)])
def test_a_float32_module_takes_the_float64_inputs_that_numpy_makes(module):
    assert check(module, X.numpy()).verdict == "PASS"
    assert check(module, X).verdict == "PASS"
    assert check(module, (5, 4)).verdict == "PASS"
    assert module.bias.dtype == torch.float32
    assert module.bias.grad is None


# ------------------------------------------------------------------------------------------------------- what is found


def test_names_are_those_of_pytorch():
    subject = CheckableTorch(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (X.float(),))
    assert list(subject.leaves) == ["input", "0.weight", "0.bias", "1.weight", "1.bias"]
    assert subject.constants == {"1.running_mean", "1.running_var"}
    assert subject.name == "Sequential"
    assert list(CheckableTorch(Ctx, (X, T(4))).leaves) == ["x", "w"]
    assert list(CheckableTorch(lambda tree: tree["a"] * tree["b"][0], ({"a": X, "b": [X + 1]},)).leaves) == [
        "tree.a",
        "tree.b.0",
    ]


def test_only_inputs_with_requires_grad_are_leaves_where_any_has_it():
    subject = CheckableTorch(mean_square, (X.clone().requires_grad_(), X + 1))
    assert list(subject.leaves) == ["y"]
    assert subject.constants == {"t"}


def test_an_input_for_which_none_comes_back_is_no_leaf_and_no_constant():
    forgets = custom(mean_square, lambda g, y, t, loss: (2 * g * (y - t) / y.numel(), None))
    subject = CheckableTorch(forgets, (X, X + 1))
    assert list(subject.leaves) == ["y"]
    assert set(subject.others) == {"t"}
    assert not subject.constants


GAIN = torch.full((4,), 1.5, dtype=torch.float64, requires_grad=True)
LAYER = nn.Linear(4, 3).double()


def beside(x):
    return torch.sin(x) * GAIN


def uses_globals(x):
    return LAYER(beside(x))


@pytest.mark.parametrize("style", ["closure", "method", "partial", "object", "globals", "nested"])
def test_parameters_that_a_callable_refers_to_are_leaves(style):
    net, w = nn.Linear(4, 3).double(), torch.ones(4, dtype=torch.float64, requires_grad=True)

    class Model:
        def __init__(self):
            self.w, self.net = w, net

        def run(self, x):
            return self.net(x * self.w)

        __call__ = run

    thing, names = {
        "closure": (lambda x: net(x * w), {"net.weight", "net.bias", "w"}),
        "method": (Model().run, {"net.weight", "net.bias", "w"}),
        "object": (Model(), {"net.weight", "net.bias", "w"}),
        "partial": (functools.partial(lambda a, net, x: net(x * a), w, net), {"0", "1.weight", "1.bias"}),
        "globals": (uses_globals, {"LAYER.weight", "LAYER.bias", "beside.GAIN"}),
        "nested": (lambda x: (lambda y: net(y))(x * w), {"net.weight", "net.bias", "w"}),
    }[style]
    report = check(thing, X)
    assert report.verdict == "PASS", str(report)
    assert len(report.leaves) == 4
    assert names <= {leaf.name for leaf in report.leaves}
    assert torch.equal(w, torch.ones_like(w))


def test_a_wrong_gradient_by_a_closed_over_parameter_fails():
    w = T(4).requires_grad_()
    wrong = custom(scale, lambda g, x, gamma, y: (g * gamma, 5 * (g * x).sum(0)))
    report = check(lambda x: wrong.apply(x, w), X)
    assert [leaf.verdict for leaf in report.leaves] == ["PASS", "FAIL"]


def test_a_parameter_that_moves_the_output_without_a_gradient_does_not_pass():
    class Detaches(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.detach(), self.bias)

    assert check(Detaches(4, 3).double(), X).verdict != "PASS"


def test_undeclared_changes_in_place_are_told():
    def forward(ctx, x):
        x.mul_(3)
        return x.clone()

    assert "overwrites x" in str(check(deriving(InPlace, forward=forward), X))


def test_what_raises_is_the_backward_s_fault():
    shapes = custom(scale, lambda g, x, gamma, y: (g * gamma, (g * x).sum(1)))
    report = check(shapes, X, T(4))
    assert report.verdict == "FAIL"
    assert "backward raises RuntimeError" in str(report)


def test_outputs_are_packed_in_order_and_gradients_come_by_name():
    subject = CheckableTorch(lambda x, n: {"a": x * n, "b": (torch.tensor(1), x.sum())}, (X, 3))
    opened = subject.open({"x": X.numpy()})
    assert opened.forward().shape == (21,)
    dout = np.arange(21.0)
    for _ in range(2):
        assert np.array_equal(opened.backward(dout)["x"], 3 * dout[:20].reshape(5, 4) + 20)
    assert subject.derived_by == "PyTorch"
    assert subject.takes_dout


def test_a_draw_is_the_same_for_both_passes_and_the_users_generator_goes_on():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    subject = CheckableTorch(nn.Dropout(0.5), (X,))
    opened, other = (subject.open({"input": X.numpy()}) for _ in range(2))
    assert np.array_equal(opened.forward(), other.forward())
    assert np.array_equal(opened.backward(np.ones((5, 4)))["input"] * X.numpy(), opened.forward())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_context_does_not_matter(context):
    with context():
        assert check(tanh, torch.tensor(X.numpy())).verdict == "PASS"


def test_float_types():
    half = CheckableTorch(nn.Linear(4, 3).bfloat16(), (X.bfloat16(),))
    assert {leaf.dtype for leaf in half.leaves.values()} == {np.dtype(np.float32)}
    opened = half.open(half.leaves)
    y = opened.forward()
    assert y.dtype == np.float32
    assert np.array_equal(y, torch.from_numpy(y).bfloat16().float().numpy())
    assert half.forward({n: a.astype(np.float64) for n, a in half.leaves.items()}).dtype == np.float64

    def forward(ctx, x):
        assert x.dtype == torch.float32
        return 3 * x

    kernel = CheckableTorch(deriving(InPlace, forward=forward), (X.float(),))
    assert not kernel.accepts_double
    assert kernel.forward(kernel.leaves).dtype == np.float32
    assert kernel.forward({"x": X.numpy()}).dtype == np.float32


def test_a_layout_is_kept():
    subject = CheckableTorch(tanh, (T(4, 5).T,))
    assert subject.leaves["x"].flags.f_contiguous
    assert subject.tensor("x", subject.leaves).stride() == (1, 5)


def test_a_reference_in_jax_is_called_with_the_parameters_and_the_inputs():
    import jax.numpy as jnp

    report = check(
        nn.Linear(4, 3).double(), X, reference=lambda params, x: x @ jnp.transpose(params["weight"]) + params["bias"]
    )
    assert report.verdict == "PASS", str(report)


def test_a_gradient_written_for_tensors_is_checked():
    def gradient(x, dout):
        return dout * torch.cos(x)

    assert check_function(torch.sin, X, gradient=gradient).verdict == "PASS"
    assert check_function(torch.sin, X, gradient=lambda x, dout: 2 * dout * torch.cos(x)).verdict == "FAIL"
    assert check_layer((lambda x: (torch.sin(x), x), lambda dout, x: dout * torch.cos(x)), X).verdict == "PASS"
    assert check_layer((lambda x: (torch.sin(x), x), lambda dout, x: dout * torch.sin(x)), X).verdict == "FAIL"


REFUSED = {
    "complex": (lambda z: z * 2, (torch.ones(3, dtype=torch.complex128),), "view_as_real"),
    "complex output": (lambda x: torch.complex(x, x), (X,), "complex"),
    "sparse": (lambda x: x * 2, (X.to_sparse(),), "dense"),
    "no floats": (lambda ids: ids * 2, (IDS,), "no tensor of floats"),
    "no gradient": (lambda x: x.detach() * 2, (X,), "detach"),
    "a number": (lambda x: float(x.detach().sum()), (X,), "expected tensors"),
    "raises": (lambda x: x @ x, (X,), "RuntimeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_checked_is_refused(name):
    thing, inputs, says = REFUSED[name]
    with pytest.raises(SubjectError, match=says):
        check(thing, *inputs)


def test_an_object_with_its_own_backward_over_tensors_is_refused():
    class Layer:
        def forward(self, x):
            return x

        def backward(self, dout):
            return dout

        __call__ = forward

    with pytest.raises(SubjectError, match="backward of its own"):
        check(Layer(), X)


# ------------------------------------------------------------------------------------------------------ who is who


def test_what_is_torch():
    module, array = nn.Linear(4, 3), X.numpy()
    for thing, inputs in [
        (Ctx, (array,)),
        (Ctx.apply, (array,)),
        (module, (array,)),
        (module.forward, (array,)),
        (functools.partial(module), (array,)),
        (torch.sin, (array,)),
        (F.gelu, (array,)),
        (lambda x: x, (X,)),
        (lambda x: x, ([{"a": (1, X)}],)),
    ]:
        assert is_torch(thing, inputs)
    for thing, inputs in [(np.sin, (array,)), (lambda x: x, (array, None, "a", [1])), (object, ())]:
        assert not is_torch(thing, inputs)


def test_torch_is_never_imported():
    code = "import sys, numpy as np, jaxnet.crosscheck as c; c.check(lambda x: x * 2, np.ones(3)); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


FOREIGN = {
    "tensorflow": ("tensorflow.python.framework.ops", "TensorFlow", "GradientTape"),
    "keras": ("keras.src.layers", "TensorFlow", "GradientTape"),
    "autograd": ("autograd.numpy.numpy_boxes", "autograd", r"make_vjp\(f\)\(x\)\[0\]\(dout\)"),
    "pytensor": ("pytensor.tensor.variable", "PyTensor", "Lop"),
    "mlx": ("mlx.core", "MLX", "mx.vjp"),
    "cupy": ("cupy", "CuPy", r"\.get\(\)"),
}


@pytest.mark.parametrize("package", FOREIGN)
def test_other_frameworks_are_told_by_their_types_and_never_traced(package):
    module, name, says = FOREIGN[package]
    kind = type("Thing", (), {"__module__": module, "__call__": lambda self, x: pytest.fail("was called")})
    assert foreign_framework(kind(), (X.numpy(),)) == name
    assert foreign_framework(np.sin, ([{"a": kind()}],)) == name
    assert foreign_framework(kind, ()) == name
    with pytest.raises(SubjectError, match=says):
        check(kind(), X.numpy())
    with pytest.raises(SubjectError, match=says):
        check(lambda x: x, kind())


def test_a_function_that_names_another_framework_s_module_belongs_to_it():
    space = {"anp": types.ModuleType("autograd.numpy")}
    function = eval("lambda x: anp.sin(x)", space)
    assert foreign_framework(function, ()) == "autograd"
    assert foreign_framework(lambda x: np.sin(x), ()) is None
