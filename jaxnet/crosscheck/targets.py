"""Somebody's own code, named as FILE.py:NAME, and the values it is called with, written as on a command line."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.random_inputs import off_zero


class TargetError(ValueError):
    """A file, a name or a value on the command line is not what it should be; the message says which and why."""


def load(target: str) -> Any:
    """What FILE.py:NAME names; FILE.py:FORWARD,BACKWARD is a pair of functions.

    Raises:
        TargetError: There is no such file or name, or the file cannot be run.
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
    sys.path.insert(0, str(path.parent.resolve()))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TargetError(f"{target}: running {file} raised {type(error).__name__}: {error}") from error
    for name in names.split(","):
        if not hasattr(module, name):
            public = [known for known in vars(module) if not known.startswith("_")]
            raise TargetError(f"{target}: no {name} in {file}, which has {', '.join(public) or 'nothing'}")
    found = tuple(getattr(module, name) for name in names.split(","))
    return found if len(found) > 1 else found[0]


def values(specs: Sequence[str], rng: np.random.Generator) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named values: 5x4 is an array of that shape, 5<10 integers below 10, 0.5 and =3 are numbers.

    A .npy file is an array, a .npz file its arrays by name; NAME=VALUE is named, as in pad=1 or W=4x3.

    Raises:
        TargetError: A value is none of these.
    """
    places: list[Any] = []
    named: dict[str, Any] = {}
    for spec in specs:
        if spec.endswith((".npz", ".npy")):
            try:
                loaded = np.load(spec)
            except (OSError, ValueError) as error:
                raise TargetError(f"{spec}: cannot be read: {error}") from error
            if isinstance(loaded, np.ndarray):
                places.append(loaded)
            else:
                named |= dict(loaded)
            continue
        name, equals, text = spec.rpartition("=")
        value = _value(spec, text, rng, is_number=bool(equals))
        if name:
            named[name] = value
        else:
            places.append(value)
    return places, named


def _value(spec: str, text: str, rng: np.random.Generator, *, is_number: bool) -> Any:
    shape, below, top = text.partition("<")
    try:
        sizes = tuple(int(size) for size in shape.split("x"))
        if below:
            return rng.integers(0, int(top), sizes)
        if is_number and len(sizes) == 1:
            return sizes[0]
        if min(sizes) < 1:
            raise TargetError(f"{spec!r}: a size below 1; a number is written ={spec}")
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
    """Float arrays in a dtype, everything else as it is."""
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
