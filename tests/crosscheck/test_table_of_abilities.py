"""Holds the table of docs/crosscheck.md: each cell is a fault of that kind in that framework, which a check finds."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import sampled

from jaxnet.crosscheck import Verdict, check, check_layer
from jaxnet.crosscheck.measure.findings import Behaviour

TABLE = Path(__file__).parents[2] / "docs" / "crosscheck.md"
ASPECTS = ("value", "reverse", "forward", "second order", "batch", "dtype", "strides", "state")
X = np.random.default_rng(5).standard_normal((5, 4))
W = np.random.default_rng(6).standard_normal((5, 4))


def torch_x(*arrays):
    torch = pytest.importorskip("torch")
    return tuple(torch.from_numpy(array.copy()) for array in arrays)


# -- NumPy


class Sine:
    def forward(self, x):
        self.x = x
        return np.sin(x)

    def backward(self, dout):
        return dout * np.cos(self.x)


def numpy_value():
    return check_layer(Sine(), X, reference=lambda x: jnp.sin(x) * (1 + 1e-9))


def numpy_reverse():
    class Wrong(Sine):
        def backward(self, dout):
            return -dout * np.cos(self.x)

    return check(Wrong(), X)


def numpy_batch():
    class Wrong(Sine):
        def backward(self, dout):
            return dout * np.cos(self.x) * (1.0 if len(self.x) > 1 else 2.0)

    return check(Wrong(), shapes=[(5, 4), (1, 4)])


def numpy_dtype():
    class Wrong(Sine):
        def backward(self, dout):
            return dout * np.cos(self.x) * (1.01 if dout.dtype == np.float32 else 1)

    return check(Wrong(), X.astype(np.float32))


def numpy_strides():
    class Wrong(Sine):
        def backward(self, dout):
            memory = np.lib.stride_tricks.as_strided(dout, dout.shape, np.empty(dout.shape).strides)
            return memory * np.cos(self.x)

    return check(Wrong(), X)


def numpy_state():
    class Wrong(Sine):
        def forward(self, x):
            self.x = getattr(self, "x", x)
            return np.sin(x)

    return check(Wrong(), X)


# -- JAX


def with_rule(fwd, bwd):
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(fwd, bwd)
    return sine


def right_fwd(x):
    return jnp.sin(x), x


def right_bwd(x, g):
    return (g * jnp.cos(x),)


def jax_value():
    return check(with_rule(lambda x: (2 * jnp.sin(x), x), right_bwd), X)


def jax_reverse():
    return check(with_rule(right_fwd, lambda x, g: (-g * jnp.cos(x),)), X)


def jax_forward():
    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    @sine.defjvp
    def rule(primals, tangents):
        (x,), (v,) = primals, tangents
        map_of = jax.custom_derivatives.linear_call
        return jnp.sin(x), map_of(lambda c, t: 2 * c * t, lambda c, t: c * t, jnp.cos(x), v)

    return check(sine, X)


def jax_second_order():
    return check(with_rule(right_fwd, lambda x, g: (g * jax.lax.stop_gradient(jnp.cos(x)),)), X, order=2)


def jax_batch():
    def on_host(x):
        return (np.cos(x) if x.ndim == 2 else np.cos(x[::-1])).astype(x.dtype)

    def bwd(x, g):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return (g * jax.pure_callback(on_host, shape, x, vmap_method="expand_dims"),)

    return check(with_rule(right_fwd, bwd), X)


def jax_dtype():
    wrong = with_rule(right_fwd, lambda x, g: (g * jnp.cos(x) * (1.01 if x.dtype == jnp.float32 else 1.0),))
    return check(wrong, X.astype(np.float32))


# -- PyTorch


def sine_function(**passes):
    torch = pytest.importorskip("torch")

    class Right(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return torch.sin(x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return g * torch.cos(ctx.saved_tensors[0])

        @staticmethod
        def jvp(ctx, v):
            return v * torch.cos(ctx.saved_tensors[0])

    return type("Wrong", (Right,), {name: staticmethod(f) for name, f in passes.items()})


def torch_value():
    wrong = sine_function(vmap=lambda info, dims, x: (x.flip(0).sin(), 0))
    wrong.generate_vmap_rule = False
    return check(wrong, *torch_x(X))


def torch_reverse():
    return check(sine_function(backward=lambda ctx, g: -g * ctx.saved_tensors[0].cos()), *torch_x(X))


def torch_forward():
    return check(sine_function(jvp=lambda ctx, v: 2 * v * ctx.saved_tensors[0].cos()), *torch_x(X))


def torch_second_order():
    wrong = sine_function(backward=lambda ctx, g: g * ctx.saved_tensors[0].detach().cos())
    return check(wrong, *torch_x(X), order=2)


def torch_batch():
    wrong = sine_function()

    def vmap(info, dims, x):
        return SineOfBatch.apply(x), 0

    class SineOfBatch(sine_function(backward=lambda ctx, g: 2 * g * ctx.saved_tensors[0].cos())):
        pass

    wrong.generate_vmap_rule, wrong.vmap = False, staticmethod(vmap)
    return check(wrong, *torch_x(X))


def torch_dtype():
    wrong = sine_function(
        backward=lambda ctx, g: g * ctx.saved_tensors[0].cos() * (1 if g.dtype.itemsize > 4 else 1.01)
    )
    return check(wrong, *torch_x(X.astype(np.float32)))


def torch_strides():
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.as_strided(x.shape, x.stride()) * x.cos()

    return check(sine_function(backward=backward), *torch_x(X))


def torch_state():
    kept = []

    def backward(ctx, g):
        kept.append(ctx.saved_tensors[0])
        return g * kept[0].cos()

    return check(sine_function(backward=backward), *torch_x(X))


# -- layers of tensors with a backward of their own


def tensor_layer(backward):
    class Layer:
        def forward(self, x):
            self.x = x
            return x.sin()

    Layer.backward = backward
    return Layer()


def tensors_reverse():
    return check(tensor_layer(lambda self, g: -g * self.x.cos()), *torch_x(X))


def tensors_dtype():
    wrong = tensor_layer(lambda self, g: g * self.x.cos() * (1 if g.dtype.itemsize > 4 else 1.01))
    return check(wrong, *torch_x(X.astype(np.float32)))


def tensors_strides():
    return check(tensor_layer(lambda self, g: g.as_strided(g.shape, (4, 1)) * self.x.cos()), *torch_x(X))


def tensors_state():
    def backward(self, g):
        self.first = getattr(self, "first", self.x)
        return g * self.first.cos()

    return check(tensor_layer(backward), *torch_x(X))


CELLS = {
    "NumPy": {
        "value": numpy_value,
        "reverse": numpy_reverse,
        "batch": numpy_batch,
        "dtype": numpy_dtype,
        "strides": numpy_strides,
        "state": numpy_state,
    },
    "JAX": {
        "value": jax_value,
        "reverse": jax_reverse,
        "forward": jax_forward,
        "second order": jax_second_order,
        "batch": jax_batch,
        "dtype": jax_dtype,
    },
    "PyTorch": {
        "value": torch_value,
        "reverse": torch_reverse,
        "forward": torch_forward,
        "second order": torch_second_order,
        "batch": torch_batch,
        "dtype": torch_dtype,
        "strides": torch_strides,
        "state": torch_state,
    },
    "layers of tensors": {
        "reverse": tensors_reverse,
        "dtype": tensors_dtype,
        "strides": tensors_strides,
        "state": tensors_state,
    },
}


@pytest.mark.parametrize(
    ("framework", "aspect"), sampled([(f, aspect) for f, cells in CELLS.items() for aspect in cells], 5)
)
def test_a_fault_of_this_kind_fails(framework, aspect):
    report = CELLS[framework][aspect]()
    assert report.verdict is Verdict.FAIL
    if aspect == "strides":
        assert report.faults
        assert not any(leaf.verdict is Verdict.FAIL for leaf in report.leaves)
    if aspect == "forward":
        assert report.faults == (Behaviour.FORWARD_MODE_WRONG,)


@pytest.mark.slow
def test_right_code_passes_in_each_framework():
    torch = pytest.importorskip("torch")
    every = [
        check(Sine(), X),
        check(with_rule(right_fwd, right_bwd), X, order=2),
        check(sine_function(), *torch_x(X), order=2),
        check(tensor_layer(lambda self, g: g * torch.cos(self.x)), *torch_x(X)),
    ]
    assert [report.verdict for report in every] == ["PASS"] * 4


def test_the_table_in_the_documentation_equals_the_cells():
    rows = re.findall(r"^\| (.*?) ?\|(.*)\|$", TABLE.read_text().partition("<!-- abilities -->")[2], flags=re.M)
    header, *body = [row for row in rows if "---" not in row[1]]
    assert tuple(cell.strip() for cell in header[1].split("|")) == ASPECTS
    written = {name: [bool(cell.strip()) for cell in cells.split("|")] for name, cells in body[: len(CELLS)]}
    assert written == {name: [aspect in cells for aspect in ASPECTS] for name, cells in CELLS.items()}
