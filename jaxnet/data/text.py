"""A text as numbers: its vocabulary, and the windows that a character model learns from."""

from importlib import metadata
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32
from numpy.lib.stride_tricks import sliding_window_view

from jaxnet.data.datasets import DISTRIBUTION, Dataset, DatasetError

HELD_OUT = 0.1  # of the text, its end
WINDOWS = 2000  # to train on at least, which overlap where the text is too short for so many


def read_text(path: Path | None = None) -> str:
    """The text in a UTF-8 file; this project's own README unless one is named.

    The README lies beside the package in a checkout, and in the metadata of an installed one.

    Raises:
        DatasetError: It cannot be read, or is not there.
    """
    root = Path(__file__).parents[2]
    own = (root / "README.md") if (root / "pyproject.toml").exists() else None
    try:
        if path or own:
            return (path or own or root).read_text(encoding="utf-8")
        return (metadata.distribution(DISTRIBUTION).read_text("METADATA") or "").partition("\n\n")[
            2
        ]  # behind its headers
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path or own}: cannot be read as UTF-8 text ({error}); name another file") from error
    except metadata.PackageNotFoundError:
        raise DatasetError("the README is neither beside jaxnet nor in its metadata; name a text of yours") from None


def vocabulary_of(text: str) -> str:
    """Each of its characters once, sorted; a character's place here is its id."""
    return "".join(sorted(set(text)))


def encode(text: str, vocabulary: str) -> Int32[np.ndarray, " T"]:
    """The id of each character.

    Raises:
        ValueError: A character is not in the vocabulary.
    """
    ids = {character: i for i, character in enumerate(vocabulary)}
    if unknown := set(text) - set(ids):
        raise ValueError(f"text: {sorted(unknown)[0]!r} is not in the vocabulary, {vocabulary!r}")
    return np.array([ids[character] for character in text], np.int32)


def decode(ids: Int[np.ndarray, " T"], vocabulary: str) -> str:
    """The text that has these ids."""
    return "".join(vocabulary[i] for i in ids)


def windows(text: str, vocabulary: str, length: int) -> Dataset:
    """x (N, length) and what comes next at each position, t (N, length): the end of the text is held out for testing.

    Raises:
        ValueError: The text is too short for a window in each part, or has characters outside of the vocabulary.
    """
    ids = encode(text, vocabulary)
    begin = len(ids) - max(int(HELD_OUT * len(ids)), length + 1)
    if length < 1 or begin <= length:
        raise ValueError(f"text: {len(ids)} characters, expected at least {2 * length + 2}, for windows of {length}")
    stride = min(max(1, begin // WINDOWS), length)
    train, test = (
        sliding_window_view(part, length + 1)[::step] for part, step in ((ids[:begin], stride), (ids[begin:], length))
    )
    return Dataset(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:])
