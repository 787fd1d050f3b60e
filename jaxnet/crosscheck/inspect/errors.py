"""Defines the errors for code that cannot be checked, and words for exceptions, types, names and counts."""

import difflib
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class SubjectError(TypeError):
    """The code that was passed in cannot be checked; the message says what was found and what was expected."""


class MissingInputError(SubjectError):
    """The forward pass needs inputs that were not passed.

    Args:
        reason: What the forward pass takes.
        names: The names of the missing inputs.
    """

    def __init__(self, reason: str, names: Sequence[str]) -> None:
        super().__init__(f"{reason}; pass {' and '.join(names)}, as an array or a shape")
        self.reason, self.names = reason, names


class CostError(SubjectError):
    """A network's backward starts from a cost, and it is not certain from which; the message says how to pass it."""


class MissingGradientError(SubjectError):
    """A function cannot be differentiated, but there is a backward pass beside it.

    Args:
        reason: Why it cannot be differentiated.
        pair: The names of the function and of the backward pass.
    """

    def __init__(self, reason: str, pair: tuple[str, str]) -> None:
        super().__init__(f"{reason}; did you mean the pair ({', '.join(pair)})?")
        self.reason, self.pair = reason, pair


def without_exit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that raises a RuntimeError where code prints what is wrong and calls `exit()`."""

    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except SystemExit as error:
            raise RuntimeError(f"exit({'' if error.code is None else error.code})") from error

    return run


@contextmanager
def as_subject_error(name: str) -> Iterator[None]:
    """Turns an exception in the user's code into a SubjectError that names the code.

    Args:
        name: The name of the code, for the message.

    Raises:
        SubjectError: If the block raises.
    """
    try:
        yield
    except SubjectError:
        raise
    except (Exception, SystemExit) as error:
        raise SubjectError(f"{name}: raised {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Returns the type and message of an exception, and the file and line of the user's code that raised it.

    A frame of an installed library is named only if no frame is in the user's own files.

    Examples:
        >>> describe(ValueError("shapes (2,) (3,)"))
        'ValueError: shapes (2,) (3,)'
    """
    message = str(error).strip()
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    outside = [place for place in frames if not place[0].startswith((PACKAGE, "<frozen", "<__array_function__"))]
    own = [place for place in outside if not place[0].startswith(LIBRARIES)] or outside
    if not own:
        return text
    file, line = own[-1]
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    return f"{text} ({file if relative.startswith(os.pardir) else relative}:{line})"


def kind_of(value: Any) -> str:
    """Returns the type of a value with its article.

    Examples:
        >>> kind_of(3), kind_of("x"), kind_of(None)
        ('an int', 'a str', 'None')
    """
    name = type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" or name == "ndarray" else "a"
    return "None" if value is None else f"{article} {name}"


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun: "1 input", "2 inputs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns a question with the name that is nearest to a misspelled one, or "" if none is near.

    Examples:
        >>> did_you_mean("chekc", ["train", "check"]), did_you_mean("w", ["x", "W"])
        ('did you mean check?', 'did you mean W?')
    """
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"did you mean {by_lower[near[0]]}?" if near else ""
