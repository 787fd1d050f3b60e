"""Tests the inspection of functions: their calls, the arrays that they capture, and the gradients that they return."""

import collections
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import sampled

from jaxnet.crosscheck import SubjectError, Verdict, check_function
from jaxnet.crosscheck.inspect.closures import CapturedArrays
from jaxnet.crosscheck.inspect.compiled import Compiled
from jaxnet.crosscheck.inspect.function import CheckableFunction
from jaxnet.crosscheck.inspect.global_state import preserve_global_state
from jaxnet.crosscheck.inspect.jax_function import CheckableJax
from jaxnet.crosscheck.inspect.outputs import Outputs
from jaxnet.crosscheck.inspect.signatures import Place, from_above, input_names
from jaxnet.crosscheck.inspect.trees import leaves_of, map_leaves, with_leaves


def draw(*shape, seed=11):
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def with_rule(primal, fwd, bwd):
    f = jax.custom_vjp(primal)
    f.defvjp(fwd, bwd)
    return f


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass(frozen=True)
class State:
    c: object
    h: object
    label: str = "s"


# -- structures


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (1.0, ["p"]),
        ({"W": 1.0, "b": None}, ["p.W", "p.b"]),
        ([1.0, (2.0, 3.0)], ["p.0", "p.1.0", "p.1.1"]),
        (Pair(1.0, {"x": 2.0}), ["p.left", "p.right.x"]),
        (State(1.0, [2.0]), ["p.c", "p.h.0", "p.label"]),
        (collections.OrderedDict(b=1.0, a=2.0), ["p.b", "p.a"]),
        (jax.tree_util.Partial(abs, 1.0), ["p.0.0"]),
    ],
)
def test_leaves_of_a_structure_are_named_and_replaced(tree, names):
    leaves = list(leaves_of(tree, "p"))
    assert [name for name, _ in leaves] == names
    again = with_leaves(tree, [leaf for _, leaf in leaves])
    assert type(again) is type(tree)
    assert list(leaves_of(again, "p")) == leaves
    assert [leaf for _, leaf in leaves_of(map_leaves(lambda leaf: 7, tree))] == [7] * len(names)


@pytest.mark.parametrize(
    "result",
    [
        (draw(2), {"a": draw(3), "n": 4, "none": None}),
        {"y": [draw(2, 2), (draw(1),)]},
        State(draw(2), draw(3)),
        Pair(draw(2), draw()),
    ],
)
def test_outputs_are_packed_into_one_array_and_dout_gets_their_structure(result):
    outputs = Outputs()
    packed = outputs.pack(result)
    floats = [leaf for _, leaf in leaves_of(result) if isinstance(leaf, np.ndarray | np.floating)]
    np.testing.assert_array_equal(packed, np.concatenate([np.ravel(leaf) for leaf in floats]))
    whole = outputs.regrouped(outputs.unpack(packed))
    assert type(whole) is type(result)
    for (name, mine), (_, theirs) in zip(leaves_of(whole), leaves_of(result), strict=True):
        if mine is None:
            assert not isinstance(theirs, np.ndarray), name
        else:
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("result", "kind"), [(2.0, np.float64), (np.float64(2), np.float64), (np.array(2.0), np.ndarray)]
)
def test_dout_of_a_scalar_has_the_type_of_the_output(result, kind):
    outputs = Outputs()
    (dout,) = outputs.unpack(np.ones_like(outputs.pack(result)))
    assert type(dout) is kind


def test_dout_of_an_output_in_half_precision_has_its_dtype():
    outputs = Outputs()
    packed = outputs.pack((np.ones(2, np.float32), np.ones(3, jnp.bfloat16)))
    assert [part.dtype for part in outputs.unpack(packed)] == [np.float32, jnp.bfloat16]
    assert [part.dtype for part in outputs.unpack(packed.astype(np.float64))] == [np.float64, np.float64]


@pytest.mark.parametrize(("result", "message"), [(None, "None"), ("text", "str"), ((1, "a"), "tuple")])
def test_outputs_without_floats_are_rejected(result, message):
    with pytest.raises(SubjectError, match=message):
        Outputs().pack(result)


