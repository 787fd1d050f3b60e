"""Loads a user's code, named as FILE.py:NAME, and parses the values that it is called with on a command line."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnet.crosscheck.input_files import SUFFIXES, read_file
from jaxnet.crosscheck.inspect.errors import describe
from jaxnet.crosscheck.inspect.random_inputs import off_zero


class TargetError(ValueError):
    """A file, a name or a value on the command line is wrong; the message says which one and why."""


def load(target: str) -> Any:
    """Returns the object that FILE.py:NAME names, or the pair of functions that FILE.py:FORWARD,BACKWARD names.

    Raises:
        TargetError: If there is no such file or name, or the file cannot be run.
    """
    file, _, names = target.rpartition(":")
    path = Path(file)
    if not file or not names:
        raise TargetError(f"{target!r}: expected FILE.py:NAME")
    if not path.is_file():
        raise TargetError(f"{target}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{target}: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import its neighbors
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TargetError(f"{target}: running {file} raised {describe(error)}") from error
    for name in names.split(","):
        if not hasattr(module, name):
            public = [attribute for attribute in vars(module) if not attribute.startswith("_")]
            raise TargetError(f"{target}: no {name} in {file}, which has {', '.join(public) or 'nothing'}")
    objects = tuple(getattr(module, name) for name in names.split(","))
    return objects if len(objects) > 1 else objects[0]


def values(specs: Sequence[str], rng: np.random.Generator) -> tuple[list[Any], dict[str, Any]]:
    """Parses positional and named values.

    Args:
        specs: The values: 5x4 is a float array of that shape, 5<10 are five integers below 10, 0.5 and =3 are numbers,
            a .npy file is an array, and a .npz or .pt file contains named arrays or tensors. NAME=VALUE is a named
            value, such as pad=1 or W=4x3.
        rng: The generator that the arrays are drawn from.

    Returns:
        The positional values, and the named values.

    Raises:
        TargetError: If a value has none of these forms.

    Examples:
        >>> values(["2x3", "0.5", "pad=1"], np.random.default_rng(0))[1]
        {'pad': 1}
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for spec in specs:
        if spec.endswith(SUFFIXES):
            loaded = read_file(spec)
            if isinstance(loaded, dict):
                named |= loaded
            else:
                positional += loaded if isinstance(loaded, list) else [loaded]
            continue
        name, equals, text = spec.rpartition("=")
        value = _value(spec, text, rng, is_number=bool(equals))
        if name:
            named[name] = value
        else:
            positional.append(value)
    return positional, named


def _value(spec: str, text: str, rng: np.random.Generator, *, is_number: bool) -> Any:
    """Parses the text after the name in `spec`, in which a single integer may be a number instead of a shape."""
    shape, below, top = text.partition("<")
    try:
        sizes = tuple(int(size) for size in shape.split("x"))
        if below:
            return rng.integers(0, int(top), sizes)
        if is_number and len(sizes) == 1:
            return sizes[0]
        if min(sizes) < 1:
            raise TargetError(f"{spec!r}: a size is below 1; write a number as ={spec}")
        return off_zero(rng, sizes)
    except ValueError as error:
        if isinstance(error, TargetError):
            raise
    try:
        return float(text)
    except ValueError:
        raise TargetError(
            f"{spec!r}: expected a shape such as 5x4, integers such as 5<10, a number such as 0.5, =3 or pad=1, "
            "or a .npy or .npz file"
        ) from None


def in_dtype(value: Any, dtype: str) -> Any:
    """Returns a float array in another dtype, and any other value unchanged."""
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
