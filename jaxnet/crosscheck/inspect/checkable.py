"""What is checked, seen alike whatever its style: named leaves, a forward pass, and a backward pass.

A subject can be opened at any leaves, in any floating dtype. The caller's objects and arrays are never touched: what
is opened is a copy, and the leaves that it holds are replaced on the way.
"""

import copy
import random
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import SubjectError as SubjectError
from jaxnet.crosscheck.inspect.errors import blaming as blaming
from jaxnet.crosscheck.inspect.jax_loaded import double_precision, is_of_jax
from jaxnet.crosscheck.inspect.outputs import Outputs as Outputs
from jaxnet.crosscheck.inspect.signatures import expect_call as expect_call
from jaxnet.crosscheck.inspect.signatures import input_names as input_names
from jaxnet.crosscheck.inspect.signatures import positional as positional
from jaxnet.crosscheck.inspect.trees import Array as Array
from jaxnet.crosscheck.inspect.trees import copied
from jaxnet.crosscheck.inspect.trees import is_float as is_float
from jaxnet.crosscheck.meter import count_forward

Leaves = dict[str, Array]
BESIDE = ("d{}", "d_{}", "grad_{}", "{}_grad")  # how the gradient by something is called
TWO_FUNCTIONS = "bring them apart: check_function(lambda ...: f(...)[0], ..., gradient=lambda ...: f(...)[1])"
NO_STATE = (type, types.ModuleType, types.FunctionType, types.MethodType)


class Instance:
    """One instance, to be called in any order; what it remembers between calls is its own affair.

    Args:
        forward: Of the inputs.
        backward: The gradients by leaf, of the gradients from above by each output.
        inputs: What `forward` is called with.
        handed: Every array that it holds or is handed, by name: none is its to write to.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., dict[str, Any]],
        inputs: tuple[Any, ...],
        handed: Leaves,
    ) -> None:
        self._forward, self._backward, self.inputs, self.handed = forward, backward, inputs, handed
        self.outputs = Outputs()

    def forward(self) -> Array:
        """Returns the output. The global generators start anew, so that a mask drawn from them is drawn again."""
        restart_generators()
        count_forward()
        return self.outputs.pack(self._forward(*self.inputs))

    def forward_elsewhere(self) -> bool:
        """Runs a forward pass at other inputs of the same shapes; returns whether there were any other."""
        other = elsewhere(self.inputs)
        restart_generators()
        self._forward(*other)
        return any(
            isinstance(a, np.ndarray) and not np.array_equal(a, b) for a, b in zip(other, self.inputs, strict=True)
        )

    def backward(self, dout: Array) -> dict[str, Any]:
        """Returns the gradient of each leaf, for a copy of `dout`: a backward may write to what it is given."""
        return self.backward_as_given(*copied(self.outputs.unpack(dout)))

    def backward_as_given(self, *douts: Any) -> dict[str, Any]:
        """Returns the gradient of each leaf for gradients from above that are handed over as they lie in memory."""
        found = self._backward(*douts)
        return {name: np.asarray(g) if is_of_jax(g) else g for name, g in found.items()}


class Checkable:
    """A function of arrays, and what it claims to be its vector-Jacobian product."""

    name: str
    leaves: Leaves  # what a gradient is claimed for: "W", "x", "Affine1.W"
    others: Mapping[str, Array] = {}  # float arrays that it is handed or holds, and for which no gradient comes back
    constants: Set[str] = frozenset()  # those of `others` that are declared or recognised as constants
    immovable: Collection[str] = frozenset()  # those of `others` that `open` cannot replace
    held_leaves: Collection[str] = frozenset()  # the leaves that are no arguments, which a reference does not know
    takes_dout = True  # whether its backward can be given a gradient from above
    derived_by = "analytic"  # who made the gradient that is checked: "analytic", "JAX" or "PyTorch"
    adds_up: Sequence[str] = ()  # leaves to whose gradients its backward adds; they are cleared before it is called
    notes: Sequence[str] = ()  # how what was brought was understood, each in a sentence
    fault = ""  # why it cannot be opened at all: its backward raises
    numbers: Mapping[str, float] = {}  # what it was made with: a dropout rate, a stride, an eps
    integers: Mapping[str, Array] = {}  # its ids and labels
    batch: Mapping[str, Array] = {}  # a network's samples: no leaf, but a mean may be over their sizes

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """The first call of a backward: where it raises, that is what there is to say of it."""
        try:
            yield
        except SubjectError:
            raise
        except Exception as error:
            self.fault, self.leaves = f"{what} raises {type(error).__name__}: {error}", {}

    def open(self, leaves: Leaves) -> Instance:
        """A fresh instance at these leaves."""
        raise NotImplementedError

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        """What a reference in JAX is called with at these leaves."""
        raise NotImplementedError

    def tied_gradient(self, name: str, gradients: Mapping[str, Any]) -> Array | None:
        """Returns the sum of the gradients of all leaves that share memory with this one; None where none does."""
        del name, gradients
        return None

    def readings(self) -> Iterator["Checkable"]:
        """Yields other ways to read what backward returned."""
        yield from ()

    def with_integers(self, integers: Mapping[str, Array]) -> "Checkable | None":
        """Returns the same with other ids and labels; None where they cannot be replaced."""
        del integers
        return None

    def consistent(self, leaves: Leaves) -> Leaves:
        """Returns the leaves with equal values where they share memory, for leaves that were moved independently."""
        return leaves

    def value_under_differentiation(self, leaves: Leaves) -> Array | None:
        """Returns the output as differentiation computes it, where that may be other code than forward's."""
        del leaves
        return None

    def forward(self, leaves: Leaves) -> Array:
        """The output at the leaves."""
        return self.open(leaves).forward()

    def backward(self, leaves: Leaves, dout: Array) -> dict[str, Any]:
        """The gradients at the leaves, by a fresh instance."""
        opened = self.open(leaves)
        opened.forward()
        return opened.backward(dout)