# -- signatures


def test_input_names_are_distinct():
    assert input_names(lambda x, *rest: x, 3) == ["x", "rest[0]", "rest[1]"]
    assert input_names(lambda x1, *args: x1, 2) == ["x1", "x1#2"]
    assert input_names(np.multiply, 2) == ["x0", "x1"]


SIGNATURES = {  # of f(x, w, lam=0.1)
    "no more than f's": (lambda x, w: 0, Place.NOWHERE, 0),
    "an option that f has": (lambda x, w, lam=0.1: 0, Place.NOWHERE, 0),
    "an option of its own": (lambda x, w, scale=3.0: 0, Place.NOWHERE, 0),
    "gravity": (lambda x, w, g=9.81: 0, Place.NOWHERE, 0),
    "one more": (lambda x, w, anything: 0, Place.POSITION, 2),
    "one more first": (lambda above, x, w: 0, Place.POSITION, 0),
    "first by its name": (lambda dout, a, b: 0, Place.POSITION, 0),
    "in the middle": (lambda x, ct, w: 0, Place.POSITION, 1),
    "optional by its name": (lambda x, w, dout=None: 0, Place.POSITION, 2),
    "optional, 1": (lambda x, w, g=1.0: 0, Place.POSITION, 2),
    "a required keyword": (lambda x, w, *, anything: 0, Place.KEYWORD, 0),
    "an optional keyword": (lambda x, w, *, upstream=None: 0, Place.KEYWORD, 0),
    "an optional keyword of its own": (lambda x, w, *, scale=2.0: 0, Place.NOWHERE, 0),
    "any number": (lambda *args: 0, Place.POSITION, 2),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_dout_is_recognized_by_the_signature(name):
    gradient, place, index = SIGNATURES[name]
    recognized = from_above(lambda x, w, lam=0.1: 0, gradient, ["x", "w"], outputs=1, scalar=False)
    assert (recognized.place, recognized.index) == (place, index)


def test_takes_dout_overrides_the_signature():
    x = draw(5)
    wrong = check_function(np.sin, x, gradient=lambda x, up=1.0: up * np.sin(x), takes_dout=True)
    assert wrong.verdict == "FAIL"
    check_function(np.sin, x, gradient=lambda x, up=1.0: up * np.cos(x), takes_dout=True).raise_if_failed()
    halved = check_function(lambda x: np.sin(x).sum(), x, gradient=lambda x, g=0.5: g * np.cos(x), takes_dout=False)
    assert "times 0.5" in halved.leaves[0].diagnosis


def test_an_option_of_a_gradient_keeps_its_default():
    x = draw(5)
    assert check_function(lambda x: x @ x, x, gradient=lambda x, scale=3.0: scale * 2 * x).verdict == "FAIL"
    check_function(lambda x, a=0.1: a * (x @ x), x, gradient=lambda x, a=0.1: a * 2 * x).raise_if_failed()


def test_out_of_a_ufunc_is_not_dout():
    x = draw(5)
    check_function(lambda x: np.sin(x).sum(), x, gradient=np.cos).raise_if_failed()
    subject = CheckableFunction(np.sin, (x,), np.cos)
    assert not subject.takes_dout
    assert any("the gradient of the sum" in note for note in subject.notes)


DOUTS = {
    "apart": lambda x, da, db: da * np.cos(x) - db * np.sin(x),
    "a tuple": lambda x, dout: dout[0] * np.cos(x) - dout[1] * np.sin(x),
    "a keyword": lambda x, *, dout: dout[0] * np.cos(x) - dout[1] * np.sin(x),
}


@pytest.mark.parametrize("name", DOUTS)
def test_dout_of_several_outputs_as_one_argument_or_several(name):
    check_function(lambda x: (np.sin(x), np.cos(x)), draw(4), gradient=DOUTS[name]).raise_if_failed()


def test_dout_has_the_structure_of_the_outputs():
    def gradient(x, dout):
        return dout["sine"] * np.cos(x) - dout["more"].h * np.sin(x)

    check_function(
        lambda x: {"sine": np.sin(x), "count": 3, "more": State(None, np.cos(x))}, draw(4), gradient=gradient
    ).raise_if_failed()


# -- results


def product(x, w):
    return (x * w).sum()


def subject(gradient, *args, f=product):
    with preserve_global_state():
        return CheckableFunction(f, args or (draw(5), draw(5, seed=2)), gradient)


def test_a_value_before_the_gradients_is_recognized_and_noted():
    both = subject(lambda x, w: ((x * w).sum(), (w, x)))
    assert list(both.leaves) == ["x", "w"]
    assert any("value" in note for note in both.notes)
    auxiliary = subject(lambda x: (((x**2).sum(), {"aux": 1}), 2 * x), draw(5), f=lambda x: (x**2).sum())
    assert any("value" in note for note in auxiliary.notes)
    with pytest.raises(SubjectError, match="value"):  # not the value of f
        subject(lambda x: (1.0 + (x**2).sum(), 2 * x), draw(5), f=lambda x: (x**2).sum())


def test_a_scalar_gradient_that_equals_the_value_is_a_gradient():
    own = subject(
        lambda a, b: (np.exp(a + b), np.exp(a + b)), np.array(0.5), np.array(0.25), f=lambda a, b: np.exp(a + b)
    )
    assert not own.notes
    assert list(own.leaves) == ["a", "b"]


def test_an_argument_without_a_gradient_is_among_the_others():
    lacking = subject(lambda x, w: {"x": w})
    assert (list(lacking.leaves), list(lacking.others), set(lacking.constants)) == (["x"], ["w"], set())
    none = subject(lambda x, w: (w, None))
    assert (list(none.leaves), list(none.others), set(none.constants)) == (["x"], ["w"], set())
    masked = subject(
        lambda x, mask: (mask, None), draw(4), np.array([0.0, 1, 1, 0]), f=lambda x, mask: (x * mask).sum()
    )
    assert masked.constants == {"mask"}


def test_single_gradient_makes_other_arguments_constant_except_parameters():
    alone = subject(lambda x, data: data, draw(5), draw(5), f=lambda x, data: (x * data).sum())
    assert alone.constants == {"data"}
    assert subject(lambda x, w: w).constants == set()


def test_a_single_gradient_may_belong_to_any_argument_that_it_fits():
    squares = lambda a, c: ((a - c) ** 2).sum()  # noqa: E731
    first = subject(lambda a, c: 2 * (c - a), draw(5), draw(5, seed=3), f=squares)
    assert list(first.leaves) == ["a"]
    assert [list(other.leaves) for other in first.readings()] == [["c"]]
    labelled = subject(
        lambda y_true, y: 2 * (y - y_true), draw(5), draw(5, seed=3), f=lambda y_true, y: ((y - y_true) ** 2).sum()
    )
    assert set(labelled.leaves) | set(labelled.others) == {"y_true", "y"}
    shaped = subject(lambda x, m: x, draw(5), draw(5, 1), f=lambda x, m: (x * m[:, 0]).sum())
    assert not list(shaped.readings())


def test_gradients_of_a_tree_may_have_d_names_and_lack_some():
    params = {"W": draw(3, 2), "b": draw(2)}

    def loss(params, x):
        return (x @ params["W"] + params["b"]).sum()

    full = subject(lambda params, x: {"dW": x.T @ np.ones((4, 2)), "db": np.full(2, 4.0)}, params, draw(4, 3), f=loss)
    assert list(full.leaves) == ["params.W", "params.b"]
    part = subject(lambda params, x: {"W": x.T @ np.ones((4, 2))}, params, draw(4, 3), f=loss)
    assert list(part.leaves) == ["params.W"]
    assert "params.b" not in part.constants
    assert part.constants == {"x"}


def test_leaves_with_equal_names_are_distinguished():
    tree = {"a.b": draw(3), "a": {"b": draw(3, seed=4)}}
    f = lambda p: (p["a.b"] * p["a"]["b"]).sum()  # noqa: E731
    report = check_function(f, tree, gradient=lambda p: {"a.b": p["a"]["b"], "a": {"b": 2 * p["a.b"]}})
    assert [(leaf.name, leaf.verdict) for leaf in report.leaves] == [("p.a.b", "PASS"), ("p.a.b#2", "FAIL")]


def test_gradient_that_draws_again_gets_the_same_numbers():
    def dropped(x):
        return x * (np.random.random(x.shape) > 0.5)  # noqa: NPY002

    report = check_function(dropped, draw(6), gradient=lambda x, dout: dropped(np.ones_like(x)) * dout)
    report.raise_if_failed()


# -- arguments


def test_python_number_takes_the_dtype_of_the_arrays():
    with preserve_global_state():
        leaves = CheckableJax(lambda x, a: x * a, (draw(3).astype(np.float32), 0.5)).leaves
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(np.float32)}


