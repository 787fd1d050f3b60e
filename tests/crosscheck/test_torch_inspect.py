"""Tests the inspection of PyTorch objects: leaves, names, dtypes, strides, generators, and rejected objects."""

import functools
import threading

import numpy as np
import pytest
from conftest import sampled, slow
from tensors import T, custom, one_thread, same_weights, scale, tanh  # noqa: F401 the fixtures act by being here

from jaxnet.crosscheck import SubjectError, check, check_function, check_layer
from jaxnet.crosscheck.inspect.torch_function import CheckableTorch, is_torch
from jaxnet.crosscheck.streams import Stream, stream

torch = pytest.importorskip("torch")
F, nn, Function = torch.nn.functional, torch.nn, torch.autograd.Function


def mean_square(y, t):
    return ((y - t) ** 2).mean()


X, IDS = T(5, 4), torch.tensor([[1, 2, 2], [0, 6, 1]])


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


def reads_memory(ctx, dout):
    """Reads dout in memory order, as a kernel does that ignores strides."""
    x, w = ctx.saved_tensors
    memory = torch.as_strided(dout, (min(dout.untyped_storage().nbytes() // 8, dout.numel()),), (1,))
    g = torch.cat([memory, memory.new_zeros(dout.numel() - len(memory))]).view(dout.shape)
    return g * torch.cos(x) * w, g * torch.sin(x), None


class InPlace(Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(3)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, dout):
        return 3 * dout


@pytest.mark.parametrize("name", ["transposed", "spread", "reversed"])
def test_dout_keeps_its_strides(name):
    dout = {
        "transposed": stream(Stream.DOUT, 1).standard_normal((4, 5)).T,
        "spread": np.broadcast_to(stream(Stream.DOUT, 1).standard_normal(4), (5, 4)),
        "reversed": stream(Stream.DOUT, 1).standard_normal((5, 4))[::-1],
    }[name]
    strides = []

    def records(ctx, g):
        strides.append(g.stride())
        return Ctx.backward(ctx, g)

    for backward, agrees in ((records, True), (reads_memory, name == "reversed")):
        opened = CheckableTorch(deriving(backward=backward), (X, T(5, 4, seed=7))).open({"x": X.numpy()})
        opened.forward()
        as_given, contiguous = opened.backward_as_given(dout), opened.backward(np.ascontiguousarray(dout))
        assert np.array_equal(as_given["x"], contiguous["x"]) is agrees
    expected = {"transposed": (1, 5), "spread": (0, 1), "reversed": (4, 1)}
    assert expected[name] in strides


# ------------------------------------------------------------------------------------------------------- leaves


def test_leaves_have_pytorchs_names():
    subject = CheckableTorch(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (X.float(),))
    assert list(subject.leaves) == ["input", "0.weight", "0.bias", "1.weight", "1.bias"]
    assert subject.constants == {"1.running_mean", "1.running_var"}
    assert subject.name == "Sequential"
    assert list(CheckableTorch(Ctx, (X, T(4))).leaves) == ["x", "w"]
    assert list(CheckableTorch(lambda tree: tree["a"] * tree["b"][0], ({"a": X, "b": [X + 1]},)).leaves) == [
        "tree.a",
        "tree.b.0",
    ]


def test_inputs_with_requires_grad_are_the_only_input_leaves():
    subject = CheckableTorch(mean_square, (X.clone().requires_grad_(), X + 1))
    assert list(subject.leaves) == ["y"]
    assert subject.constants == {"t"}


def test_input_with_gradient_none_is_neither_leaf_nor_constant():
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


@pytest.mark.slow
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


def test_undeclared_changes_in_place_are_reported():
    def forward(ctx, x):
        x.mul_(3)
        return x.clone()

    assert "overwrites x" in check(deriving(InPlace, forward=forward), X).text(width=None)


def test_an_exception_in_backward_is_a_fault():
    shapes = custom(scale, lambda g, x, gamma, y: (g * gamma, (g * x).sum(1)))
    report = check(shapes, X, T(4))
    assert report.verdict == "FAIL"
    assert "backward raises RuntimeError" in report.text(width=None)


def test_outputs_are_packed_in_order_and_gradients_come_by_name():
    subject = CheckableTorch(lambda x, n: {"a": x * n, "b": (torch.tensor(1), x.sum())}, (X, 3))
    opened = subject.open({"x": X.numpy()})
    assert opened.forward().shape == (21,)
    dout = np.arange(21.0)
    for _ in range(2):
        assert np.array_equal(opened.backward(dout)["x"], 3 * dout[:20].reshape(5, 4) + 20)
    assert subject.derived_by == "PyTorch"
    assert subject.takes_dout


def test_both_passes_draw_equal_numbers_and_the_users_generator_is_restored():
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


def test_bfloat16_modules_and_float32_functions_compute_in_their_dtype():
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


def test_a_transposed_tensor_keeps_its_strides():
    subject = CheckableTorch(tanh, (T(4, 5).T,))
    assert subject.leaves["x"].flags.f_contiguous
    assert subject.tensor("x", subject.leaves).stride() == (1, 5)


@pytest.mark.slow
def test_a_reference_in_jax_is_called_with_the_parameters_and_the_inputs():
    import jax.numpy as jnp

    report = check(
        nn.Linear(4, 3).double(), X, reference=lambda params, x: x @ jnp.transpose(params["weight"]) + params["bias"]
    )
    assert report.verdict == "PASS", str(report)


@pytest.mark.slow
def test_a_gradient_written_for_tensors_is_checked():
    def gradient(x, dout):
        return dout * torch.cos(x)

    assert check_function(torch.sin, X, gradient=gradient).verdict == "PASS"
    assert check_function(torch.sin, X, gradient=lambda x, dout: 2 * dout * torch.cos(x)).verdict == "FAIL"
    assert check_layer((lambda x: (torch.sin(x), x), lambda dout, x: dout * torch.cos(x)), X).verdict == "PASS"
    assert check_layer((lambda x: (torch.sin(x), x), lambda dout, x: dout * torch.sin(x)), X).verdict == "FAIL"


REFUSED = {
    "sparse": (lambda x: x * 2, (X.to_sparse(),), "dense"),
    "no floats": (lambda ids: ids * 2, (IDS,), "no tensor of floats"),
    "no gradient": (lambda x: x.detach() * 2, (X,), "detach"),
    "a number": (lambda x: float(x.detach().sum()), (X,), "expected tensors"),
    "raises": (lambda x: x @ x, (X,), "RuntimeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_code_is_rejected(name):
    thing, inputs, says = REFUSED[name]
    with pytest.raises(SubjectError, match=says):
        check(thing, *inputs)


# ----------------------------------------------------------------------------------------------------- kinds of code


def test_is_torch_recognizes_tensors_modules_and_functions():
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


class Linear:
    """A layer of tensors with a handwritten backward, as in lectures."""

    def __init__(self, factor=1.0, dtype=torch.float64):
        self.weight, self.bias, self.factor = T(4, 3, dtype=dtype), T(3, dtype=dtype), factor

    def forward(self, x):
        self.x = x
        self.out = x @ self.weight + self.bias
        return self.out

    def backward(self, dout):
        self.dweight, self.dbias = self.factor * self.x.T @ dout, dout.sum(0)
        return dout @ self.weight.T


class SetsGrad(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.w, self.factor = nn.Parameter(T(4, 3)), factor

    def forward(self, x):
        self.x = x
        return x @ self.w

    def backward(self, dout):
        self.w.grad = self.factor * self.x.T @ dout
        return dout @ self.w.T


class AsksAutograd:
    def __init__(self, factor=1.0):
        self.w, self.factor = T(4, 3).requires_grad_(), factor

    def forward(self, x):
        self.x = x.clone().requires_grad_()
        self.y = torch.tanh(self.x @ self.w)
        return self.y

    def backward(self, dout):
        dx, dw = torch.autograd.grad(self.y, (self.x, self.w), dout, retain_graph=True)
        self.dw = self.factor * dw
        return dx


@pytest.mark.parametrize("kind", sampled([Linear, SetsGrad, AsksAutograd], 3))
@pytest.mark.parametrize("run", [check, check_layer])
def test_layer_of_tensors_with_a_hand_written_backward(kind, run):
    layer = kind()
    report = run(layer, X)
    assert report.verdict == "PASS", str(report)
    assert len(report.leaves) == (3 if kind is Linear else 2)
    assert not hasattr(layer, "x")
    report = run(kind(1.01), X)
    assert report.verdict == "FAIL"
    assert [leaf.name for leaf in report.leaves if leaf.verdict == "FAIL"] in (["weight"], ["w"])


@pytest.mark.slow
def test_a_float32_layer_of_tensors_takes_float64_inputs():
    assert check(Linear(dtype=torch.float32), X).verdict == "PASS"


def test_layers_of_tensors_within_layers_are_rejected():
    class Two(Linear):
        def __init__(self):
            super().__init__()
            self.parts = [Linear()]

    with pytest.raises(SubjectError, match=r"parts.0.weight is a tensor in one of its parts"):
        check(Two(), X)


# -------------------------------------------------------------------------------------------------------- odd modules


class MakesItsOwn(nn.Module):
    """Makes its parameter in the first forward."""

    def __init__(self):
        super().__init__()
        self.w = None

    def forward(self, x):
        if self.w is None:
            self.w = nn.Parameter(torch.randn(x.shape[-1], 3, dtype=x.dtype))
        return x @ self.w


class HoldsAnything(nn.Module):
    def __init__(self):
        super().__init__()
        self.functional, self.lock, self.linear = F, threading.Lock(), nn.Linear(4, 3).double()
        self.pairs = [(threading.Lock(), self.linear)]

    def forward(self, x):
        with self.lock:
            return self.functional.gelu(self.pairs[0][1](x))


class KeepsItsOutput(nn.Linear):
    def forward(self, x):
        self.last = super().forward(x)
        return self.last


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (MakesItsOwn, 2),
        (lambda: nn.LazyLinear(3), 3),
        (HoldsAnything, 3),
        (lambda: KeepsItsOutput(4, 3).double(), 3),
    ],
)
@pytest.mark.parametrize("called", [slow(False), True])
def test_unusual_modules_are_copied_and_checked(make, count, called):
    module = make()
    if called and not isinstance(module, nn.LazyLinear):
        module(X)
    report = check(module, X)
    assert report.verdict == "PASS", str(report)
    assert len(report.leaves) == count
    assert called or getattr(module, "w", None) is None


def test_an_object_without_tensors_is_copied_too():
    class Counts:
        calls = 0

        def __call__(self, x):
            self.calls, self.x = self.calls + 1, x
            return x.sin()

        run = __call__

    counts = Counts()
    assert check(counts, X).verdict == "PASS"
    assert check(counts.run, X).verdict == "PASS"
    assert vars(counts) == {}


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_a_script_is_rejected():
    script = torch.jit.trace(nn.Linear(4, 3).double(), X)
    with pytest.raises(SubjectError, match="pass the original module"):
        check(script, X)


@pytest.mark.slow
def test_a_view_of_a_parameter_is_a_leaf():
    theta = T(8).requires_grad_()
    w = theta.view(4, 2)
    wrong = type("Wrong", (InPlace,), {"backward": staticmethod(lambda ctx, dout: 5 * dout)})
    assert check(lambda x: x @ w, X).verdict == "PASS"
    assert check(lambda x: x @ wrong.apply(w.clone()), X).verdict == "FAIL"


def test_outputs_without_a_graph_are_named():
    assert CheckableTorch(lambda x: (x * 2, {"mean": x.detach().mean()}), (X,)).outputs_without_gradient == [
        "output.1.mean"
    ]


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.001, "FAIL")])
def test_a_function_of_tensors_beside_its_derivative_is_checked_as_one_of_arrays_is(factor, verdict):
    def softplus(x):
        return torch.log1p(torch.exp(x))

    def softplus_derivative(x):
        return factor * torch.sigmoid(x)

    assert check((softplus, softplus_derivative), T(5, 4)).verdict == verdict


def test_the_call_that_is_proposed_for_gradients_of_attributes_works():
    class Energy:
        def __init__(self):
            self.w, self.b = T(4, 3), T(3)

        def energy(self, v):
            return (v @ self.w + self.b).square().sum(dim=1)

        def energy_gradient(self, v):
            grad_b = 2 * (v @ self.w + self.b)
            grad_w = v.T @ grad_b / len(v)
            grad_b = grad_b.mean(dim=0)
            return grad_b, grad_w

    net, v = Energy(), T(5, 4)
    with pytest.raises(SubjectError, match="if energy_gradient returns the gradients of b, w, for net") as raised:
        check(net, v)
    call = str(raised.value).rpartition("(...): ")[2]
    report = eval(call, {"check_function": check_function, "net": net, "v": v})
    assert (report.verdict, [leaf.name for leaf in report.leaves]) == ("PASS", ["p.b", "p.w"])