def restart_generators() -> None:
    """Seeds the global random generators of NumPy, Python and, where it is loaded, PyTorch."""
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(0)


def as_arrays(inputs: tuple[Any, ...], names: list[str]) -> tuple[Any, ...]:
    """Numbers and lists of numbers as arrays, everything else as it is.

    Raises:
        SubjectError: An array is complex or of objects, or a float is not finite.
    """
    return tuple(_as_array(name, given) for name, given in zip(names, inputs, strict=True))


def _as_array(name: str, given: Any) -> Any:
    if isinstance(given, bool | int | np.integer | str | dict) or given is None or not is_numbers(given):
        return given
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise SubjectError(
            f"{name}: a {type(given).__name__} of rows of different lengths, expected an array"
        ) from error
    if array.dtype == object or np.issubdtype(array.dtype, np.complexfloating):
        raise SubjectError(f"{name}: an array of {array.dtype}, expected floats, or integers where none is derived by")
    if array.dtype.kind == "f" and np.isnan(array).any():  # an infinity may stand in a mask
        where = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise SubjectError(f"{name}{list(where)}: nan, expected numbers; give it other inputs")
    return array


def is_numbers(given: Any) -> bool:
    """Whether this is a number, a list of numbers, of lists of them, or an array."""
    if isinstance(given, list):
        return bool(given) and all(isinstance(part, list | float | int) and is_numbers(part) for part in given)
    return isinstance(given, float | int | complex | np.generic) or hasattr(given, "__array__")


def derived_by(inputs: tuple[Any, ...], names: list[str], returned: int) -> list[str]:
    """Which inputs the gradients that a backward returns belong to: all, or else the first that are floats."""
    if returned == len(inputs):
        return names
    floats = [name for name, given in zip(names, inputs, strict=True) if is_float(given)]
    return floats[:returned]


def claimed(
    result: Any, inputs: tuple[Any, ...], names: list[str], who: str, others: Collection[str] = ()
) -> dict[str, Any]:
    """What a backward returns, by input: in their order, or in a dict by their names, with or without a d.

    Args:
        others: What a dict may have a gradient for besides: the parameters.

    Raises:
        SubjectError: There are more gradients than inputs, or they have other names.
    """
    if isinstance(result, Mapping):
        places = {form.format(n): n for some in (others, names) for form in (*BESIDE, "{}") for n in some}
        if not result.keys() <= places.keys():
            raise SubjectError(
                f"{who}: returned a dict of {', '.join(map(str, result))}, "
                f"expected a gradient for each input, in their order: {', '.join(names)}"
            )
        return {places[key]: gradient for key, gradient in result.items()}
    returned = as_tuple(result)
    if len(returned) > len(inputs):
        hint = ", ".join(f"self.d{name}" for name in others if name.isidentifier())
        raise SubjectError(
            f"{who}: returned {len(returned)} gradients for {len(inputs)} inputs"
            + (f"; leave those of parameters in {hint}" if hint else "")
        )
    return dict(zip(derived_by(inputs, names, len(returned)), returned, strict=False))


