"""Checks gradients of complex numbers in NumPy and JAX: right ones pass, planted faults fail and are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from complex_arrays import JAX, PYTORCH, W, X, Z, draw, slips, verdicts
from conftest import mostly_slow, sampled

from jaxnet.crosscheck import Verdict, check_function, check_layer
from jaxnet.crosscheck.explain.slips import Slip
from jaxnet.crosscheck.inspect.arguments import as_complex
from jaxnet.crosscheck.inspect.outputs import Outputs

# -- NumPy: the gradient of a function


def of_rfft(x, dout):
    """Returns the gradient of np.fft.rfft: Re of the sum over k of dout[k] exp(2 pi i jk / n), by its definition."""
    n, k = len(x), np.arange(len(dout))
    return (np.exp(2j * np.pi * np.outer(np.arange(n), k) / n) @ dout).real


RIGHT = {
    "holomorphic, PyTorch's": (lambda z: z * z, (Z,), lambda z, dout: dout * (2 * z).conj(), PYTORCH),
    "holomorphic, JAX's": (lambda z: z * z, (Z,), lambda z, dout: dout * 2 * z, JAX),
    "not holomorphic, PyTorch's": (lambda z: z * z.conj(), (Z,), lambda z, dout: 2 * dout.real * z, PYTORCH),
    "not holomorphic, JAX's": (lambda z: z * z.conj(), (Z,), lambda z, dout: 2 * dout.real * z.conj(), JAX),
    "conj": (np.conj, (Z,), lambda z, dout: dout.conj(), PYTORCH),
    "abs, PyTorch's": (np.abs, (Z,), lambda z, dout: dout * z / np.abs(z), PYTORCH),
    "abs, JAX's": (np.abs, (Z,), lambda z, dout: dout * z.conj() / np.abs(z), JAX),
    "angle": (np.angle, (Z,), lambda z, dout: dout * 1j * z / np.abs(z) ** 2, PYTORCH),
    "real part": (np.real, (Z,), lambda z, dout: dout + 0j, PYTORCH),
    "real to complex, PyTorch's": (
        lambda x: np.exp(1j * x), (X,), lambda x, dout: (dout * (1j * np.exp(1j * x)).conj()).real, PYTORCH,
    ),
    "real to complex, JAX's": (lambda x: np.exp(1j * x), (X,), lambda x, g: (g * 1j * np.exp(1j * x)).real, JAX),
    "rfft": (np.fft.rfft, (X,), of_rfft, PYTORCH),
    "a real loss": (lambda z: (np.abs(z) ** 2).sum(), (Z,), lambda z: 2 * z, PYTORCH),
    "complex64": (lambda z: (np.abs(z) ** 2).sum(), (Z.astype(np.complex64),), lambda z: 2 * z, PYTORCH),
    "without dout": (np.exp, (Z,), np.exp, JAX),
    "two arguments": (
        lambda z, w: z @ w, (Z, W), lambda z, w, dout: (dout @ w.conj().T, z.conj().T @ dout), PYTORCH,
    ),
    "two outputs": (
        lambda z: (z * z, np.abs(z)), (Z,), lambda z, d1, d2: d1 * 2 * z.conj() + d2 * z / np.abs(z), PYTORCH,
    ),
    "a number": (lambda z: z**3, (0.3 + 0.4j,), lambda z, dout: dout * (3 * z**2).conj(), PYTORCH),
    "a real gradient where it is real": (lambda z: (z.real**2).sum(), (Z,), lambda z: 2 * z.real, PYTORCH),
    "a zero gradient": (lambda z: (z.real**2).sum() + 0 * z.imag.sum(), (Z,), lambda z: 2 * z.real + 0j, PYTORCH),
}  # fmt: skip


@pytest.mark.parametrize("name", sampled(RIGHT, 3))
def test_right_gradients_in_numpy_pass_and_the_convention_is_named(name):
    f, args, gradient, convention = RIGHT[name]
    report = check_function(f, *args, gradient=gradient)
    report.raise_if_failed()
    assert report.verdict is Verdict.PASS
    assert sum(note.startswith(convention) for note in report.notes) == 1


WRONG = {
    "half, as a Wirtinger derivative": (np.abs, lambda z, dout: dout * z / np.abs(z) / 2, ["z.real", "z.imag"]),
    "the real part only": (np.abs, lambda z, dout: (dout * z / np.abs(z)).real + 0j, ["z.imag"]),
    "a real dtype": (np.abs, lambda z, dout: (dout * z / np.abs(z)).real, ["z.imag"]),
    "conj of dout": (lambda z: z * z, lambda z, dout: dout.conj() * 2 * z.conj(), ["z.imag"]),  # JAX's, with conj
    "conj of the result": (lambda z: z * z.conj(), lambda z, dout: 2 * dout.imag * z, ["z.real", "z.imag"]),
}


@pytest.mark.parametrize("name", mostly_slow(WRONG, 3))
def test_gradients_that_follow_neither_convention_fail(name):
    f, gradient, wrong = WRONG[name]
    report = check_function(lambda z: f(z), Z, gradient=gradient)
    assert [n for n, verdict in verdicts(report).items() if verdict == "FAIL"] == wrong
    assert any("they are wrong by" in note for note in report.notes)


@pytest.mark.slow
def test_half_a_gradient_is_named_a_wirtinger_derivative():
    report = check_function(np.abs, Z, gradient=lambda z, dout: dout * z / np.abs(z) / 2)
    assert all("a Wirtinger derivative, dL/dz or dL/dz*, is half" in leaf.diagnosis for leaf in report.leaves)


@pytest.mark.slow
def test_factors_are_read_by_the_convention_that_explains_them():
    report = check_function(lambda z: z * z, Z, gradient=lambda z, dout: 3 * dout * 2 * z)
    assert slips(report) == {"z.real": Slip.FACTOR, "z.imag": Slip.FACTOR}
    assert any("are read by JAX's convention" in note for note in report.notes)


def test_a_complex_gradient_of_a_real_argument_has_the_wrong_form():
    report = check_function(lambda x: np.exp(1j * x), X, gradient=lambda x, dout: dout * (1j * np.exp(1j * x)).conj())
    (leaf,) = report.leaves
    assert leaf.verdict is Verdict.FAIL
    assert "complex128, expected float64" in leaf.detail


@pytest.mark.slow
def test_arguments_that_follow_different_conventions_fail():
    def mixed(z, w, dout):
        return dout @ w.T, z.conj().T @ dout

    report = check_function(lambda z, w: z @ w, Z, W, gradient=mixed)
    assert slips(report) == {"z.real": Slip.CONJUGATE, "z.imag": Slip.CONJUGATE}


@pytest.mark.slow
def test_a_kink_of_abs_at_zero_is_no_fault():
    def subgradient(z, dout):
        return dout * z / np.where(z == 0, 1, np.abs(z))

    assert check_function(np.abs, np.zeros(3, complex), gradient=subgradient).verdict is Verdict.PASS


@pytest.mark.slow
def test_a_gradient_outside_of_the_slopes_at_a_kink_fails():
    report = check_function(np.abs, np.zeros(3, complex), gradient=lambda z, dout: dout * (2 + 2j) + 0 * z)
    assert report.verdict is not Verdict.PASS


def test_leaves_of_a_dict_named_like_parts_are_no_complex_number():
    p = {"real": X, "imag": X + 1}
    report = check_function(
        lambda p: p["real"] * p["imag"],
        p,
        gradient=lambda p, dout: {"real": dout * p["imag"], "imag": -dout * p["real"]},
    )
    assert slips(report) == {"p.imag": Slip.SIGN}
    assert not any("convention" in note for note in report.notes)


# -- NumPy: layers and pairs


class Linear:
    def __init__(self):
        self.W, self.b = W.copy(), draw(2, seed=3)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.conj().T @ dout, dout.sum(0)
        return dout @ self.W.conj().T


class InJax(Linear):
    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(0)
        return dout @ self.W.T


class WithoutConj(Linear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.x.T @ dout
        return dx


class RealWeights(Linear):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.dW.real
        return dx


class Adding(Linear):
    dW = 0

    def backward(self, dout):
        self.dW, self.db = self.dW + self.x.conj().T @ dout, dout.sum(0)
        return dout @ self.W.conj().T


class WritesToDout(Linear):
    def backward(self, dout):
        dx = super().backward(dout)
        dout *= 2
        return dx


@pytest.mark.parametrize(("layer", "convention"), [(Linear, PYTORCH), (InJax, JAX), (Adding, PYTORCH)])
def test_right_layers_with_complex_parameters_pass(layer, convention):
    report = check_layer(layer(), Z)
    assert report.verdict is Verdict.PASS
    assert verdicts(report).keys() == {"W.real", "W.imag", "b.real", "b.imag", "x.real", "x.imag"}
    assert any(note.startswith(convention) for note in report.notes)


@pytest.mark.slow
def test_wrong_layers_with_complex_parameters_fail():
    assert slips(check_layer(WithoutConj(), Z)) == {"W.real": Slip.CONJUGATE, "W.imag": Slip.CONJUGATE}
    assert slips(check_layer(RealWeights(), Z)) == {"W.imag": Slip.ZERO}


def test_a_layer_that_writes_to_a_complex_dout_is_found():
    report = check_layer(WritesToDout(), Z)
    assert any("dout" in sentence for sentence in report.behaviour + report.warnings)


@pytest.mark.slow
def test_pairs_of_functions_with_complex_numbers():
    pair = lambda z: (z**3, z), lambda dout, z: dout * (3 * z**2).conj()
    assert check_layer(pair, Z).verdict is Verdict.PASS
    assert check_layer((pair[0], lambda dout, z: dout * (2 * z**2).conj()), Z).verdict is Verdict.FAIL


@pytest.mark.slow
def test_a_reference_in_jax_takes_complex_arguments():
    report = check_function(
        lambda z: z * z, Z, gradient=lambda z, dout: dout * (2 * z).conj(), reference=lambda z: z * z
    )
    assert report.verdict is Verdict.PASS
    other = check_function(
        lambda z: z * z, Z, gradient=lambda z, dout: dout * (2 * z).conj(), reference=lambda z: z * z.conj()
    )
    assert other.verdict is Verdict.FAIL


@pytest.mark.slow
def test_a_gradient_by_jax_follows_its_own_convention():
    def loss(z):
        return (jnp.abs(z) ** 2 * z.real + z.imag).sum()

    report = check_function(
        lambda z: (np.abs(z) ** 2 * z.real + z.imag).sum(), Z, gradient=lambda z: np.asarray(jax.grad(loss)(z))
    )
    assert report.verdict is Verdict.PASS
    assert any(note.startswith(JAX) for note in report.notes)


# -- JAX


def with_rule(f, backward):
    ruled = jax.custom_vjp(f)
    ruled.defvjp(lambda z: (f(z), z), lambda z, g: (backward(z, g),))
    return ruled


def rotation(x):
    return jnp.exp(1j * x)


IN_JAX = {
    "square": (lambda z: z * z, Z, lambda z, g: 2 * z * g, lambda z, g: 2 * z.conj() * g, ["z.real", "z.imag"]),
    "abs": (jnp.abs, Z, lambda z, g: g * z.conj() / jnp.abs(z), lambda z, g: g * z / jnp.abs(z), ["z.imag"]),
    "rotation": (rotation, X, lambda x, g: (g * 1j * rotation(x)).real,
                 lambda x, g: (g * (1j * rotation(x)).conj()).real, ["z"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(IN_JAX, every=3))
def test_a_conjugate_in_a_rule_of_jax_is_named(name):
    f, at, right, wrong, leaves = IN_JAX[name]
    assert check_function(with_rule(lambda z: f(z), right), at).verdict is Verdict.PASS
    report = check_function(with_rule(lambda z: f(z), wrong), at)
    assert slips(report) == dict.fromkeys(leaves, Slip.CONJUGATE)
    (sentence,) = {leaf.diagnosis for leaf in report.leaves if leaf.diagnosis}
    assert "JAX's convention, dL/dx - i dL/dy" in sentence
    assert ("dout * f'(x)" if name == "rotation" else "dout * f'(z), without a conjugate") in sentence


# -- packing


def test_complex_outputs_are_packed_along_a_last_axis_and_unpacked_by_either_convention():
    outputs = Outputs()
    packed = outputs.pack((Z, X))
    np.testing.assert_array_equal(packed[:4], [Z[0, 0].real, Z[0, 0].imag, Z[0, 1].real, Z[0, 1].imag])
    assert outputs.imaginary().sum() == Z.size
    np.testing.assert_array_equal(outputs.unpack(packed)[0], Z)
    outputs.conjugated = True
    np.testing.assert_array_equal(outputs.unpack(packed)[0], Z.conj())


def test_an_infinite_part_stays_infinite():
    joined = as_complex(np.array([1.0]), np.array([np.inf]))
    assert (joined.real, joined.imag) == (1, np.inf)
