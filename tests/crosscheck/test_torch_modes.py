"""PyTorch's other ways to differentiate: each that is wrong alone is found, and right ones pass."""

import numpy as np
import pytest
from tensors import T, one_thread, same_weights  # noqa: F401 the fixtures act by being here

from jaxnet.crosscheck import SubjectError, Verdict, check
from jaxnet.crosscheck.measure.findings import Behaviour

torch = pytest.importorskip("torch")
X, W = T(5, 4), T(5, 4, seed=7)


class Product(torch.autograd.Function):
    """sin(x) w, right in every mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return torch.sin(x) * w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        dx = g * x.cos() * w if ctx.needs_input_grad[0] else None
        return dx, g * x.sin() if ctx.needs_input_grad[1] else None

    @staticmethod
    def jvp(ctx, dx, dw):
        x, w = ctx.saved_tensors
        return dx * x.cos() * w + dw * x.sin()


def second(report):
    (derivative,) = report.derivatives
    return derivative


@pytest.mark.slow
def test_a_function_that_is_right_in_every_mode_passes():
    report = check(Product, X, W, order=2, transforms=("vmap", "batched-dout", "checkpoint"))
    assert report.verdict is Verdict.PASS
    assert [leaf.name for leaf in second(report).leaves] == ["x", "w", "dout"]


@pytest.mark.slow
def test_a_wrong_jvp_fails_though_backward_is_right():
    class Wrong(Product):
        @staticmethod
        def jvp(ctx, dx, dw):
            x, w = ctx.saved_tensors
            return dx * x.cos() * w + 2 * dw * x.sin()

    report = check(Wrong, X, W)
    assert report.faults == (Behaviour.FORWARD_MODE_WRONG,)
    assert "direction of w" in report.text(width=None)
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.PASS}


def test_a_jvp_that_raises_fails():
    class Wrong(Product):
        @staticmethod
        def jvp(ctx, dx, dw):
            raise KeyError("x")

    assert check(Wrong, X, W).faults == (Behaviour.FORWARD_MODE_RAISES,)


@pytest.mark.slow
def test_a_right_jvp_shows_that_only_backward_is_wrong():
    class Wrong(Product):
        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return 2 * g * x.cos() * w, g * x.sin()

    assert "only reverse mode is wrong" in check(Wrong, X, W).text(width=None)


def test_a_gradient_that_is_wrong_where_one_input_needs_one_fails():
    class Wrong(Product):
        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g * x.cos() * (w if ctx.needs_input_grad[1] else 1), g * x.sin()

    report = check(Wrong, X, W)
    assert report.faults == (Behaviour.PARTIAL_DIFFERS,)
    assert "only x needs a gradient" in report.text(width=None)


def test_a_backward_that_reads_the_wrong_flag_fails():
    class Wrong(Product):
        @staticmethod
        def backward(ctx, g):
            dx, dw = Product.backward(ctx, g)
            return (dx if ctx.needs_input_grad[1] else None), dw

    assert check(Wrong, X, W).faults == (Behaviour.PARTIAL_DIFFERS,)


@pytest.mark.slow
def test_a_detached_factor_fails_in_second_order_alone():
    class Wrong(Product):
        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g * x.detach().cos() * w, g * x.sin()

    assert check(Wrong, X, W).verdict is Verdict.PASS
    report = second(check(Wrong, X, W, order=2))
    assert [leaf.verdict for leaf in report.leaves] == ["FAIL", "PASS", "PASS"]


@pytest.mark.slow
def test_a_backward_without_a_graph_fails_in_second_order():
    class Wrong(Product):
        @staticmethod
        def backward(ctx, g):
            with torch.no_grad():
                return Product.backward(ctx, g)

    assert check(Wrong, X, W, order=2).verdict is Verdict.FAIL


@pytest.mark.slow
def test_a_backward_for_one_order_alone_is_refused_for_two():
    class Once(Product):
        backward = staticmethod(torch.autograd.function.once_differentiable(Product.backward))

    assert check(Once, X, W).verdict is Verdict.PASS
    with pytest.raises(SubjectError, match="once_differentiable"):
        check(Once, X, W, order=2)


def test_a_batching_rule_that_mixes_samples_fails():
    class Wrong(Product):
        generate_vmap_rule = False

        @staticmethod
        def vmap(info, in_dims, x, w):
            return Wrong.apply(x.flip(0), w), 0

    report = check(Wrong, X, W)
    assert report.faults == (Behaviour.TRANSFORM_VALUE,)
    assert "under vmap" in report.text(width=None)


@pytest.mark.slow
def test_a_function_without_a_batching_rule_passes_unless_it_must_have_one():
    class Plain(Product):
        generate_vmap_rule = False

    assert check(Plain, X, W).verdict is Verdict.PASS
    assert check(Plain, X, W, transforms="vmap").faults == (Behaviour.TRANSFORM_RAISES,)


@pytest.mark.slow
def test_a_backward_that_cannot_take_a_batch_of_douts_fails_where_it_must():
    class Wrong(Product):
        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return torch.from_numpy(g.detach().numpy() * np.cos(x.numpy()) * w.numpy()), g * x.sin()

    assert check(Wrong, X, W).verdict is Verdict.PASS
    assert check(Wrong, X, W, transforms="batched-dout").faults == (Behaviour.TRANSFORM_RAISES,)


@pytest.mark.slow
def test_the_parameters_of_a_module_move_in_every_mode():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).double()
    report = check(net, X, order=2, transforms=("vmap", "batched-dout", "checkpoint"))
    assert report.verdict is Verdict.PASS
    assert len(report.leaves) == 3


@pytest.mark.slow
def test_a_compiled_function_is_compared_with_the_eager_one():
    assert check(Product, X, W, transforms="compile").verdict is Verdict.PASS

    def other_when_compiled(x):
        return torch.sin(x) * (2.0 if torch.compiler.is_compiling() else 1.0)

    assert check(other_when_compiled, X, transforms="compile").faults == (Behaviour.TRANSFORM_VALUE,)


def test_a_layer_written_by_hand_has_none_of_these():
    class Layer:
        def forward(self, x):
            self.x = x
            return x**2

        def backward(self, dout):
            return 2 * self.x * dout

    with pytest.raises(SubjectError, match="transforms: 'vmap'"):
        check(Layer(), np.ones((2, 3)), transforms="vmap")