def elsewhere(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Other inputs of the same kind: the same numbers in other places, floats halved, so that they stay in range."""
    moved = (
        np.roll(a, 1, axis=0 if len(a) > 1 else -1) if isinstance(a, np.ndarray) and a.ndim else copy.deepcopy(a)
        for a in inputs
    )
    return tuple(0.5 * a if is_float(a) and not _is_one_hot(a) else a for a in moved)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """What a backward returns, as a tuple."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def attributes_of(value: Any) -> dict[str, Any]:
    """What an object holds, in its `__slots__` too; nothing for a class, a module or a function."""
    if isinstance(value, NO_STATE):
        return {}
    slots = (getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    names += [
        f"_{kind.__name__.lstrip('_')}{name}" for kind in type(value).__mro__ for name in names if name[:2] == "__"
    ]
    hidden = ("__dict__", "__weakref__")
    filled = {name: getattr(value, name) for name in names if name not in hidden and hasattr(value, name)}
    return filled | getattr(value, "__dict__", {})


def in_double(value: Any, known: dict[int, Any] | None = None) -> Any:
    """The float arrays in a structure of lists, dicts and objects as float64, changed where they stand.

    `known` maps the ids of those seen to what they became, so that what was one array stays one.
    """
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = value
    if is_float(value):
        known[id(value)] = value if value.dtype == np.float64 else value.astype(np.float64)
    elif isinstance(value, list):
        value[:] = [in_double(part, known) for part in value]
    elif isinstance(value, tuple) and type(value) is tuple:
        known[id(value)] = tuple(in_double(part, known) for part in value)
    elif isinstance(value, dict):
        value.update({key: in_double(part, known) for key, part in value.items()})
    else:
        for name, part in attributes_of(value).items():
            if (other := in_double(part, known)) is not part:
                object.__setattr__(value, name, other)  # a frozen dataclass's, too
    return known[id(value)]


def numbers_in(named: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among some values, in dicts too, and the one value of a mask that has but one beside 0."""
    found: dict[str, float] = {}
    for name, value in named.items():
        if isinstance(value, dict):
            found |= numbers_in(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
        elif isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind == "f":
            few = len(np.unique(value.flat[:64])) <= 2  # before a large array is sorted
            if few and len(levels := np.unique(value)) == 2 and levels[0] == 0:
                found[f"{name}'s value"] = float(levels[1])
    return found


def integers_in(inputs: tuple[Any, ...], names: list[str]) -> Leaves:
    """The ids and labels among the inputs."""
    return {name: a for name, a in arrays_in(inputs, names).items() if np.issubdtype(a.dtype, np.integer)}


def floats_in(value: Any, known: set[int] | None = None) -> Iterator[Array]:
    """The float arrays in a structure of lists, dicts and objects."""
    known = set() if known is None else known
    if id(value) in known:
        return
    known.add(id(value))
    if is_float(value):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from floats_in(part, known)
    else:
        for part in (value if isinstance(value, dict) else attributes_of(value)).values():
            yield from floats_in(part, known)


def are_double(leaves: Leaves) -> bool:
    """Whether this is a check in float64, in which nothing may be kept in less."""
    return all(array.dtype == np.float64 for array in leaves.values())


@contextmanager
def surroundings_kept() -> Iterator[None]:
    """The global random generators are found afterwards as they were before; within, JAX has double precision."""
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with double_precision():
            yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])


def _is_one_hot(a: Array) -> bool:
    return bool(np.isin(a, (0, 1)).all())


def arrays_in(inputs: tuple[Any, ...], names: list[str]) -> Leaves:
    """The arrays among the inputs, by name."""
    return {name: value for name, value in zip(names, inputs, strict=True) if isinstance(value, np.ndarray)}
