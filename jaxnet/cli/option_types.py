"""Types of options that several commands have: each has its usual value where it is not given."""

from pathlib import Path
from typing import Annotated, Any

import tyro


def usual(metavar: str) -> Any:
    """In the help of an option that has its usual value where none is given: not that this is None to begin with."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Whole = Annotated[int | None, usual("INT")]
Wholes = Annotated[tuple[int, ...] | None, usual("INT [INT ...]")]
Number = Annotated[float | None, usual("FLOAT")]
Word = Annotated[str | None, usual("STR")]
File = Annotated[Path | None, usual("PATH")]


def check_seed(seed: int) -> None:
    """A seed must be one that JAX's keys and NumPy's generators take alike.

    Raises:
        ValueError: It is not.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed}, expected a whole number from 0 to 2^32 - 1")
