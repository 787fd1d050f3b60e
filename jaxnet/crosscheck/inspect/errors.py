"""Errors for code that cannot be checked."""

from collections.abc import Iterator
from contextlib import contextmanager


class SubjectError(TypeError):
    """The code that was passed in cannot be checked; the message says what was found and what was expected."""


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
    except Exception as error:
        raise SubjectError(f"{name}: raised {type(error).__name__}: {error}") from error
