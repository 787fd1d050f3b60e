"""Tests the inspection of layers, pairs and networks: leaves, others, constants, and copies that behave alike.

Each gradient is compared with a central difference of the same copy's forward, without the rest of the checker. So a
failure is due to the inspected code, or to how inspection calls it.
"""

import collections
import concurrent.futures
import copy
import dataclasses
import re
import threading
import types

import numpy as np
import pytest

from jaxnet.crosscheck import check_function, check_layer, check_network
from jaxnet.crosscheck.inspect.chain import chain
from jaxnet.crosscheck.inspect.copying import Template, duplicate, is_plain
from jaxnet.crosscheck.inspect.dispatch import declare_constants
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.layer import inspect_layer
from jaxnet.crosscheck.inspect.network import inspect_network
from jaxnet.crosscheck.inspect.pair import inspect_pair

STEP = 1e-5


def draw(*shape, seed=3, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def in_double(code):
    return {name: leaf.astype(np.float64) for name, leaf in code.leaves.items()}


def verdicts(code, tolerance=1e-6):
    """Returns whether each leaf's gradient, or the sum over all leaves that share its memory, is the derivative."""
    assert not code.fault
    at, y = in_double(code), code.forward(in_double(code))
    dout = draw(*y.shape, seed=5) if code.takes_dout else np.ones_like(y)
    gradients = code.backward(at, dout)
    return {name: _agrees(code, name, gradients, at, dout, tolerance) for name in code.leaves}


def _agrees(code, name, gradients, at, dout, tolerance):
    if gradients.get(name) is None:
        return False
    d = draw(*at[name].shape, seed=8)
    up, down = (np.sum(dout * code.forward(at | {name: at[name] + s * STEP * d})) for s in (1, -1))
    numerical = (up - down) / (2 * STEP)
    claims = [gradients[name], code.shared_memory_gradient(name, gradients)]
    scale = 1 + abs(numerical)
    return any(g is not None and abs(np.sum(g * d) - numerical) <= tolerance * scale for g in claims)


class Affine:
    factor = 1.0

    def __init__(self, W=None, b=None):
        self.W, self.b = draw(4, 3) if W is None else W, draw(3) if b is None else b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


# -- copies


class Holder:
    def __init__(self, **container):
        vars(self).update(container)


@dataclasses.dataclass(frozen=True)
class Frozen:
    W: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    W: np.ndarray


class Slots:
    __slots__ = ("W", "__hidden")

    def __init__(self, W):
        self.W, self.__hidden = W, W

    @property
    def hidden(self):
        return self.__hidden


class Computed:
    def __init__(self, W):
        self._W = W

    @property
    def W(self):
        return self._W

    @property
    def raising(self):
        raise RuntimeError("not yet")


class CopiesItself:
    def __init__(self, W):
        self.W, self.copied = W, False

    def __deepcopy__(self, memo):
        other = CopiesItself(self.W.copy())
        other.copied = True
        return other


class Unpicklable:
    def __init__(self, W):
        self.W = W

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle this")


class Listed(list):
    pass


Pair = collections.namedtuple("Pair", "W other")
KINDS = {
    "an object": (Holder, lambda h: h.W, lambda W: {"W": W}),
    "a frozen dataclass": (Frozen, lambda h: h.W, lambda W: {"W": W}),
    "a frozen dataclass with slots": (FrozenSlots, lambda h: h.W, lambda W: {"W": W}),
    "slots": (Slots, lambda h: h.W, lambda W: {"W": W}),
    "a mangled slot": (Slots, lambda h: h.hidden, lambda W: {"W": W}),
    "a property": (Computed, lambda h: h.W, lambda W: {"W": W}),
    "its own deepcopy": (CopiesItself, lambda h: h.W, lambda W: {"W": W}),
    "no pickling": (Unpicklable, lambda h: h.W, lambda W: {"W": W}),
    "a namedtuple": (Pair, lambda h: h.W, lambda W: {"W": W, "other": None}),
    "a namespace": (types.SimpleNamespace, lambda h: h.W, lambda W: {"W": W}),
    "a defaultdict": (
        lambda W: collections.defaultdict(list, W=W),
        lambda h: h["W"] if h["missing"] == [] else None,
        lambda W: {"W": W},
    ),
    "an ordered dict": (lambda W: collections.OrderedDict(W=W), lambda h: h["W"], lambda W: {"W": W}),
    "a deque": (lambda W: collections.deque([W], maxlen=2), lambda h: h[0], lambda W: {"W": W}),
    "a list's subclass": (lambda W: Listed([W]), lambda h: h[0], lambda W: {"W": W}),
    "an array of objects": (lambda W: np.array([{"W": W}, None]), lambda h: h[0]["W"], lambda W: {"W": W}),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_array_is_replaced_wherever_it_is_held(name):
    kind, get, how = KINDS[name]
    W, other = draw(2, 3), draw(2, 3, seed=9).astype(np.float32)
    before = W.copy()
    container = kind(**how(W))
    copied = duplicate(container, {id(W): other})
    assert np.array_equal(get(copied), other)
    assert get(copied).dtype == np.float32
    assert type(copied) is type(container)
    get(copied)[...] = 0
    assert np.array_equal(get(container), before)


SHARED = {
    "a module": lambda: np,
    "a lock": threading.Lock,
    "a pool": lambda: concurrent.futures.ThreadPoolExecutor(1),
    "an event": threading.Event,
    "a function": lambda: draw,
    "a generator": lambda: (i for i in range(3)),
    "a class": lambda: Affine,
    "a ufunc": lambda: np.sin,
    "a memoryview": lambda: memoryview(b"abc"),
}


@pytest.mark.parametrize("name", SHARED)
def test_uncopyable_objects_are_shared(name):
    thing = SHARED[name]()
    layer = Affine()
    layer.thing, layer.deep = thing, {"in": [thing]}
    copied = duplicate(layer)
    assert copied.thing is thing
    assert copied.deep["in"][0] is thing
    assert copied.W is not layer.W
    assert all(verdicts(inspect_layer(layer, (draw(5, 4),))).values())


def test_an_open_file_is_shared_and_not_closed(tmp_path):
    class Logged(Affine):
        def __del__(self):
            self.deleted = True

    layer = Logged()
    with open(tmp_path / "log", "w") as layer.log:
        inspect_layer(layer, (draw(5, 4),))
        assert not layer.log.closed


def test_a_handle_with_a_finalizer_is_not_copied():
    ended = []

    class Handle:
        def __del__(self):
            ended.append(1)

    layer = Affine()
    layer.handle = Handle()
    duplicate(layer)
    assert not ended


VIEWS = {
    "slices of a flat vector": (lambda t: (t[:6].reshape(3, 2), t[6:8]), 8),
    "a transpose": (lambda t: (t.reshape(4, 2), t.reshape(4, 2).T), 8),
    "the same array twice": (lambda t: (t, t), 8),
    "every second element": (lambda t: (t[::2], t[1::2], t), 8),
    "reversed": (lambda t: (t[::-1], t), 8),
    "a diagonal": (lambda t: (t.reshape(3, 3), np.einsum("ii->i", t.reshape(3, 3))), 9),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", VIEWS)
def test_copied_views_share_one_buffer(name, dtype):
    make, size = VIEWS[name]
    theta = np.arange(1.0, size + 1)
    arrays = make(theta)
    moved = (arrays[0] + 100).astype(dtype)
    copied = duplicate(arrays, {id(arrays[0]): moved})
    assert all(c.dtype == dtype for c in copied if np.shares_memory(c, copied[0]))
    assert np.array_equal(copied[0], moved)
    theta_ = theta.copy()
    again = make(theta_)
    again[0][...] += 100
    assert all(np.array_equal(c, a) for c, a in zip(copied, again, strict=True))
    assert np.array_equal(theta, np.arange(1.0, size + 1))


def test_memory_order_is_preserved_and_an_owned_buffer_keeps_its_dtype():
    layer = Affine(W=np.asfortranarray(draw(4, 3)))
    layer.buffer = np.zeros((5, 3), np.float32)
    code = inspect_layer(layer, (draw(5, 4),))
    opened = code.open({n: np.ascontiguousarray(leaf, np.float64) for n, leaf in code.leaves.items()})
    assert opened.arrays["W"].flags.f_contiguous
    copied = code.template.copy({id(code.arrays["W"]): draw(4, 3)})
    assert copied.buffer.dtype == np.float32


def test_a_template_is_copied_at_other_values_each_time():
    W = draw(3)
    template = Template({"a": W, "b": W[::-1]})
    for value in (0.0, 1.0):
        copied = template.copy({id(W): np.full(3, value)})
        assert (copied["b"] == value).all()


def test_an_object_that_holds_its_own_attributes_does_so_in_the_copy():
    computed = Computed(draw(2, 3))
    computed.own = vars(computed)
    copied = duplicate(computed)
    assert copied.own is vars(copied)
    assert copied.own is not computed.own
    np.testing.assert_array_equal(copied.W, computed.W)


@pytest.mark.parametrize("method", ["__getstate__", "__reduce__", "__deepcopy__", "__getattr__", "__del__"])
def test_a_class_that_says_how_it_is_copied_is_not_copied_by_its_attributes(method):
    kind = type("Own", (Computed,), {method: lambda self, *args: None})
    assert [is_plain(each) for each in (Computed, kind, type("Below", (kind,), {}))] == [True, False, False]


def test_a_bound_method_belongs_to_the_copy():
    layer = Affine()
    layer.call = layer.forward
    copied = duplicate(layer)
    copied.call(draw(5, 4))
    assert not hasattr(layer, "x")
    assert copied.call.__self__ is copied


# -- layers


class Lazy:
    """Makes its parameters at the first call, and also has caches, statistics and a buffer."""

    W = b = None
    factor = 1.0

    def forward(self, x):
        if self.W is None:
            self.W, self.b = draw(x.shape[1], 3), np.zeros(3)
            self.mean, self.out = np.zeros(3), np.zeros((len(x), 3))
        self.x = x
        z = x @ self.W + self.b
        self.mean += 0.1 * z.mean(axis=0)
        self.out[...] = z
        return self.out.copy()

    def backward(self, dout):
        self.dW, self.db = self.factor * self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_parameters_made_in_the_first_forward_are_leaves(factor):
    code = inspect_layer(type("Lazy", (Lazy,), {"factor": factor})(), (draw(5, 4),))
    assert set(code.leaves) == {"W", "b", "x"}
    assert not code.others.keys() & {"out", "mean"}
    assert verdicts(code) == {"W": factor == 1.0, "b": True, "x": True}


def test_parameter_made_in_the_first_forward_without_a_gradient_is_reported():
    class Forgetful(Lazy):
        def backward(self, dout):
            self.dW = self.x.T @ dout
            return dout @ self.W.T

    code = inspect_layer(Forgetful(), (draw(5, 4),))
    assert set(code.leaves) == {"W", "x"}
    assert "b" in code.others
    assert "b" not in code.constants


class KeepsTheFirst(Affine):
    """Stores its first input, which is not a parameter but makes the layer wrong."""

    first = None

    def forward(self, x):
        self.first = x.copy() if self.first is None else self.first
        return super().forward(x)

    def backward(self, dout):
        self.x = self.first
        return super().backward(dout)


def test_array_that_depends_on_the_first_input_is_not_a_parameter():
    code = inspect_layer(KeepsTheFirst(), (draw(5, 4),))
    assert set(code.leaves) == {"W", "b", "x"}
    opened = code.open(code.leaves)
    opened.forward_at_different_inputs()
    opened.forward()
    assert not np.allclose(opened.backward(np.ones((5, 3)))["W"], code.backward(code.leaves, np.ones((5, 3)))["W"])


@pytest.mark.parametrize("make", ["global", "seeded"])
def test_parameters_made_in_the_first_forward_without_any_gradient_are_reported(make):
    class Forgetful:
        W = None

        def forward(self, x):
            if self.W is None:
                shape = x.shape[1], 3
                self.W = np.random.randn(*shape) if make == "global" else draw(*shape)  # noqa: NPY002
            self.x = x
            return x @ self.W

        def backward(self, dout):
            return dout @ self.W.T

    code = inspect_layer(Forgetful(), (draw(5, 4),))
    assert set(code.leaves) == {"x"}
    assert set(code.others) == {"W"}
    assert not code.constants


def test_the_input_is_a_leaf_if_backward_returns_nothing():
    silent = type("Silent", (Affine,), {"backward": lambda self, dout: (Affine.backward(self, dout), None)[1]})
    code = inspect_layer(silent(), (draw(5, 4),))
    assert verdicts(code) == {"W": True, "b": True, "x": False}


def test_property_that_raises_is_ignored():
    raising = type("Raising", (Affine,), {"params": property(lambda self: 1 / 0)})
    assert all(verdicts(inspect_layer(raising(), (draw(5, 4),))).values())


class TwoPlaces:
    """Computes x P and h Q, where P and Q are one array."""

    def __init__(self, W, factor=1.0):
        self.params, self.grads = [W, W], [np.zeros_like(W), np.zeros_like(W)]
        self.factor = factor

    def forward(self, a, b):
        self.a, self.b = a, b
        return np.tanh(a @ self.params[0]) + b @ self.params[1]

    def backward(self, dout):
        d = dout * (1 - np.tanh(self.a @ self.params[0]) ** 2)
        self.grads[0][...] = self.factor * self.a.T @ d
        self.grads[1][...] = self.b.T @ dout
        return d @ self.params[0].T, dout @ self.params[1].T


class Transposed:
    def __init__(self, E, factor=1.0):
        self.E, self.W, self.factor = E, E.T, factor

    def forward(self, x):
        self.x = x
        self.h = x @ self.E
        return self.h @ self.W

    def backward(self, dout):
        self.dE = self.x.T @ (dout @ self.W.T) + self.factor * dout.T @ self.h
        return dout @ self.W.T @ self.E.T


class TransposedApart(Transposed):
    def backward(self, dout):
        self.dE, self.dW = self.x.T @ (dout @ self.W.T), self.factor * self.h.T @ dout
        return dout @ self.W.T @ self.E.T


class Flat:
    """W and b are slices of theta, and their gradients of gtheta."""

    def __init__(self, theta, factor=1.0):
        self.theta, self.dtheta = theta, np.zeros_like(theta)
        self.W, self.b = theta[:12].reshape(4, 3), theta[12:]
        self.dW, self.db, self.factor = self.dtheta[:12].reshape(4, 3), self.dtheta[12:], factor

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW[...] = self.factor * self.x.T @ dout
        self.db[...] = dout.sum(axis=0)
        return dout @ self.W.T


class FlatWithout(Flat):
    """The flat vector has no gradient of its own."""

    def __init__(self, theta, factor=1.0):
        super().__init__(theta, factor)
        del self.dtheta


TIED = {
    "one array listed twice": (lambda f: TwoPlaces(draw(4, 3), f), (draw(5, 4), draw(5, 4, seed=4)), "params[0]"),
    "a transpose, one gradient": (lambda f: Transposed(draw(4, 3), f), (draw(5, 4),), "E"),
    "a transpose, two gradients": (lambda f: TransposedApart(draw(4, 3), f), (draw(5, 4),), "W"),
    "a flat vector and its slices": (lambda f: Flat(draw(15), f), (draw(5, 4),), "W"),
    "slices of a flat vector": (lambda f: FlatWithout(draw(15), f), (draw(5, 4),), "W"),
}


@pytest.mark.parametrize("factor", [1.0, 1.1])
@pytest.mark.parametrize("name", TIED)
def test_separate_gradients_of_shared_memory_are_summed(name, factor):
    make, inputs, wrong = TIED[name]
    code = inspect_layer(make(factor), inputs)
    assert not code.others
    correct = verdicts(code)
    if factor == 1.0:
        assert all(correct.values())
    else:
        assert not correct[wrong]
        assert all(correct[n] for n in code.names)


def test_leaves_that_share_memory_are_made_equal():
    code = inspect_layer(Flat(draw(15)), (draw(5, 4),))
    settled = code.consistent({n: leaf + i for i, (n, leaf) in enumerate(code.leaves.items())})
    assert np.array_equal(settled["theta"][:12].reshape(4, 3), settled["W"])
    assert np.array_equal(settled["theta"][12:], settled["b"])


class Adds(Affine):
    def __init__(self, start=0.0):
        super().__init__()
        self.dW, self.db = np.full((4, 3), start), np.full(3, start)

    def backward(self, dout):
        self.dW += self.x.T @ dout
        self.db += dout.sum(axis=0)
        return dout @ self.W.T


class AddsInList(TwoPlaces):
    def __init__(self):
        self.params, self.grads = [draw(4, 3), draw(3)], [np.ones((4, 3)), np.ones(3)]

    def forward(self, x):
        self.x = x
        return x @ self.params[0] + self.params[1]

    def backward(self, dout):
        self.grads[0] += self.x.T @ dout
        self.grads[1] += dout.sum(axis=0)
        return dout @ self.params[0].T


class AddsToGrad:
    def __init__(self):
        self.W = Holder(data=draw(4, 3), grad=np.ones((4, 3)))

    def forward(self, x):
        self.x = x
        return x @ self.W.data

    def backward(self, dout):
        self.W.grad = self.W.grad + self.x.T @ dout
        return dout @ self.W.data.T


class Once(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        del self.x
        return dx


ADDING = {
    "from 0": (Adds, {"W", "b"}),
    "from what was left": (lambda: Adds(2.0), {"W", "b"}),
    "in a list": (AddsInList, {"params[0]", "params[1]"}),
    "to grad": (AddsToGrad, {"W"}),
    "it sets them": (Affine, set()),
    "its backward may run once": (Once, set()),
}


@pytest.mark.parametrize("name", ADDING)
def test_accumulated_gradients_are_cleared_before_each_backward(name):
    make, adding = ADDING[name]
    code = inspect_layer(make(), (draw(5, 4),))
    assert set(code.accumulating) == adding
    assert all(verdicts(code).values())


def test_backward_of_a_copy_is_called_once():
    calls = []

    class Counted(Adds):
        def backward(self, dout):
            calls.append(id(self.x))
            return super().backward(dout)

    inspect_layer(Counted(), (draw(5, 4),))
    assert len(calls) == len(set(calls)) <= 2


# -- missing gradients


def pair(backward):
    return lambda x, w, b: (np.tanh(x @ w + b), (x, w, np.tanh(x @ w + b))), backward


def _d(dout, c):
    return dout * (1 - c[2] ** 2)


LACKING = {
    "a tuple without b": (pair(lambda d, c: (_d(d, c) @ c[1].T, c[0].T @ _d(d, c))), {"b"}, set()),
    "a tuple with None": (pair(lambda d, c: (_d(d, c) @ c[1].T, c[0].T @ _d(d, c), None)), {"b"}, set()),
    "a dict": (pair(lambda d, c: {"x": _d(d, c) @ c[1].T, "dw": c[0].T @ _d(d, c)}), {"b"}, set()),
    "a bare gradient": (pair(lambda d, c: _d(d, c) @ c[1].T), {"w", "b"}, set()),
    "all of them": (
        pair(lambda d, c: (_d(d, c) @ c[1].T, c[0].T @ _d(d, c), _d(d, c).sum(0))),
        set(),
        set(),
    ),
    "a mask": ((lambda x, mask: (x * mask, mask), lambda d, c: (d * c,)), {"mask"}, {"mask"}),
    "labels": ((lambda y_pred, y_true: (y_pred * y_true, y_true), lambda d, c: d * c), {"y_true"}, {"y_true"}),
    "another array": ((lambda x, other: (x * other, other), lambda d, c: d * c), {"other"}, {"other"}),
    "in a tuple": ((lambda x, other: (x * other, other), lambda d, c: (d * c,)), {"other"}, set()),
}


@pytest.mark.parametrize("name", LACKING)
def test_input_without_a_returned_gradient_is_reported(name):
    functions, others, constants = LACKING[name]
    three = functions[0].__code__.co_argcount == 3
    inputs = (draw(5, 4), draw(4, 3), draw(3)) if three else (draw(5, 4), draw(5, 4, seed=6))
    code = inspect_pair(functions, inputs)
    assert set(code.others) == others
    assert code.constants == constants
    assert all(verdicts(code).values())
    assert set(code.leaves) | others == set(code.names)


def test_others_can_be_moved():
    functions, others, _ = LACKING["a tuple without b"]
    code = inspect_pair(functions, (draw(5, 4), draw(4, 3), draw(3)))
    moved = code.open(code.leaves | {name: code.others[name] + 1 for name in others}).forward()
    assert not np.allclose(moved, code.forward(code.leaves))


def test_declared_constants_are_constants():
    functions, *_ = LACKING["in a tuple"]
    checkable = inspect_pair(functions, (draw(5, 4), draw(5, 4, seed=6)))
    declare_constants(checkable, ["other"])
    assert checkable.constants == {"other"}


class Extra(Affine):
    """An Affine with one more array that affects the output."""

    def __init__(self, name, array, **attributes):
        super().__init__()
        self.where = name
        vars(self).update({name: array}, **attributes)

    def extra(self):
        return getattr(self, self.where)

    def forward(self, x):
        return super().forward(x) + np.sum(getattr(self.extra(), "data", self.extra()))


HELD = {
    "a bias": ("b2", draw(3), {}, False),
    "any array": ("c", draw(3), {}, False),
    "running statistics": ("running_mean", draw(3), {}, True),
    "a position": ("pe", draw(3), {}, True),
    "a mask": ("drop_mask", draw(3), {}, True),
    "zeros and ones": ("select", np.eye(3), {}, True),
    "a weight of zeros and ones": ("W2", np.eye(3), {}, False),
    "frozen": ("c", Holder(data=draw(3), grad=None, requires_grad=False), {}, True),
    "an empty list": ("c", draw(3), {"params": []}, True),
}


@pytest.mark.parametrize("name", HELD)
def test_array_without_a_gradient_is_a_constant_only_if_recognized(name):
    place, array, attributes, constant = HELD[name]
    code = inspect_layer(Extra(place, array, **attributes), (draw(5, 4),))
    assert set(code.leaves) == {"W", "b", "x"}
    assert set(code.others) == {place}
    assert (place in code.constants) is constant
    assert all(verdicts(code).values())


def test_an_array_that_is_not_in_the_list_of_parameters_is_a_constant():
    layer = Extra("c", draw(3))
    layer.params, layer.grads = [layer.W, layer.b], [np.zeros((4, 3)), np.zeros(3)]
    assert inspect_layer(layer, (draw(5, 4),)).constants == {"c"}


@pytest.mark.parametrize("place", ["p['W']", "many[0]", "cell.W"])
def test_arrays_within_dicts_lists_and_objects_are_found(place):
    container = {"p['W']": ("p", {"W": draw(3)}), "many[0]": ("many", [draw(3)]), "cell.W": ("cell", Holder(W=draw(3)))}
    name, value = container[place]
    code = inspect_layer(Holdings(name, value), (draw(5, 3),))
    assert set(code.others) == {place}
    at = code.leaves | {place: code.others[place] + 1}
    assert not np.allclose(code.forward(at), code.forward(code.leaves))


class Holdings:
    def __init__(self, name, value):
        self.name = name
        setattr(self, name, value)

    def array(self):
        value = getattr(self, self.name)
        if isinstance(value, dict | list):
            return value["W"] if isinstance(value, dict) else value[0]
        return value.W

    def forward(self, x):
        return x * self.array()

    def backward(self, dout):
        return dout * self.array()


def test_entries_of_a_dict_input_are_leaves_or_named_as_others():
    def forward(x, p):
        return x @ p["W"] + p["b"], (x, p)

    def backward(dout, cache):
        x, p = cache
        return dout @ p["W"].T, {"dW": x.T @ dout}

    code = inspect_pair((forward, backward), (draw(5, 4), {"W": draw(4, 3), "b": draw(3), "eps": 1e-5}))
    assert set(code.leaves) == {"x", "p['W']"}
    assert set(code.others) == {"p['b']"}
    assert all(verdicts(code).values())


@pytest.mark.parametrize("bare", [True, False])
def test_single_gradient_of_a_loss_layer_may_be_for_another_input(bare):
    class Squares:
        def forward(self, first, second):
            self.e = second - first
            return (self.e**2).mean()

        def backward(self, dout=1.0):
            g = dout * 2 * self.e / self.e.size
            return g if bare else (g,)

    code = inspect_layer(Squares(), (draw(5, 3), draw(5, 3, seed=2)))
    assert verdicts(code) == {"first": False}
    others = list(code.readings())
    assert [list(other.leaves) for other in others] == ([["second"]] if bare else [])
    assert all(verdicts(other) == {"second": True} for other in others)


def test_single_gradient_is_not_assigned_to_labels():
    class Squares:
        def forward(self, y_true, y_pred):
            self.e = y_pred - y_true
            return (self.e**2).mean()

        def backward(self):
            return 2 * self.e / self.e.size

    code = inspect_layer(Squares(), (draw(5, 3), draw(5, 3, seed=2)))
    assert verdicts(code) == {"y_pred": True}
    assert code.constants == {"y_true"}


# -- calls


class LeavesOutput:
    """Returns nothing from forward, as layers of a course do."""

    def __init__(self):
        self.weights, self.biases = draw(4, 3), draw(1, 3)

    def forward(self, inputs):
        self.inputs = inputs
        self.output = inputs @ self.weights + self.biases

    def backward(self, dvalues):
        self.dweights, self.dbiases = self.inputs.T @ dvalues, dvalues.sum(axis=0, keepdims=True)
        self.dinputs = dvalues @ self.weights.T


def test_output_stored_in_an_attribute_is_read():
    assert verdicts(inspect_layer(LeavesOutput(), (draw(5, 4),))) == {"weights": True, "biases": True, "inputs": True}
    other = type("Other", (LeavesOutput,), {"forward": lambda self, x: LeavesOutput.forward(self, x)})
    assert verdicts(inspect_layer(other(), (draw(5, 4),))) == {"weights": True, "biases": True, "x": True}


def test_a_forward_without_an_output_is_rejected_with_a_hint():
    class Silent:
        def forward(self, x):
            self.x = x

        def backward(self, dout):
            return dout

    with pytest.raises(SubjectError, match=r"Silent\.forward: returned None, expected its output.*return"):
        inspect_layer(Silent(), (draw(5, 4),))


class Multiply:
    def forward(self, x, y):
        self.x, self.y = x, y
        return x * y

    def backward(self, dout):
        return dout * self.y, dout * self.x


@pytest.mark.parametrize("inputs", [(100, 2), (100, 1.1), (np.array([1, 2]), np.array([3, 4])), ([1, 2], [3, 4])])
def test_integers_that_are_meant_as_floats_become_floats(inputs):
    assert verdicts(inspect_layer(Multiply(), inputs)) == {"x": True, "y": True}


def test_ids_stay_integers():
    class Rows:
        def __init__(self):
            self.W = draw(6, 3)

        def forward(self, ids):
            self.ids = ids
            return self.W[ids]

        def backward(self, dout):
            self.dW = np.zeros_like(self.W)
            np.add.at(self.dW, self.ids, dout)

    code = inspect_layer(Rows(), (np.array([0, 2, 2, 5]),))
    assert verdicts(code) == {"W": True}


REFUSED = {
    "the constructor's own error": lambda: inspect_layer(Affine(), (draw(5, 7),)),
    "a class": lambda: inspect_layer(Affine, (draw(5, 4),)),
    "no network": lambda: inspect_network(Affine(), draw(5, 4), np.arange(5)),
    "no cache": lambda: inspect_pair((np.sin, lambda d, c: d), (draw(3),)),
    "nothing of floats": lambda: inspect_layer(Holdings("p", {"W": np.arange(3)}), ("abc",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rejections_are_one_sentence(name):
    with pytest.raises(SubjectError) as refused:
        REFUSED[name]()
    assert "\n" not in str(refused.value)
    assert ":" in str(refused.value)


def test_exception_in_backward_is_a_fault():
    class Raises(Affine):
        def backward(self, dout):
            raise KeyError("x")

    code = inspect_layer(Raises(), (draw(5, 4),))
    assert code.fault.startswith("backward raises KeyError: 'x' (")
    assert code.leaves == {}


def raising(x):
    raise ValueError(f"shape {x.shape}")


RAISED_AT = rf"test_inspect_layers\.py:{raising.__code__.co_firstlineno + 1}\)"


class RaisesInGradient:
    params = {"W": np.ones((4, 3))}  # noqa: RUF012

    def loss(self, x, t):
        return (x @ self.params["W"]).sum()

    def gradient(self, x, t):
        return raising(x)


@pytest.mark.parametrize(
    ("check_it", "call"),
    [
        (lambda: check_layer((lambda x: (x, x), lambda dout, x: raising(x)), (5, 4)), "backward raises"),
        (lambda: check_function(np.sin, np.ones(3), gradient=lambda x, dout: raising(x)), "gradient raises"),
        (lambda: check_network(RaisesInGradient(), np.ones((5, 4)), np.zeros(5, int)), "gradient raises"),
    ],
    ids=["layer", "function", "network"],
)
def test_an_exception_is_reported_with_the_file_and_line_that_raised_it(check_it, call):
    assert re.search(rf"{call} ValueError: shape \(.*\) \(.*{RAISED_AT}", check_it().text(width=None))


def test_an_exception_of_a_library_is_reported_at_the_users_line():
    def backward(dout, x):
        return np.linalg.inv(x[:, :2])

    line = backward.__code__.co_firstlineno + 1
    report = check_layer((lambda x: (x, x), backward), (5, 4))
    assert re.search(rf"backward raises LinAlgError: .* \(.*test_inspect_layers\.py:{line}\)", str(report))


def test_a_forward_that_raises_is_rejected_with_the_file_and_line():
    with pytest.raises(SubjectError, match=rf"raised ValueError: shape \(5, 4\) \(.*{RAISED_AT}"):
        check_layer((raising, lambda dout, x: dout), (5, 4))


def test_methods_that_pass_a_cache_belong_to_a_copy():
    class Cached:
        def __init__(self):
            self.W = draw(4, 3)

        def forward(self, x):
            return x @ self.W, x

        def backward(self, dout, cache):
            self.dW = cache.T @ dout
            return dout @ self.W.T

    layer = Cached()
    before = copy.deepcopy(vars(layer))
    code = inspect_pair((layer.forward, layer.backward), (draw(5, 4),))
    assert verdicts(code) == {"W": True, "x": True}
    assert vars(layer).keys() == before.keys()
    assert np.array_equal(layer.W, before["W"])


def test_float32_constants_and_buffers_stay_when_leaves_are_opened_in_float64():
    class Scaled:
        def __init__(self):
            self.scale = draw(4, dtype=np.float32)

        def forward(self, x):
            self.dtypes = x.dtype, self.scale.dtype
            return x * self.scale

        def backward(self, dout):
            return dout * self.scale

    code = inspect_layer(Scaled(), (draw(5, 4, dtype=np.float32),))
    copied, _ = code.template.copy_with_memo({})
    assert copied.scale.dtype == np.float32
    opened = code.open({"x": code.leaves["x"].astype(np.float64)})
    assert opened.forward().dtype == np.float64


def test_a_float_label_follows_the_leaves_dtype():
    functions = (lambda x, t: (x * t, t), lambda d, t: d * t)
    code = inspect_pair(functions, (draw(5, 4, dtype=np.float32), draw(5, 4, seed=4, dtype=np.float32)))
    opened = code.open({"x": code.leaves["x"].astype(np.float64)})
    assert [given.dtype for given in opened.inputs] == [np.float64, np.float64]


# -- networks


class Loss:
    """Softmax and cross-entropy."""

    def forward(self, x, t):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y, self.t = e / e.sum(axis=1, keepdims=True), t
        return -np.log(self.y[np.arange(len(t)), t]).mean()

    def backward(self, dout=1):
        d = self.y.copy()
        d[np.arange(len(d)), self.t] -= 1
        return d / len(d)


class Net:
    def __init__(self, factor=1.0, recompute=True):
        self.fc, self.last = Affine(), Loss()
        self.fc.factor, self.recompute = factor, recompute
        self.layers = [self.fc]
        self.params = {"fc": {"W": self.fc.W, "b": self.fc.b}}

    def predict(self, x):
        return self.fc.forward(x)

    def loss(self, x, t):
        return self.last.forward(self.predict(x), t)

    def gradient(self, x, t):
        if self.recompute:
            self.loss(x, t)
        self.fc.backward(self.last.backward(1))
        return {"fc": {"W": self.fc.dW, "b": self.fc.db}}


LABELS = np.array([0, 1, 2, 2, 1])
NETS = {
    "recomputes": lambda: Net(),
    "needs a loss before": lambda: Net(recompute=False),
    "wrong": lambda: Net(1.01),
    "wrong, needs a loss before": lambda: Net(1.01, recompute=False),
}


@pytest.mark.parametrize("used", [False, True], ids=["new", "used before"])
@pytest.mark.parametrize("name", NETS)
def test_network_gradient_with_and_without_a_loss_before_it(name, used):
    net = NETS[name]()
    if used:
        net.loss(draw(5, 4, seed=1), LABELS[::-1].copy())
    code = inspect_network(net, draw(5, 4), LABELS)
    assert verdicts(code) == {"fc.W": "wrong" not in name, "fc.b": True}


class Dropping(Net):
    """Draws a mask at each call, from a configurable generator."""

    def __init__(self, generator=None):
        super().__init__()
        self.generator = generator

    def predict(self, x):
        draws = self.generator.random(x.shape) if self.generator else np.random.rand(*x.shape)  # noqa: NPY002
        return super().predict(x * (draws > 0.3))


@pytest.mark.parametrize("generator", [None, np.random.default_rng(2)], ids=["global", "its own"])
def test_gradient_that_draws_again_gets_the_same_numbers(generator):
    code = inspect_network(Dropping(generator), draw(5, 4), LABELS)
    assert all(verdicts(code).values())


def test_leaf_without_a_gradient_stays_a_leaf():
    class Lacking(Net):
        def gradient(self, x, t):
            return {"fc": {"W": super().gradient(x, t)["fc"]["W"]}}

    code = inspect_network(Lacking(), draw(5, 4), LABELS)
    assert set(code.leaves) == {"fc.W", "fc.b"}
    assert "fc.b" not in code.backward(code.leaves, np.asarray(1.0))


def test_an_array_that_is_not_in_a_networks_params_is_a_constant():
    net = Net()
    net.params = {"W": net.fc.W}
    net.gradient = types.MethodType(lambda self, x, t: {"W": Net.gradient(self, x, t)["fc"]["W"]}, net)
    code = inspect_network(net, draw(5, 4), LABELS)
    assert set(code.leaves) == {"W"}
    assert list(code.others) == ["fc.b"] or list(code.others) == ["layers[0].b"]
    assert code.constants == set(code.others)


def test_layers_are_yielded_in_the_order_of_their_calls_with_inputs_and_dout():
    net = Net()
    net.layers = [net.last, net.fc]
    x = draw(5, 4)
    code = inspect_network(net, x, LABELS)
    layers = list(code.layers())
    assert [type(layer.owner).__name__ for _, layer, _ in layers] == ["Affine", "Loss"]
    (_, affine, dout), (_, loss, loss_dout) = layers
    assert np.array_equal(affine.inputs[0], x)
    assert loss_dout == 1
    net.loss(x, LABELS)
    assert np.allclose(dout, net.last.backward())
    assert all(verdicts(affine).values())
    assert set(loss.leaves) == {"x"}
    assert type(affine.owner) is Affine


@pytest.mark.parametrize("slots", [False, True])
def test_layers_with_slots_are_recorded_too(slots):
    kind = type("Slotted", (), {"__slots__": ("W", "dW", "x", "factor"), **_methods()}) if slots else Affine
    net = Net()
    net.fc = kind()
    net.layers, net.params = [], {"W": net.fc.W}

    def gradient(self, x, t):
        self.loss(x, t)
        self.fc.backward(self.last.backward(1))
        return {"W": self.fc.dW}

    net.gradient = types.MethodType(gradient, net)
    names = [name for name, _, dout in inspect_network(net, draw(5, 4), LABELS).layers() if dout is not None]
    assert names == ["fc", "last"]


def _methods():
    def init(self):
        self.W = draw(4, 3)

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T

    return {"__init__": init, "forward": forward, "backward": backward}


class Softmax:
    """A softmax whose backward returns dout, because that of the loss includes it."""

    def forward(self, x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = e / e.sum(axis=1, keepdims=True)
        return self.y

    def backward(self, dout):
        return dout


class CrossEntropy:
    """A loss whose backward includes that of the softmax."""

    factor = 1.0

    def forward(self, y, t):
        self.y, self.t = y, t
        return -np.log(y[np.arange(len(t)), t]).mean()

    def backward(self):
        d = self.y.copy()
        d[np.arange(len(d)), self.t] -= 1
        return self.factor * d / len(d)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_two_wrong_layers_may_be_right_together(factor):
    class Split(Net):
        def __init__(self):
            super().__init__()
            self.softmax, self.last = Softmax(), type("CrossEntropy", (CrossEntropy,), {"factor": factor})()

        def predict(self, x):
            return self.softmax.forward(self.fc.forward(x))

        def gradient(self, x, t):
            self.loss(x, t)
            self.fc.backward(self.softmax.backward(self.last.backward()))
            return {"fc": {"W": self.fc.dW, "b": self.fc.db}}

    layers = [layer for _, layer, _ in inspect_network(Split(), draw(5, 4), LABELS).layers()]
    affine, softmax, loss = layers
    assert not any((*verdicts(softmax).values(), *verdicts(loss).values()))
    both = chain(softmax, loss)
    assert verdicts(both) == {"Softmax.x": factor == 1.0}
    with pytest.raises(SubjectError, match="expected consecutive layers"):
        chain(affine, loss)


def test_a_params_tree_may_hold_one_array_twice():
    class Tied:
        def __init__(self):
            E = draw(4, 3)
            self.params = {"E": E, "out": E.T}

        def loss(self, x, t):
            return 0.5 * (((x @ self.params["E"]) @ self.params["out"] - t) ** 2).sum()

        def gradient(self, x, t):
            h = x @ self.params["E"]
            e = h @ self.params["out"] - t
            return {"E": x.T @ (e @ self.params["out"].T), "out": h.T @ e}

    assert all(verdicts(inspect_network(Tied(), draw(5, 4), draw(5, 4, seed=2))).values())


def test_layer_in_a_loop_is_recorded_at_its_first_call():
    class Cell:
        def __init__(self, W):
            self.W, self.inputs = W, []

        def forward(self, x):
            self.inputs.append(x)
            return np.tanh(x @ self.W)

        def backward(self, dout):
            x = self.inputs.pop()
            d = dout * (1 - np.tanh(x @ self.W) ** 2)
            self.dW = getattr(self, "dW", 0) + x.T @ d
            return d @ self.W.T

    class Loop:
        def __init__(self):
            self.cell = Cell(draw(4, 4))
            self.params = {"W": self.cell.W}

        def loss(self, x, t):
            self.cell.inputs.clear()
            for _ in range(3):
                x = self.cell.forward(x)
            self.error = x - t
            return 0.5 * (self.error**2).sum()

        def gradient(self, x, t):
            self.loss(x, t)
            self.cell.dW = np.zeros((4, 4))
            self.douts = [self.error]
            for _ in range(3):
                self.douts.append(self.cell.backward(self.douts[-1]))
            return {"W": self.cell.dW}

    net, x, t = Loop(), draw(5, 4), draw(5, 4, seed=4)
    code = inspect_network(net, x, t)
    assert all(verdicts(code).values())
    ((name, cell, dout),) = code.layers()
    assert name == "cell"
    assert np.array_equal(cell.inputs[0], x)
    net.gradient(x, t)
    assert np.allclose(dout, net.douts[2])


def test_keyword_inputs_of_a_layer_are_recorded():
    class Doubling:
        def forward(self, x, train=False):
            self.factor = 2 if train else 1
            return x * self.factor

        def backward(self, dout):
            return dout * self.factor

    class Flagged(Net):
        def __init__(self):
            super().__init__()
            self.doubling = Doubling()

        def predict(self, x):
            return self.doubling.forward(super().predict(x), train=True)

        def gradient(self, x, t):
            self.loss(x, t)
            self.fc.backward(self.doubling.backward(self.last.backward(1)))
            return {"fc": {"W": self.fc.dW, "b": self.fc.db}}

    layers = {name: layer for name, layer, _ in inspect_network(Flagged(), draw(5, 4), LABELS).layers()}
    assert layers["doubling"].inputs[1] is True
    assert verdicts(layers["doubling"]) == {"x": True}
