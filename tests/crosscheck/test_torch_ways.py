"""What the checker does in place of each feature of PyTorch's gradcheck and gradgradcheck; the README lists them."""

import pytest
from conftest import sampled

torch = pytest.importorskip("torch")

from mutants.torch_functions import TORCH_CASES  # noqa: E402

from jaxnet.crosscheck import SubjectError, Verdict, check  # noqa: E402
from jaxnet.crosscheck.measure.findings import Behaviour  # noqa: E402

Function = torch.autograd.Function
FINDINGS = {  # the finding, or None if the values of the gradient show it
    "square_small": None,
    "cubed_in_bfloat16": None,
    "DropoutDrawnAgain": None,
    "JvpFactor": Behaviour.FORWARD_MODE_WRONG,
    "JvpOfOneArgument": Behaviour.FORWARD_MODE_WRONG,
    "VmapOverBatch": Behaviour.TRANSFORM_VALUE,
    "VmapFirstSample": Behaviour.TRANSFORM_VALUE,
    "NeededExchanged": Behaviour.PARTIAL_DIFFERS,
    "NeededRaises": Behaviour.PARTIAL_RAISES,
    "UndefinedRaises": Behaviour.UNDEFINED_RAISES,
    "OnlyUndefinedRaises": Behaviour.UNDEFINED_RAISES,
    "UndefinedSign": Behaviour.UNDEFINED_DIFFERS,
    "UndefinedDropped": Behaviour.UNDEFINED_DIFFERS,
    "UndefinedAsOnes": Behaviour.UNDEFINED_DIFFERS,
    "ViewOfDout": Behaviour.STRIDE_0_DOUT,
    "KernelReadsDout": Behaviour.FORTRAN_DOUT,
    "KernelReadsInput": Behaviour.NOT_CONTIGUOUS_INPUT,
    "KeptByClass": Behaviour.SHARED_BY_CLASS,
    "ChangesCache": Behaviour.SECOND_BACKWARD_DIFFERS,
    "ChangesDout": Behaviour.OVERWRITES_DOUT,
    "ChangesInput": Behaviour.FORWARD_OVERWRITES,
    "Clipped": Behaviour.NOT_LINEAR,
}
TOLERANT = ["square_large", "relu_half_at_0", "float32_inside", "sine_float32"]  # where fixed steps and limits fail


def report_of(name, **options):
    f, inputs = TORCH_CASES[name].make(torch.Generator().manual_seed(0))
    return check(f, *inputs, **options)


@pytest.mark.parametrize("name", sampled(FINDINGS, 3))
def test_a_planted_bug_is_found_in_its_own_way(name):
    report = report_of(name)
    assert report.verdict is Verdict.FAIL
    if FINDINGS[name] is None:
        assert not report.faults
    else:
        assert FINDINGS[name] in report.faults
        assert all(leaf.verdict is not Verdict.FAIL for leaf in report.leaves)


@pytest.mark.parametrize("name", TOLERANT)
def test_right_code_passes_without_a_tolerance(name):
    assert report_of(name).verdict is Verdict.PASS


class TestUndefinedDouts:
    def test_the_report_tells_which_output_alone_is_used(self):
        text = report_of("UndefinedSign").text(width=None)
        assert "dx differs by" in text
        assert "if of the 2 outputs with a gradient only number 2 is used" in text

    def test_the_report_tells_the_exception(self):
        (text,) = report_of("OnlyUndefinedRaises").behaviour
        assert text.startswith("backward raises TypeError")
        assert "dout is None for all outputs" in text

    def test_a_rule_that_handles_them_passes(self):
        assert report_of("UndefinedHandled").verdict is Verdict.PASS

    def test_a_hook_that_does_not_expect_none_is_no_fault(self):
        def doubled(x):
            y = torch.sin(x)
            y.register_hook(lambda dout: dout * 1.0)
            return y

        report = check(doubled, torch.linspace(0.1, 1, 5, dtype=torch.float64))
        assert report.verdict is Verdict.PASS
        assert "dout is None" in report.text(width=None)  # a warning

    def test_an_output_that_is_marked_as_not_differentiable_is_not_counted(self):
        assert report_of("MarkedNonDifferentiable").verdict is Verdict.PASS


class TestSecondOrder:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["Detached", "DetachedDout", "KeptIntermediate", "DoubleBackwardNone"])
    def test_a_wrong_second_derivative_fails(self, name):
        assert report_of(name).verdict is Verdict.PASS
        assert report_of(name, order=2).verdict is Verdict.FAIL

    @pytest.mark.slow
    def test_a_right_one_passes(self):
        assert report_of("DoubleBackward", order=2).verdict is Verdict.PASS

    def test_a_backward_marked_as_differentiable_once_is_refused(self):
        with pytest.raises(SubjectError, match="once_differentiable"):
            report_of("Once", order=2)

    @pytest.mark.slow
    @pytest.mark.parametrize(("factor", "verdict"), [(1, Verdict.PASS), (1.5, Verdict.FAIL)])
    def test_forward_mode_of_the_gradient_is_compared(self, factor, verdict):
        class Slope(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                ctx.save_for_forward(x)
                return 3 * x**2

            @staticmethod
            def backward(ctx, dout):
                (x,) = ctx.saved_tensors
                return 6 * x * dout

            @staticmethod
            def jvp(ctx, v):
                (x,) = ctx.saved_tensors
                return factor * 6 * x * v

        class Cube(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                ctx.save_for_forward(x)
                return x**3

            @staticmethod
            def backward(ctx, dout):
                return dout * Slope.apply(*ctx.saved_tensors)

            @staticmethod
            def jvp(ctx, v):
                (x,) = ctx.saved_tensors
                return 3 * x**2 * v

        assert check(Cube.apply, torch.linspace(0.1, 1, 5, dtype=torch.float64), order=2).verdict is verdict


class TestBatchedDouts:
    class OverAll(Function):
        """Its backward asks for a Python number, which a batch of douts has not."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        def backward(ctx, dout):
            (x,) = ctx.saved_tensors
            return dout * torch.cos(x) if float(dout.abs().sum()) > 0 else torch.zeros_like(x)

    def test_a_rule_that_cannot_be_batched_fails_if_that_is_asked(self):
        x = torch.linspace(0.1, 1, 5, dtype=torch.float64)
        assert check(self.OverAll.apply, x).verdict is Verdict.PASS
        report = check(self.OverAll.apply, x, transforms=["batched-dout"])
        assert report.faults == (Behaviour.TRANSFORM_RAISES,)

    def test_a_rule_that_can_passes(self):
        assert report_of("WithGeneratedVmap", transforms=["batched-dout", "vmap"]).verdict is Verdict.PASS


def test_sparse_inputs_are_refused_with_the_way_to_pass_them():
    with pytest.raises(SubjectError, match="dense values"):
        check(lambda x: x.to_dense().sin(), torch.eye(3, dtype=torch.float64).to_sparse())


def test_code_in_place_takes_an_input_with_gaps_in_memory():
    def exponential(x):
        return (x * 1.0).exp_()

    assert check(exponential, torch.linspace(0.1, 1, 10, dtype=torch.float64)[::2]).verdict is Verdict.PASS
