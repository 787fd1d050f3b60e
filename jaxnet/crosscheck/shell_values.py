"""Parses the values that code is called with, as they are written on a command line."""

import ast
import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.input_files import SUFFIXES, read_file
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.inspect.random_inputs import is_shape, off_zero
from jaxnet.crosscheck.targets import TargetError

PREFIXES = ("str:", "py:", "shape:", "array:")
CONSTANTS = {"None": None, "True": True, "False": False}
CLOSING = {"(": ")", "[": "]", "{": "}"}
NAMED = re.compile(r"([^\W\d][\w.]*)?=(.*)", re.S)
SHAPE = re.compile(r"\d+(x\d+)*,?")
INTEGERS = re.compile(r"(\d+(?:x\d+)*)<(\d+)")
MODULES = {"torch": "torch", "jnp": "jax.numpy", "jax": "jax"}  # that an expression may use, imported if it does
EXPECTED = (
    "expected a shape such as 5x4 or shape:5, integers such as 5<10, a number such as 0.5, =3 or pad=1, array:0.5, "
    "None, True, False, str:TEXT, py:EXPRESSION, (...), [...], {NAME:VALUE}, or a .npy, .npz or .pt file"
)


def values(
    specs: Sequence[str], rng: np.random.Generator, *, tuples_are_shapes: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    """Parses positional and named values.

    Args:
        specs: The values: 5x4, 3 and shape:3 are float arrays of these shapes, 5<10 are five integers below 10, 0.5
            and =3 are numbers, array:0.5 and array:[1,2] are arrays of these values, str:TEXT is a string, and
            py:EXPRESSION is evaluated with `np` and `rng`, and with `torch`, `jnp` and `jax` if it uses them. (...)
            and [...] are a tuple and a list, of numbers if they have only integers, and {NAME:VALUE} is a dict. A .npy
            file is an array, and a .npz or .pt file contains named arrays or tensors. NAME=VALUE is a named value, such
            as pad=1, W=4x3 or b=shape:3 (b=3 is a number, and `b=3,` is short for b=shape:3), and NAME.KEY=VALUE an
            item of a dict.
        rng: The generator that the arrays are drawn from.
        tuples_are_shapes: Whether a tuple of positive integers is a shape, as it is for `check`: (5,6) is then the
            same array as 5x6. Tuples inside of other values stay tuples. Defaults to False.

    Returns:
        The positional values, and the named values.

    Raises:
        TargetError: If a value has none of these forms.

    Examples:
        >>> values(["2x3", "0.5", "pad=1", "mode=str:same"], np.random.default_rng(0))[1]
        {'pad': 1, 'mode': 'same'}
        >>> values(["size=(2,2)", "p.W.scale=0.5"], np.random.default_rng(0))[1]
        {'size': (2, 2), 'p': {'W': {'scale': 0.5}}}
        >>> values(["(5,6)"], np.random.default_rng(0), tuples_are_shapes=True)[0][0].shape
        (5, 6)
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for spec in specs:
        match = NAMED.fullmatch(spec)
        name, text = match.groups() if match else (None, spec)
        value = _value(spec, text, rng, is_number=match is not None)
        if tuples_are_shapes and is_shape(value):
            value = off_zero(rng, value)
        if name:
            _insert(named, spec, name.split("."), value)
        elif isinstance(value, dict) and text.endswith(SUFFIXES):
            named |= value
        elif isinstance(value, list) and text.endswith(SUFFIXES):
            positional += value
        else:
            positional.append(value)
    return positional, named


def _insert(named: dict[str, Any], spec: str, path: list[str], value: Any) -> None:
    """Puts a value into a dict of dicts."""
    *outer, last = path
    for key in outer:
        named = named.setdefault(key, {})
        if not isinstance(named, dict):
            raise TargetError(f"{spec!r}: {key} is a value already, expected a dict")
    if last in named:
        raise TargetError(f"{spec!r}: {'.'.join(path)} is given twice")
    named[last] = value


def _value(spec: str, text: str, rng: np.random.Generator, *, is_number: bool) -> Any:
    """Parses a value, in which a single integer may be a number instead of a shape; `spec` is for error messages."""
    if text.startswith(PREFIXES) or text.endswith(SUFFIXES):
        return _explicit(spec, text, rng)
    if text in CONSTANTS:
        return CONSTANTS[text]
    if text[:1] in CLOSING:
        return _collection(spec, text, rng)
    if match := INTEGERS.fullmatch(text):
        return _integers(spec, match[1], match[2], rng)
    if SHAPE.fullmatch(text):
        return int(text) if is_number and text.isdecimal() else _drawn(spec, text.removesuffix(","), rng)
    return _number_or_string(spec, text)


def _explicit(spec: str, text: str, rng: np.random.Generator) -> Any:
    """Returns a string, the value of an expression, an array, or the content of a file."""
    prefix, _, rest = text.partition(":")
    if prefix == "str":
        return rest
    if prefix == "py":
        return _evaluated(spec, rest, rng)
    if prefix == "shape":
        return _drawn(spec, rest, rng)
    if prefix == "array":
        return _array(spec, rest)
    if text.endswith(".pt"):
        _import(spec, "torch")
    return read_file(text)


def _drawn(spec: str, text: str, rng: np.random.Generator) -> Any:
    """Returns a random array of the shape 4x3, 4, or (), which has no axes."""
    if text != "()" and not re.fullmatch(r"\d+(x\d+)*", text):
        raise TargetError(
            f"{spec!r}: the shape is {text!r}, expected sizes such as 4x3 or 4, or () for an array of no axes"
        )
    sizes = tuple(int(size) for size in text.split("x")) if text != "()" else ()
    if sizes and min(sizes) < 1:
        raise TargetError(f"{spec!r}: a size is below 1; write a number as ={text}")
    return off_zero(rng, sizes)


def _array(spec: str, text: str) -> Any:
    """Returns the array of a number or of nested lists of numbers."""
    try:
        array = np.asarray(ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        array = None
    if array is None or array.dtype.kind not in "biufc":
        raise TargetError(f"{spec!r}: expected numbers, such as array:0.5 or array:[1,2]; a shape is written shape:4x3")
    return array


def _integers(spec: str, shape: str, top: str, rng: np.random.Generator) -> Any:
    if int(top) < 1:
        raise TargetError(f"{spec!r}: no integers are below {top} and 0 or more; expected 1 or more after <")
    return rng.integers(0, int(top), tuple(int(size) for size in shape.split("x")))


def _number_or_string(spec: str, text: str) -> Any:
    for number in (int, float, ast.literal_eval):
        try:
            return number(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    near = next((f"did you mean {name}?" for name in CONSTANTS if name.lower() == text.lower()), "")
    if not near and re.fullmatch(r"\d+([xX*×]\d+)+", text):
        near = f"did you mean {re.sub(r'[X*×]', 'x', text)}?"
    if not near and text.isidentifier():
        near = f"a string is written str:{text}"
    raise TargetError(f"{spec!r}: {EXPECTED}" + (f"; {near}" if near else ""))


def _collection(spec: str, text: str, rng: np.random.Generator) -> Any:
    """Parses a tuple, a list or a dict, whose items are values of any form."""
    items = _items(spec, text)
    if text[0] == "{":
        pairs = [item.partition(":") for item in items]
        if wrong := [item for item, (_, colon, _) in zip(items, pairs, strict=True) if not colon]:
            raise TargetError(f"{spec!r}: {wrong[0]!r} in braces, expected NAME:VALUE")
        return {_unquoted(key.strip()): _item(spec, value.strip(), rng) for key, _, value in pairs}
    parsed = [int(item) if _all_integers(items) else _item(spec, item, rng) for item in items]
    return tuple(parsed) if text[0] == "(" else parsed


def _unquoted(key: str) -> str:
    """Returns a key without the quotes that it has in Python."""
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] and key[0] in "'\"" else key


def _item(spec: str, text: str, rng: np.random.Generator) -> Any:
    return _value(spec, text.removeprefix("="), rng, is_number=text.startswith("="))


def _all_integers(items: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[+-]?\d+", item) for item in items)


def _items(spec: str, text: str) -> list[str]:
    """Returns the items between the brackets around a text, which may have brackets themselves."""
    expected: list[str] = []
    items = [""]
    for i, character in enumerate(text):
        if character in CLOSING:
            expected.append(CLOSING[character])
        elif character in CLOSING.values():
            if not expected or expected.pop() != character:
                raise TargetError(f"{spec!r}: {character!r} at character {i + 1} closes nothing that is open")
            if not expected and i < len(text) - 1:
                raise TargetError(f"{spec!r}: text after the closing {character!r}")
        if character == "," and len(expected) == 1:
            items.append("")
        else:
            items[-1] += character
    if expected:
        raise TargetError(f"{spec!r}: expected {expected[-1]!r} at the end; put the value into quotes, '{spec}'")
    items[0] = items[0][1:]
    items[-1] = items[-1][:-1]
    stripped = [item.strip() for item in items]
    return stripped[:-1] if not stripped[-1] else stripped


def _evaluated(spec: str, expression: str, rng: np.random.Generator) -> Any:
    """Evaluates a Python expression, which the user of the command line wrote."""
    names: dict[str, Any] = {"np": np, "rng": rng}
    for name, module in MODULES.items():
        if re.search(rf"\b{name}\b", expression):
            names[name] = _import(spec, module)
    try:
        return eval(expression, names)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise TargetError(f"{spec!r}: raised {what}; expected an expression of np, rng, torch, jnp or jax") from error


def _import(spec: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TargetError(f"{spec!r}: needs {module}, which is not installed: {describe(error)}") from error


def in_dtype(value: Any, dtype: str) -> Any:
    """Returns a value with its float arrays, also those in tuples, lists and dicts, in another dtype."""
    if dtype == "bfloat16":
        importlib.import_module("ml_dtypes")  # NumPy has the dtype once it is imported
    if isinstance(value, dict):
        return {key: in_dtype(part, dtype) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(in_dtype(part, dtype) for part in value) if type(value) in (list, tuple) else value
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
