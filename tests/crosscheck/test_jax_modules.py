"""Arguments and modules of the JAX world: static arguments, keys, shards, donated arrays, Equinox, Flax, any pytree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import exhaustive

from jaxnet.crosscheck import Verdict, check

X = np.linspace(0.2, 1.0, 6).reshape(2, 3)
KEY = jax.random.key(0)


def power_with(factor):
    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def power(x, n):
        return x**n

    power.defvjp(lambda x, n: (x**n, x), lambda n, x, g: (factor * g * n * x ** (n - 1),))
    return power


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def apply(f, x):
    return f(x)


apply.defvjp(lambda f, x: (f(x), x), lambda f, x, g: (g * jnp.cos(x),))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Params:
    W: jax.Array
    b: jax.Array


@pytest.mark.slow
def test_static_arguments_pass_through():
    assert check(power_with(1.0), X, 3).verdict is Verdict.PASS
    assert check(power_with(1.01), X, 3).verdict is Verdict.FAIL
    assert check(apply, jnp.sin, X).verdict is Verdict.PASS
    assert check(apply, jnp.exp, X).verdict is Verdict.FAIL


@pytest.mark.slow
def test_keyword_arguments_with_defaults_keep_them():
    assert check(lambda x, *, scale=2.0: jnp.sin(x) * scale, X).verdict is Verdict.PASS


@pytest.mark.slow
@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_random_keys_have_no_gradient(key):
    report = check(lambda x, k: x * jax.random.normal(k, x.shape), X, key)
    assert report.verdict is Verdict.PASS
    assert [leaf.name for leaf in report.leaves] == ["x"]


@pytest.mark.slow
def test_sharded_arrays_are_taken():
    mesh = jax.make_mesh((1,), ("batch",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    assert check(lambda x: jnp.sin(x) @ x.T, jax.device_put(X, sharding)).verdict is Verdict.PASS


@pytest.mark.slow
def test_donated_arrays_are_copied_first():
    x = jnp.asarray(X)
    assert check(jax.jit(jnp.sin, donate_argnums=0), x).verdict is Verdict.PASS
    assert not x.is_deleted()


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_any_pytree_comes_in_and_goes_out(order):
    def f(p, t):
        a, b = t
        return {"y": a["a"] @ p.W + p.b, "more": [Params(p.W**2, jnp.sin(b)), None, jnp.argmax(b)]}

    report = check(f, Params(jnp.full((3, 2), 0.3), jnp.ones(2)), ({"a": X}, X + 1), order=order)
    assert report.verdict is Verdict.PASS
    assert [leaf.name for leaf in report.leaves] == ["p.W", "p.b", "t.0.a", "t.1"]


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, exhaustive(2)])
def test_equinox_modules_bring_their_parameters(order):
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    report = check(net, jnp.asarray(X[0]), order=order)
    assert report.verdict is Verdict.PASS
    assert len(report.leaves) == 5


@pytest.mark.slow
def test_equinox_modules_are_mapped_over_a_batch():
    eqx = pytest.importorskip("equinox")
    assert check(jax.vmap(eqx.nn.MLP(3, 2, 4, 1, key=KEY)), jnp.asarray(X)).verdict is Verdict.PASS


@pytest.mark.slow
def test_a_rule_of_equinox_is_checked():
    eqx = pytest.importorskip("equinox")

    @eqx.filter_custom_vjp
    def sine(x, factor):
        return jnp.sin(x)

    sine.def_fwd(lambda perturbed, x, factor: (jnp.sin(x), x))
    sine.def_bwd(lambda x, g, perturbed, _, factor: factor * g * jnp.cos(x))
    assert check(lambda x: sine(x, 1), jnp.asarray(X)).verdict is Verdict.PASS
    assert check(lambda x: sine(x, 2), jnp.asarray(X)).verdict is Verdict.FAIL


@pytest.mark.slow
def test_flax_modules_with_state_bring_their_parameters():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.norm(jnp.tanh(self.first(x))))

    net = Net(nnx.Rngs(0))
    mean = np.asarray(net.norm.mean[...])
    report = check(net, jax.random.normal(KEY, (8, 3)))
    assert report.verdict is Verdict.PASS
    names = [leaf.name for leaf in report.leaves]
    assert names == [*(f"params.{n}" for n in ("first.bias", "first.kernel", "norm.bias", "norm.scale")), "x"]
    np.testing.assert_array_equal(net.norm.mean[...], mean)  # the user's module is as before


@pytest.mark.slow
def test_bound_flax_linen_modules_are_taken():
    nn = pytest.importorskip("flax.linen")
    dense = nn.Dense(2)
    params = dense.init(KEY, X)
    assert check(dense.apply, params, jnp.asarray(X)).verdict is Verdict.PASS
    assert check(dense.bind(params), jnp.asarray(X)).verdict is Verdict.PASS


@pytest.mark.slow
def test_python_numbers_of_equinox_modules_are_settings():
    """`eqx.filter_grad` differentiates arrays alone, and `jax.grad` the floats of any other pytree."""
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        W: jax.Array
        dropout: eqx.nn.Dropout
        powers: list[float]

        def __call__(self, x, key):
            return self.dropout(x @ self.W, key=key) ** self.powers[0]

    net = Net(jnp.ones((3, 2)), eqx.nn.Dropout(0.5), [2.0])
    report = check(lambda net, x: net(x, KEY), net, jnp.asarray(X))
    assert report.verdict is Verdict.PASS, str(report)
    assert [leaf.name for leaf in report.leaves] == ["net.W", "x"]
    mixed = check(lambda parts, x: parts["net"](x, KEY) * parts["factor"], {"net": net, "factor": 3.0}, jnp.asarray(X))
    assert mixed.verdict is Verdict.PASS
    assert [leaf.name for leaf in mixed.leaves] == ["parts.net.W", "parts.factor", "x"]