def test_floats_without_a_gradient_follow_the_dtype_of_the_leaves():
    def f(x, scale):
        assert x.dtype == scale.dtype
        return (x * scale).sum()

    single = draw(4).astype(np.float32), draw(4, seed=2).astype(np.float32)
    checked = subject(lambda x, scale: scale, *single, f=f)
    checked.forward({"x": single[0].astype(np.float64)})


def test_a_leaf_without_a_gradient_can_be_replaced():
    checked = subject(lambda x, w: {"x": w})
    moved = checked.forward(checked.leaves | {"w": 2 * checked.others["w"]})
    assert moved == pytest.approx(2 * checked.forward(checked.leaves))


REFUSED = {
    "nan": ((np.array([1.0, np.nan]),), r"x\[1\]: nan"),
    "objects": ((np.array([1.0, None]),), "x: an array of objects"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_cannot_be_checked_are_rejected_by_name(name):
    args, message = REFUSED[name]
    with pytest.raises(SubjectError, match=message):
        check_function(lambda x: x.sum(), *args, gradient=lambda x: np.ones_like(x))


@pytest.mark.slow
def test_arguments_that_are_not_arrays_are_passed_through():
    def f(x, key, old, count, text, nothing, flag):
        assert (count, text, nothing, flag) == (3, "a", None, True)
        return x * jax.random.normal(key, x.shape) * jax.random.normal(old, x.shape)

    others = jax.random.key(1), jax.random.PRNGKey(2), 3, "a", None, True
    check_function(f, draw(4), *others).raise_if_failed()
    check_function(f, draw(4), *others, gradient=lambda x, *rest: (f(np.ones(4), *rest),), takes_dout=False)


@pytest.mark.slow
def test_an_empty_array_and_infinite_ones_are_leaves():
    with preserve_global_state():
        leaves = CheckableJax(lambda x, e: x.sum() + e.sum(), (draw(3), np.zeros((0, 2)))).leaves
        assert leaves["e"].size == 0
        CheckableJax(lambda z, m: jax.nn.softmax(z + m), (draw(3), np.array([0, -np.inf, 0])))


# -- differentiation by JAX

product_rule = with_rule(
    lambda x, w: x * w, lambda x, w: (x * w, (x, w)), lambda r, g: (g * r[1], 3 * jnp.sum(g * r[0]))
)


class Scale:
    def __init__(self, w):
        self.w, self.lock = w, threading.Lock()

    def __call__(self, x):
        return product_rule(x, self.w)


def captured(w):
    def through_closure(x):
        return product_rule(x, w)

    def nested(x):
        return through_closure(x) + 0

    return {
        "an object": Scale(w),
        "a method": Scale(w).__call__,
        "a closure": through_closure,
        "a function in a closure": nested,
        "a compiled function": jax.jit(through_closure),
        "a mapped function": jax.vmap(through_closure),
        "a default": lambda x, *, w=w: product_rule(x, w),
        "a partial function": functools.partial(lambda x, w: product_rule(x, w), w=w),
        "a dict": functools.partial(lambda x, p: product_rule(x, p["w"]), p={"w": w}),
        "an object in a closure": (lambda model: lambda x: model(x))(Scale(w)),
    }


CAPTURED = list(captured(np.array(0.5)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(CAPTURED, 5))
def test_a_captured_array_is_checked(name):
    f = captured(np.array(0.5))[name]
    report = check_function(f, draw(3))
    verdicts = {leaf.name.rpartition(".")[2]: leaf.verdict for leaf in report.leaves}
    assert verdicts == {"x": "PASS", "w": "FAIL"}


def test_captured_arrays_are_found_and_replaced_in_copies():
    model = Scale(np.array(2.0))
    captured = CapturedArrays((model,))
    assert list(captured.arrays) == ["w"]
    assert captured.replaceable == {"w"}
    (other,) = captured.rebuild({"w": np.array(5.0)})
    assert (float(other.w), float(model.w)) == (5.0, 2.0)
    assert other.lock is model.lock


def test_captured_array_that_is_not_read_is_not_a_leaf():
    class Model(Scale):
        def __init__(self):
            super().__init__(np.array(0.5))
            self.moment = draw(3)

        def __call__(self, x):
            return x * self.w

    with preserve_global_state():
        assert list(CheckableJax(Model(), (draw(3),)).leaves) == ["x", "w"]


def test_arrays_that_numpy_reads_stay_constants():
    table = np.array([1.0, 2.0, 3.0])
    with preserve_global_state():
        checked = CheckableJax(lambda x: x * np.sqrt(table), (draw(3),))
    assert list(checked.leaves) == ["x"]
    assert checked.constants == {"table"}


def test_arrays_that_a_function_with_a_gradient_closes_over_are_constants():
    A = draw(4, 3)
    checked = subject(lambda x, dout: A.T @ dout, draw(3), f=lambda x: A @ x)
    assert checked.constants == {"A"}
    np.testing.assert_allclose(checked.forward(checked.leaves | {"A": 2 * A}), 2 * checked.forward(checked.leaves))


@pytest.mark.slow
def test_complex_numbers_are_two_leaves_and_two_outputs():
    z = draw(3) + 1j * draw(3, seed=5)
    square = with_rule(lambda z: z * z, lambda z: (z * z, z), lambda z, g: (2 * z * g,))
    check_function(square, z).raise_if_failed()
    conjugated = with_rule(lambda z: z * z, lambda z: (z * z, z), lambda z, g: (2 * z.conj() * g,))
    report = check_function(conjugated, z)
    assert [(leaf.name, leaf.verdict) for leaf in report.leaves] == [("z.real", "FAIL"), ("z.imag", "FAIL")]


def test_the_value_under_differentiation_is_that_of_the_forward_rule():
    with preserve_global_state():
        other = CheckableJax(
            with_rule(jnp.sin, lambda x: (2 * jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),)), (draw(3),)
        )
        np.testing.assert_allclose(other.value_under_differentiation(other.leaves), 2 * other.forward(other.leaves))


NOT_DIFFERENTIABLE = {
    "a loop": (lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: 2 * c, jnp.abs(x)), "Reverse-mode"),
    "a callback": (lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x), "callbacks"),
    "integers": (lambda x: jnp.argsort(x), "returns int"),
    "NumPy": (lambda x: np.tanh(x), "pass gradient=, or use jax.numpy"),
    "writing": (lambda x: [x.__setitem__(0, 1.0), x][1], "pass gradient=, or use jax.numpy"),
}


