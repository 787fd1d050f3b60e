"""Forward mode, single arguments, transformations and higher derivatives of JAX functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, Verdict, check, check_function
from jaxnet.crosscheck.measure.findings import Behaviour

X = np.linspace(0.2, 1.0, 5)
W = np.linspace(1.0, 2.0, 5)


def sine_with(forward, transposed):
    """Returns sin by a custom_jvp whose two modes take factors of the slope."""

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    @sine.defjvp
    def rule(primals, tangents):
        (x,), (v,) = primals, tangents
        slope = jnp.cos(x)
        tangent = jax.custom_derivatives.linear_call(
            lambda c, t: forward * c * t, lambda c, t: transposed * c * t, slope, v
        )
        return jnp.sin(x), tangent

    return sine


def product_with(fwd, bwd, symbolic_zeros=False):
    @jax.custom_vjp
    def product(x, w):
        return jnp.sin(x) * w

    product.defvjp(fwd, bwd, symbolic_zeros=symbolic_zeros)
    return product


def fwd(x, w):
    return jnp.sin(x) * w, (x, w)


def bwd(residuals, g):
    x, w = residuals
    return g * jnp.cos(x) * w, g * jnp.sin(x)


def second(report):
    (derivative,) = report.derivatives
    return derivative


class TestForwardMode:
    def test_both_modes_right_pass(self):
        report = check(sine_with(1, 1), X)
        assert report.verdict is Verdict.PASS
        assert not report.notes

    @pytest.mark.slow
    def test_wrong_in_forward_mode_alone_fails_and_says_so(self):
        report = check(sine_with(1.5, 1), X)
        assert report.verdict is Verdict.FAIL
        assert report.faults == (Behaviour.FORWARD_MODE_WRONG,)
        assert report.leaves[0].verdict is Verdict.PASS

    @pytest.mark.slow
    def test_wrong_in_reverse_mode_alone_says_that_forward_mode_is_right(self):
        report = check(sine_with(1, 1.5), X)
        assert report.leaves[0].verdict is Verdict.FAIL
        assert not report.faults
        assert "only reverse mode is wrong" in report.text(width=None)

    @pytest.mark.slow
    def test_wrong_in_both_modes_is_no_difference_of_modes(self):
        report = check(sine_with(1.5, 1.5), X)
        assert report.leaves[0].verdict is Verdict.FAIL
        assert not report.faults
        assert not report.notes

    @pytest.mark.slow
    def test_modes_that_differ_by_less_than_quotients_resolve_fail(self):
        assert check(sine_with(1, 1 + 1e-11), X).faults == (Behaviour.MODES_DIFFER,)

    @pytest.mark.slow
    def test_differences_due_to_rounding_pass(self):
        assert check(sine_with(1, 1 + 1e-15), X).verdict is Verdict.PASS

    @pytest.mark.slow
    def test_a_custom_vjp_has_no_forward_mode(self):
        assert check(product_with(fwd, bwd), X, W).verdict is Verdict.PASS

    @pytest.mark.slow
    def test_code_with_forward_mode_only_is_checked(self):
        def root(a):
            return jax.lax.while_loop(lambda y: jnp.any(jnp.abs(y * y - a) > 1e-14 * a), lambda y: (y + a / y) / 2, a)

        with pytest.raises(SubjectError, match='mode="forward"'):
            check(root, W)
        assert check_function(root, W, mode="forward", order=2).verdict is Verdict.PASS

    @pytest.mark.slow
    def test_a_wrong_rule_with_forward_mode_only_fails(self):
        @jax.custom_jvp
        def root(a):
            return jax.lax.while_loop(lambda y: jnp.any(jnp.abs(y * y - a) > 1e-14), lambda y: (y + a / y) / 2, a)

        @root.defjvp
        def rule(primals, tangents):
            y = root(*primals)
            halved, _ = jax.lax.while_loop(lambda c: c[1] < 1, lambda c: (c[0] / 2, c[1] + 1), (tangents[0], 0))
            return y, 1.01 * halved / y

        assert check_function(root, W, mode="forward").verdict is Verdict.FAIL


class TestSingleArguments:
    def rule(self, factor):
        def forward(x, w):
            return fwd(x.value, w.value)[0], (x.value, w.value, w.perturbed)

        def backward(residuals, g):
            x, w, w_moves = residuals
            dx, dw = bwd((x, w), g)
            return dx * (1.0 if w_moves else factor), dw

        return product_with(forward, backward, symbolic_zeros=True)

    @pytest.mark.slow
    def test_a_rule_by_symbolic_zeros_that_is_right_passes(self):
        assert check(self.rule(1.0), X, W).verdict is Verdict.PASS

    @pytest.mark.slow
    def test_a_gradient_that_is_wrong_for_one_argument_alone_fails(self):
        report = check(self.rule(2.0), X, W)
        assert report.faults == (Behaviour.PARTIAL_DIFFERS,)
        assert "only x needs a gradient" in report.text(width=None)

    def test_a_rule_that_raises_for_one_argument_alone_fails(self):
        def forward(x, w):
            return fwd(x.value, w.value)[0], (x.value, w.value, w.perturbed)

        def backward(residuals, g):
            x, w, w_moves = residuals
            if not w_moves:
                raise KeyError("w")
            return bwd((x, w), g)

        assert check(product_with(forward, backward, symbolic_zeros=True), X, W).faults == (Behaviour.PARTIAL_RAISES,)


class TestTransforms:
    every = ("jit", "vmap", "checkpoint", "scan")

    @pytest.mark.slow
    def test_right_code_passes_under_all(self):
        assert check(product_with(fwd, bwd), X, W, transforms=self.every).verdict is Verdict.PASS

    def callback(self, batched):
        """Returns sin on the host; `batched` computes it where a batch comes at once."""

        def on_host(x):
            return (np.sin(x) if np.ndim(x) == 1 else batched(np.asarray(x))).astype(x.dtype)

        @jax.custom_vjp
        def sine(x):
            return jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")

        sine.defvjp(lambda x: (sine(x), x), lambda x, g: (g * jnp.cos(x),))
        return sine

    @pytest.mark.slow
    def test_a_batch_that_is_computed_right_passes(self):
        assert check(self.callback(np.sin), X).verdict is Verdict.PASS

    @pytest.mark.slow
    def test_a_batch_that_is_computed_wrong_fails(self):
        report = check(self.callback(lambda x: np.sin(x[::-1])), X)
        assert report.faults == (Behaviour.TRANSFORM_VALUE,)
        assert "under vmap" in report.text(width=None)

    @pytest.mark.slow
    def test_a_gradient_that_is_wrong_in_a_batch_fails(self):
        def slope_on_host(x):
            return (np.cos(x) if np.ndim(x) == 1 else np.cos(x[::-1])).astype(x.dtype)

        def backward(x, g):
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return (g * jax.pure_callback(slope_on_host, shape, x, vmap_method="expand_dims"),)

        @jax.custom_vjp
        def sine(x):
            return jnp.sin(x)

        sine.defvjp(lambda x: (jnp.sin(x), x), backward)
        assert check(sine, X).faults == (Behaviour.TRANSFORM_GRADIENT,)

    @pytest.mark.slow
    def test_another_value_under_jit_fails(self):
        def doubled_when_traced(x):
            return jnp.sin(x) * (2.0 if isinstance(x, jax.core.Tracer) and not hasattr(x, "primal") else 1.0)

        report = check(doubled_when_traced, X)
        assert report.verdict is Verdict.FAIL
        assert Behaviour.TRANSFORM_VALUE in report.faults

    @pytest.mark.slow
    def test_code_that_cannot_be_transformed_passes_unless_it_must(self):
        def branches(x):
            return jnp.sin(x) if x[0] > 0 else jnp.cos(x)

        assert check(branches, X).verdict is Verdict.PASS
        assert check(branches, X, transforms="jit").faults == (Behaviour.TRANSFORM_RAISES,)
        assert check(branches, X, transforms=()).verdict is Verdict.PASS

    def test_an_unknown_transformation_is_refused(self):
        with pytest.raises(SubjectError, match=r"transforms: 'pmap' .* 'jit', 'vmap'"):
            check(jnp.sin, X, transforms=("pmap",))
        with pytest.raises(SubjectError, match="transforms: 'jit'"):
            check((lambda x: (x, None), lambda dout, _: dout), X, transforms=("jit",))


class TestOrder:
    @pytest.mark.slow
    def test_right_second_and_third_derivatives_pass(self):
        report = check(product_with(fwd, bwd), X, W, order=3)
        assert report.verdict is Verdict.PASS
        assert [leaf.name for leaf in second(report).leaves] == ["x", "w", "dout"]
        assert second(second(report)).verdict is Verdict.PASS

    def test_a_gradient_through_stop_gradient_fails_in_second_order_only(self):
        wrong = product_with(fwd, lambda r, g: tuple(map(jax.lax.stop_gradient, bwd(r, g))))
        assert check(wrong, X, W).verdict is Verdict.PASS
        report = check(wrong, X, W, order=2)
        assert report.verdict is Verdict.FAIL
        assert second(report).verdict is Verdict.FAIL
        assert all(leaf.verdict is Verdict.PASS for leaf in report.leaves)

    @pytest.mark.slow
    def test_a_stopped_residual_fails(self):
        wrong = product_with(fwd, lambda r, g: (g * jax.lax.stop_gradient(jnp.cos(r[0])) * r[1], g * jnp.sin(r[0])))
        failing = {leaf.name for leaf in second(check(wrong, X, W, order=2)).leaves if leaf.verdict is Verdict.FAIL}
        assert failing == {"x"}

    @pytest.mark.slow
    def test_a_stopped_dout_fails(self):
        wrong = product_with(fwd, lambda r, g: bwd(r, jax.lax.stop_gradient(g)))
        failing = {leaf.name for leaf in second(check(wrong, X, W, order=2)).leaves if leaf.verdict is Verdict.FAIL}
        assert failing == {"dout"}

    @pytest.mark.slow
    def test_a_rule_of_the_rule_that_is_wrong_fails(self):
        @jax.custom_jvp
        def slope(x):
            return jnp.cos(x)

        slope.defjvp(lambda p, t: (slope(*p), 1.01 * -jnp.sin(p[0]) * t[0]))
        wrong = product_with(fwd, lambda r, g: (g * slope(r[0]) * r[1], g * jnp.sin(r[0])))
        assert second(check(wrong, X, W, order=2)).verdict is Verdict.FAIL

    @pytest.mark.slow
    def test_a_second_derivative_that_is_zero_passes(self):
        assert check(jax.nn.relu, X - 0.5, order=2).verdict is Verdict.PASS

    @pytest.mark.slow
    def test_a_hessian_off_by_less_than_quotients_resolve_is_not_symmetric(self):
        @jax.custom_jvp
        def times(x, w):
            return x * w

        @times.defjvp
        def rule(p, t):
            return times(*p), (1 + 1e-7) * t[0] * p[1] + p[0] * t[1]

        def f(x, w):
            return jnp.sum(x * w * jnp.roll(w, 1))

        def gradient_bwd(r, g):
            x, w = r
            return g * times(w, jnp.roll(w, 1)), g * (x * jnp.roll(w, 1) + jnp.roll(x * w, -1))

        wrong = jax.custom_vjp(f)
        wrong.defvjp(lambda x, w: (f(x, w), (x, w)), gradient_bwd)
        report = second(check(wrong, X, W, order=2, resolution=1e-5))
        assert Behaviour.HESSIAN_NOT_SYMMETRIC in report.faults

    def test_a_gradient_written_in_numpy_has_no_second_derivative(self):
        with pytest.raises(SubjectError, match="order: "):
            check((lambda x: (x**2, x), lambda dout, x: 2 * x * dout), X, order=2)

    @pytest.mark.slow
    def test_json_and_text_hold_the_second_derivative(self):
        report = check(jnp.sin, X, order=2)
        assert report.to_dict()["derivatives"][0]["verdict"] == "PASS"
        assert "PASS  the gradient of sin" in report.text(width=None)
