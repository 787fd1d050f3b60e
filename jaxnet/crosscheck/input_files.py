"""Binds inputs by name, and reads the inputs of a real run from files.

The numbers of a trained network may trigger faults that random numbers miss.
"""

import inspect
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.errors import MissingInputError, SubjectError, describe, kind_of
from jaxnet.crosscheck.inspect.signatures import forward_pass_of, missing_arguments, wrong_call
from jaxnet.crosscheck.keyword_inputs import with_positional_inputs

SUFFIXES = (".npz", ".npy", ".pt")


def read_inputs(
    thing: Any, inputs: tuple[Any, ...], by_name: Mapping[str, Any] | None = None
) -> tuple[Any, tuple[Any, ...]]:
    """Returns code that takes its inputs by position, and these inputs, with the content of files.

    A `.npy` file is an array. The arrays of a `.npz` file are bound by name to the parameters of the forward pass. A
    `.pt` file has a tensor, a list of them, or a dict, which is bound by name; it is read without unpickling objects.

    Raises:
        SubjectError: If a file cannot be read, or the forward pass has no parameter of a name.
    """
    if by_name is not None and not isinstance(by_name, Mapping):
        raise SubjectError(f"named: {kind_of(by_name)}, expected a dict of inputs by the names of parameters")
    if not by_name and not any(isinstance(value, PurePath) for value in inputs):
        return thing, inputs
    positional: list[Any] = []
    named: dict[str, Any] = dict(by_name or {})
    for value in inputs:
        content = read_file(value) if isinstance(value, PurePath) else value
        if isinstance(value, PurePath) and isinstance(content, Mapping):
            named |= content
        elif isinstance(value, PurePath) and isinstance(content, list | tuple):
            positional += content
        else:
            positional.append(content)
    return in_order(thing, positional, named)


def signature_of(thing: Any) -> inspect.Signature:
    """Returns the signature of the forward pass.

    Raises:
        SubjectError: If it has none.
    """
    try:
        return inspect.signature(forward_pass_of(thing))
    except (TypeError, ValueError) as error:
        raise SubjectError("named: the parameters of the forward pass have no names; pass inputs in order") from error


def read_file(path: PurePath | str) -> Any:
    """Returns the array or tensor of a file, or several as a dict or a list.

    Raises:
        SubjectError: If the file cannot be read, or is of another kind.
    """
    name = str(path)
    if not name.endswith(SUFFIXES):
        raise SubjectError(f"{name}: expected a file of arrays: {', '.join(SUFFIXES)}")
    try:
        if name.endswith(".pt"):
            if "torch" not in sys.modules:
                raise SubjectError(f"{name}: a file of PyTorch; import torch first")
            return sys.modules["torch"].load(name, weights_only=True, map_location="cpu")
        loaded = np.load(name)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except SubjectError:
        raise
    except FileNotFoundError:
        raise SubjectError(f"{name}: there is no such file; name a file of arrays: {', '.join(SUFFIXES)}") from None
    except Exception as error:  # numpy and zipfile raise many kinds
        raise SubjectError(f"{name}: cannot be read: {describe(error)}") from error


def in_order(thing: Any, positional: list[Any], named: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Returns positional and named inputs in the order of the forward pass's parameters, and code that takes them so.

    Keyword-only inputs come last, and those that are not passed keep their defaults.

    Raises:
        SubjectError: If the forward pass has no parameter of a name, or one is passed twice.
    """
    if not named:
        return thing, tuple(positional)
    function, signature = forward_pass_of(thing), signature_of(thing)
    try:
        bound = signature.bind(*positional, **named)
    except TypeError as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        message = f"inputs: {name} {wrong_call(function, positional, named)}"
        missing = missing_arguments(function, positional, named)
        if missing and named.keys() <= signature.parameters.keys():  # otherwise one may be the misspelled one
            raise MissingInputError(message, missing) from error
        raise SubjectError(message) from error
    bound.apply_defaults()
    by_keyword = {name: value for name, value in bound.kwargs.items() if name in named}
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    passes_all_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
    code = thing if passes_all_on else with_positional_inputs(thing, [*by_keyword])
    return code, (*bound.args, *by_keyword.values())