@pytest.mark.parametrize("name", NOT_DIFFERENTIABLE)
def test_functions_without_a_jax_derivative_are_rejected_with_the_reason(name):
    f, message = NOT_DIFFERENTIABLE[name]
    with pytest.raises(SubjectError, match=message):
        check_function(f, draw(3))


RULES = {
    "another structure": lambda x, g: (g, g),
    "an exception": lambda x, g: (g[99].missing,),
    "shapes that do not fit": lambda x, g: (g @ jnp.ones((4, 4)),),
}


@pytest.mark.parametrize("name", RULES)
def test_exception_in_a_derivative_rule_is_a_fault(name):
    report = check_function(with_rule(jnp.sin, lambda x: (jnp.sin(x), x), RULES[name]), draw(3))
    assert report.verdict == "FAIL"


def test_function_is_compiled_once_per_dtype_if_results_agree():
    traced = []

    def f(x):
        traced.append(x)
        return jnp.tanh(x) @ x

    compiled, x = Compiled(f), draw(20)
    values = [compiled(x * k) for k in (1, 2, 3)]
    assert len(traced) == 3  # twice uncompiled, once to compile
    assert compiled.usable == {((x.shape, x.dtype),): True}
    np.testing.assert_allclose(values, [np.tanh(k * x) @ (k * x) for k in (1, 2, 3)])
    np.testing.assert_array_equal(compiled(x), values[0])
    branching = Compiled(lambda x: x * 2 if x.sum() > 0 else x * 3)
    np.testing.assert_allclose([branching(k * np.abs(x)) for k in (1.0, -1.0)], [2 * np.abs(x), -3 * np.abs(x)])
    assert not any(branching.usable.values())


