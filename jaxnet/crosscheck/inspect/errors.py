"""Errors for what cannot be checked."""

from collections.abc import Iterator
from contextlib import contextmanager


class SubjectError(TypeError):
    """What was brought cannot be checked; the message says what was found and what was expected."""


@contextmanager
def blaming(who: str) -> Iterator[None]:
    """Turns an exception in somebody's code into one that says whose code it was.

    Raises:
        SubjectError: The block raised.
    """
    try:
        yield
    except SubjectError:
        raise
    except Exception as error:
        raise SubjectError(f"{who}: raised {type(error).__name__}: {error}") from error
