"""Says in the words of a command line what is wrong with the code and the values that `jaxnet check` was given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxnet.cli.option_spelling import in_shell
from jaxnet.crosscheck import SubjectError
from jaxnet.crosscheck.inspect.errors import MissingGradientError, MissingInputError
from jaxnet.crosscheck.inspect.signatures import forward_pass_of, positional
from jaxnet.crosscheck.targets import TargetError


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
        hint = "" if error.__cause__ is None else numbers_read_as_shapes(subject, init, inputs)
        raise type(error)(in_shell(str(error)) + hint) from error


def numbers_read_as_shapes(subject: Any, init: Sequence[str], inputs: Sequence[str]) -> str:
    """Returns which values of numbers were read as shapes, to be added to the error that they may have caused."""
    functions = [(forward_pass_of(subject), inputs)]
    if isinstance(subject, type):
        method = forward_pass_of(subject)
        functions = [(subject, init), (partial(method, None) if callable(method) else method, inputs)]
    hints = [
        f"; {parameter.name} got {text}, which is read as a shape: ={text} is the number"
        for function, texts in functions
        for parameter, text in zip(positional(function), texts, strict=False)
        if text.isdecimal() and (parameter.annotation in (int, "int") or isinstance(parameter.default, int | float))
    ]
    return "".join(hints[:1])


def in_file_of(target: str, name: str) -> str:
    """Returns the full name of a function that is named alone if it is in the file of a target."""
    return name if ":" in name else f"{target.rpartition(':')[0]}:{name}"