def test_single_precision_stays_single_precision():
    def kernel(x):
        assert x.dtype == jnp.float32
        return jnp.tanh(x)

    with preserve_global_state():
        checked = CheckableJax(kernel, (draw(3).astype(np.float32),))
        assert checked.forward(checked.leaves).dtype == np.float32
        assert checked.backward(checked.leaves, np.ones(3, np.float32))["x"].dtype == np.float32


def test_report_names_the_source_of_the_gradient():
    with preserve_global_state():
        assert CheckableJax(jnp.sin, (draw(2),)).derived_by == "JAX"
    assert subject(lambda x, w: (w, x)).derived_by == "analytic"


def squares(x):
    return x**2


def squares_grad(x):
    return 3 * x


def with_slopes(f, *slopes):
    f = jax.custom_jvp(f)
    f.defjvps(*slopes)
    return f


FUNCTIONS_OF_JAX = {
    "none": (lambda x: jnp.tanh(x), True),
    "of JAX": (lambda x: jax.nn.relu(x), True),
    "custom_vjp": (
        lambda x: 2 * with_rule(jnp.tanh, lambda x: (jnp.tanh(x), x), lambda x, d: (d * (1 - jnp.tanh(x) ** 2),))(x),
        False,
    ),
    "slopes for a function of JAX": (lambda x: with_slopes(jnp.tanh, lambda d, y, x: d * (1 - y**2))(x), False),
    "custom_vjp in a branch": (
        lambda x: jax.lax.cond(
            x[0] > 0, jax.jit(with_rule(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, d: (d * jnp.cos(x),))), jnp.sin, x
        ),
        False,
    ),
    "JAX itself": (jnp.tanh, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS_OF_JAX)
def test_a_note_says_that_the_derivative_of_jax_was_checked_unless_there_is_a_rule(name):
    f, is_noted = FUNCTIONS_OF_JAX[name]
    notes = check_function(f, np.array([0.3, -0.2, 0.7])).notes
    assert notes == ("f has no rule of its own: JAX's derivative was checked",) * is_noted


@pytest.mark.slow
def test_a_gradient_beside_a_function_is_named_if_it_was_not_checked():
    x = np.array([0.3, -0.2, 0.7])
    not_checked = "derivative was checked, not squares_grad; pass gradient=squares_grad"
    report = check_function(squares, x)
    assert report.undecided == (f"squares has no rule of its own: JAX's {not_checked}",)
    assert report.verdict is Verdict.INCONCLUSIVE
    of_jax = check_function(squares, jnp.asarray(x))  # which asks for JAX's derivative
    assert of_jax.notes == report.undecided
    assert of_jax.verdict is Verdict.PASS
    assert not check_function(squares, x, gradient=squares_grad)


def test_a_wrong_rule_is_that_of_its_author_and_not_of_jax():
    @jax.custom_vjp
    def swish(x):
        return x * jax.nn.sigmoid(x)

    swish.defvjp(lambda x: (swish(x), x), lambda x, g: (g * jax.nn.sigmoid(x) * x,))
    report = check_function(swish, draw(5))
    assert report.leaves[0].reason == "the backward of swish is not the derivative of its own forward"
    assert "JAX's gradient" not in str(report)
