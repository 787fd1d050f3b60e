"""Reads the options of the fixture and of its marker, and splits a test into one for each shape and dtype."""

import difflib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

# The ways to call the fixture, each with the function that it runs.
FORMS = {
    "crosscheck": "check",
    "crosscheck.layer": "check_layer",
    "crosscheck.function": "check_function",
    "crosscheck.network": "check_network",
}
DTYPES = ("float16", "float32", "float64")


class OptionError(TypeError):
    """An option of the fixture or of its marker does not exist, or has no such value."""


@dataclass(frozen=True)
class Case:
    """What one of the tests that a marker makes checks.

    Attributes:
        inputs: The inputs, or None if the test passes them.
        dtype: The dtype of floats, or None for that of the arrays.
    """

    inputs: tuple[Any, ...] | None
    dtype: str | None

    @property
    def test_id(self) -> str:
        """The part of the test's id in brackets: "5x4", "5x4,4x3-float32"."""
        shapes = "" if self.inputs is None else ",".join(_text(value) for value in self.inputs)
        return "-".join(part for part in (shapes, self.dtype) if part)


def marker_options(node: "pytest.Item | pytest.Function") -> dict[str, Any]:
    """Returns the options of the markers of a test; those of the closest one win.

    Raises:
        OptionError: If an option has no name, or no check takes it.
    """
    options: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("crosscheck"))):
        if marker.args:
            raise OptionError(f"{marker.args[0]!r} has no name, expected options by name, such as shapes=[(5, 4)]")
        options |= marker.kwargs
    if options:
        expect_options(options, *FORMS)
    return options


def expect_options(options: Collection[str], *forms: str) -> None:
    """Checks that each option is one of these forms of the fixture.

    Raises:
        OptionError: If one is not; the message names the nearest option, or the form that takes it.
    """
    known = sorted({option for form in forms for option in options_of(form)})
    for option in options:
        if option in known:
            continue
        if taker := next((form for form in FORMS if option in options_of(form)), None):
            raise OptionError(f"{option}: no option of {forms[0]}(...); {taker}(...) takes it")
        near = difflib.get_close_matches(option, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        raise OptionError(f"{option}: unknown option, {advice}")


def options_of(form: str) -> list[str]:
    """Returns the names of the options of a form of the fixture: those of the function that it runs, and `dtypes`."""
    from jaxnet import crosscheck

    parameters = inspect.signature(getattr(crosscheck, FORMS[form])).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] + ["dtypes"]


def is_split(options: Mapping[str, Any]) -> bool:
    """Returns whether a test becomes several: by a list of shapes or by dtypes."""
    return _is_list(options.get("shapes")) or options.get("dtypes") is not None


def cases(options: Mapping[str, Any]) -> list[Case]:
    """Returns a case for each pair of a shape and a dtype.

    Raises:
        OptionError: If `shapes` or `dtypes` is no list, or a dtype is none of floats.

    Examples:
        >>> [case.test_id for case in cases({"shapes": [(5, 4), (1, 4)], "dtypes": ("float32",)})]
        ['5x4-float32', '1x4-float32']
    """
    inputs: list[Any] = [None]
    if _is_list(options.get("shapes")):
        from jaxnet.crosscheck.many_points import as_inputs

        inputs = [as_inputs(shape) for shape in options["shapes"]]
    dtypes = options.get("dtypes")
    return [Case(*case) for case in product(inputs, [None] if dtypes is None else dtype_names(dtypes))]


def dtype_names(dtypes: Any) -> list[str]:
    """Returns the names of one dtype or several.

    Raises:
        OptionError: If one is not float16, float32 or float64.

    Examples:
        >>> dtype_names("float32"), dtype_names((float, np.float32))
        (['float32'], ['float64', 'float32'])
    """
    names = [_dtype_name(d) for d in (dtypes if isinstance(dtypes, list | tuple) and dtypes else [dtypes])]
    for name in names:
        if name not in DTYPES:
            raise OptionError(f"dtypes: {name!r}, expected one or several of {', '.join(DTYPES)}")
    return names


def _dtype_name(dtype: Any) -> str:
    """Returns the name of a dtype of NumPy, JAX or PyTorch; that of another value is its text."""
    if dtype is float:
        return "float64"
    return str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)).removeprefix("torch.")


def _is_list(shapes: Any) -> bool:
    """Returns whether `shapes` lists inputs. The checker itself takes a function of a generator, and refuses others."""
    if not isinstance(shapes, list | tuple) or not shapes:
        return False
    from jaxnet.crosscheck.inspect.random_inputs import is_shape

    return not is_shape(shapes)


def _text(value: Any) -> str:
    """Returns "5x4" for a shape and an array, and other values themselves if they are short."""
    shape = getattr(value, "shape", value)
    if isinstance(shape, tuple):
        return "x".join(map(str, shape)) or "scalar"
    return str(value) if isinstance(value, str | int | float) else type(value).__name__
