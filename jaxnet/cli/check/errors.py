"""Rewrites errors about the code and the values of `jaxnet check` in terms of the command line."""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxnet.cli.check.candidates import backward_beside, has_number, takes_array
from jaxnet.cli.check.option_spelling import in_shell
from jaxnet.cli.check.training_networks import labels_lacking
from jaxnet.crosscheck import SubjectError
from jaxnet.crosscheck.inspect.errors import MissingGradientError, MissingInputError
from jaxnet.crosscheck.inspect.partners import values_beside
from jaxnet.crosscheck.inspect.signatures import forward_pass_of, positional, takes_any_number
from jaxnet.crosscheck.shell_values import NAMED
from jaxnet.crosscheck.targets import TargetError

READ_AS_SHAPE = "{0} got {1}, which is read as a shape: ={1} is the number"
NO_BACKWARD = re.compile(r"has forward and no backward\(dout\)|^f: .+, expected a function")
ITEM = re.compile(r"""[{,]\s*['"]?(\w+)['"]?\s*:\s*(\d+)\s*(?=[,}])""")  # of a dict, a single integer


@contextmanager
def in_words_of_the_shell(target: str, subject: Any, init: Sequence[str], inputs: Sequence[str]) -> Iterator[None]:
    """Turns an error about what was passed into one that says how to pass it on the command line.

    Args:
        target: The target of the command.
        subject: What the target names.
        init: The arguments of its constructor, as they are written.
        inputs: Those of its forward pass.

    Raises:
        SubjectError: If the code cannot be checked.
        TargetError: If an input is missing or wrong.
    """
    try:
        yield
    except MissingInputError as error:
        listed = " ".join(f"{name}=shape:SIZES" for name in error.names)
        pass_ = f"add {listed} to --inputs" if inputs else f"pass --inputs {listed}"
        raise TargetError(f"{target}: {error.reason}; {pass_}, such as 5x4") from error
    except MissingGradientError as error:
        pair = in_file_of(target, ",".join(error.pair))
        raise SubjectError(f"{error.reason}; did you mean {pair}?") from error
    except (SubjectError, TargetError) as error:
        if NO_BACKWARD.search(str(error)) and (labels := labels_lacking(subject, len(inputs))):
            raise TargetError(f"{target}: {labels}") from error
        hint = "" if error.__cause__ is None else misread_values(subject, init, inputs) or pair_meant(target, subject)
        raise type(error)(in_shell(str(error), [target]) + hint) from error


def misread_values(subject: Any, init: Sequence[str], inputs: Sequence[str]) -> str:
    """Returns a hint that names values which may have been misread, to be added to an error.

    Args:
        subject: What the target names.
        init: The arguments of its constructor, as they are written.
        inputs: Those of its forward pass.
    """
    forward = forward_pass_of(subject)
    if isinstance(subject, type) and callable(forward):
        forward = partial(forward, None)  # without self
    hints = numbers_read_as_shapes(subject, init, is_init=True) if isinstance(subject, type) else []
    hints += numbers_read_as_shapes(forward, inputs, is_init=False)
    hints += [READ_AS_SHAPE.format(*item) for text in (*init, *inputs) for item in ITEM.findall(text)]
    unnamed = [text for text in inputs if not NAMED.fullmatch(text)]
    takes = positional(forward) if callable(forward) else []
    if takes and len(unnamed) > len(takes) and not takes_any_number(forward):
        meant = f"; did you mean {'x'.join(unnamed)}?" if all(map(str.isdecimal, unnamed)) else ""
        names = ", ".join(parameter.name for parameter in takes)
        hints.append(f"--inputs has {len(unnamed)} values, expected {len(takes)}: {names}{meant}")
    return "".join(f"; {hint}" for hint in hints[:1])


def pair_meant(target: str, subject: Any) -> str:
    """Returns a hint that a pair may be meant, for the error of a function with a backward pass in its module."""
    name = getattr(subject, "__name__", "")
    backward = backward_beside(name, values_beside(subject)) if inspect.isfunction(subject) else ""
    return f"; did you mean {in_file_of(target, name)},{backward}?" if backward and "," not in target else ""


def numbers_read_as_shapes(function: Any, texts: Sequence[str], *, is_init: bool) -> list[str]:
    """Returns a hint for each value that is read as the shape of an array, and may be meant as a number.

    Args:
        function: The function, or the class that is constructed.
        texts: Its arguments, as they are written.
        is_init: Whether it is a class, whose constructor takes sizes wherever a parameter is not named like an array.
    """
    return [
        READ_AS_SHAPE.format(parameter.name, text)
        for parameter, text in zip(positional(function), texts, strict=False)
        if text.isdecimal() and (has_number(parameter) or (is_init and not takes_array(parameter)))
    ]


def in_file_of(target: str, name: str) -> str:
    """Returns the full name of a function that is named alone if it is in the file of a target."""
    return name if ":" in name else f"{target.rpartition(':')[0]}:{name}"
