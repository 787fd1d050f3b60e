"""Checks gradients of complex tensors of PyTorch: right ones pass, planted faults fail and are named."""

import warnings

import pytest
from complex_arrays import PYTORCH, W, X, Z, slips, verdicts
from conftest import sampled
from tensors import one_thread, same_weights  # noqa: F401 the fixtures act by being here

from jaxnet.crosscheck import SubjectError, Verdict, check, check_function
from jaxnet.crosscheck.explain.slips import Slip

torch = pytest.importorskip("torch")


def function_of(forward, backward):
    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return forward(z)

        @staticmethod
        def backward(ctx, g):
            return backward(*ctx.saved_tensors, g)

    return Ruled


def turned(x):
    return torch.exp(1j * x)


IN_TORCH = {
    "square": (lambda z: z * z, Z, lambda z, g: g * (2 * z).conj(), lambda z, g: g * 2 * z, ["z.real", "z.imag"]),
    "abs": (torch.abs, Z, lambda z, g: g * z / z.abs(), lambda z, g: g * z.conj() / z.abs(), ["z.imag"]),
    "rotation": (turned, X, lambda x, g: (g * (1j * turned(x)).conj()).real,
                 lambda x, g: (g * 1j * turned(x)).real, ["z"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TORCH)
def test_a_conjugate_in_a_function_of_pytorch_is_named(name):
    forward, at, right, wrong, leaves = IN_TORCH[name]
    assert check(function_of(forward, right), torch.tensor(at)).verdict is Verdict.PASS
    report = check(function_of(forward, wrong), torch.tensor(at))
    assert slips(report) == dict.fromkeys(leaves, Slip.CONJUGATE)
    (sentence,) = {leaf.diagnosis for leaf in report.leaves if leaf.diagnosis}
    assert "PyTorch's convention, dL/dx + i dL/dy" in sentence
    assert ("dout * conj(f'(x))" if name == "rotation" else "dout * conj(f'(z))") in sentence


@pytest.mark.slow
@pytest.mark.parametrize("backward", [lambda z, g: g * z / z.abs() / 2, lambda z, g: (g * z / z.abs()).real + 0j])
def test_other_faults_in_a_function_of_pytorch_fail(backward):
    report = check(function_of(torch.abs, backward), torch.tensor(Z))
    assert report.verdict is Verdict.FAIL
    assert Slip.CONJUGATE not in slips(report).values()


T = torch.tensor(Z)
RIGHT_IN_TORCH = {
    "matmul": (lambda z, w: z @ w, (T, torch.tensor(W))),
    "complex64": (lambda z: z * z.conj(), (T.to(torch.complex64),)),
    "a conjugate view": (lambda z: z.imag * z.real, (T.conj(),)),
    "a conjugate view of the output": (lambda z: (z * z).conj(), (T,)),
    "angle": (torch.angle, (T,)),
    "real to complex": (turned, (torch.tensor(X),)),
    "rfft": (torch.fft.rfft, (torch.tensor(X),)),
    "two outputs": (lambda z: (z * z, z.abs()), (T,)),
    "in place": (lambda z: z.mul_(2), (T,)),
    "abs at 0": (torch.abs, (torch.zeros(3, dtype=torch.complex128),)),
    "a module": (torch.nn.Linear(3, 2, dtype=torch.complex128), (T,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(RIGHT_IN_TORCH, 3))
def test_complex_tensors_pass(name):
    f, inputs = RIGHT_IN_TORCH[name]
    before = [tensor.clone() for tensor in inputs]
    report = check(f, *inputs)
    report.raise_if_failed()
    assert report.verdict is Verdict.PASS
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, before, strict=True))


@pytest.mark.slow
def test_parts_of_complex_parameters_are_leaves():
    report = check(torch.nn.Linear(3, 2, dtype=torch.complex128), T)
    assert {"weight.real", "weight.imag", "bias.real", "bias.imag"} <= verdicts(report).keys()


class WrongForward(torch.autograd.Function):
    """The square, right in reverse mode and without its 2 in forward mode."""

    @staticmethod
    def forward(z):
        return z * z

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return g * (2 * ctx.saved_tensors[0]).conj()

    @staticmethod
    def jvp(ctx, tangent):
        return ctx.saved_tensors[0] * tangent


def test_forward_mode_of_complex_tensors_is_compared():
    report = check(WrongForward, T)
    assert report.verdict is Verdict.FAIL
    assert any("forward mode" in sentence for sentence in report.behaviour)


@pytest.mark.slow
def test_second_derivatives_and_vmap_of_complex_tensors():
    assert check(lambda z: z * z * z.conj(), T, order=2, transforms=("vmap", "checkpoint")).verdict is Verdict.PASS

    def half(z, g):  # right, but detached from z, so that its own derivative is wrong
        return g * (2 * z.detach()).conj()

    assert check(function_of(lambda z: z * z, half), T, order=2).verdict is Verdict.FAIL


@pytest.mark.slow
def test_a_reference_in_jax_takes_the_parts_of_tensors():
    assert check(lambda z, w: z @ w, T, torch.tensor(W), reference=lambda z, w: z @ w).verdict is Verdict.PASS
    assert check(lambda z, w: z @ w, T, torch.tensor(W), reference=lambda z, w: z @ w.conj()).verdict is Verdict.FAIL


def test_complex32_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = torch.ones(3, dtype=torch.complex32)
    with pytest.raises(SubjectError, match="z is a tensor of complex32, expected complex64"):
        check(lambda z: z * 2, half)


def test_a_gradient_may_return_a_conjugate_view_of_a_tensor():
    report = check_function(lambda z: z.conj() * 1, T, gradient=lambda z, dout: dout.conj())
    assert report.verdict is Verdict.PASS


def test_a_gradient_by_pytorch_follows_its_own_convention():
    def loss(z):
        return (torch.abs(z) ** 2 * z.real + z.imag).sum()

    report = check_function(
        loss, torch.tensor(Z), gradient=lambda z: torch.autograd.grad(loss(z.requires_grad_()), z)[0]
    )
    assert report.verdict is Verdict.PASS
    assert any(note.startswith(PYTORCH) for note in report.notes)
