"""Text as numbers: a vocabulary of characters, and windows for training a character model."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32
from numpy.lib.stride_tricks import sliding_window_view

from jaxnet.common.regular_files import open_regular
from jaxnet.data.datasets import Dataset, DatasetError, sklearn_datasets

TEST_SHARE = 0.1  # of the text, at its end
CHUNK = 2**20  # characters that are encoded at a time, so that a long text needs little memory
MIN_WINDOWS = 2000  # for training; they overlap if the text is too short for as many


def read_text(path: Path | None = None) -> str:
    """Reads a UTF-8 file.

    Args:
        path: The file. Defaults to the descriptions of scikit-learn's data sets, 43,000 characters of English.

    Raises:
        DatasetError: If the text does not exist or cannot be read.
    """
    try:
        if path is not None:
            with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
                return file.read()
        descriptions = sorted((sklearn_datasets("a transformer without --text") / "descr").glob("*.rst"))
        return "\n".join(description.read_text(encoding="utf-8") for description in descriptions)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as UTF-8 text ({error}); name another file") from error


def vocabulary_of(text: str) -> str:
    """Returns the characters of a text, sorted; the id of a character is its index."""
    return "".join(sorted(set(text)))


def encode(text: str, vocabulary: str) -> Int32[np.ndarray, " T"]:
    """Returns the id of each character.

    Raises:
        ValueError: If a character is not in the vocabulary.
    """
    if unknown := set(text) - set(vocabulary):
        raise ValueError(f"text: {sorted(unknown)[0]!r} is not in the vocabulary, {vocabulary!r}")
    table = np.zeros(max(map(ord, vocabulary), default=0) + 1, np.int32)  # the id of each code point
    table[_code_points(vocabulary)] = np.arange(len(vocabulary))
    ids = np.empty(len(text), np.int32)
    for start in range(0, len(text), CHUNK):
        ids[start : start + CHUNK] = table[_code_points(text[start : start + CHUNK])]
    return ids


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def decode(ids: Int[np.ndarray, " T"], vocabulary: str) -> str:
    """Returns the text with these ids."""
    return "".join(vocabulary[i] for i in ids)


def windows(text: str, vocabulary: str, length: int) -> Dataset:
    """Returns windows of ids x (N, length), and the next id at each position t (N, length).

    Args:
        text: The text, whose last tenth is for testing.
        vocabulary: Its characters, as from `vocabulary_of`.
        length: Characters in a window, >= 1.

    Raises:
        ValueError: If the text is too short for a window in each part, or has characters outside of the vocabulary.

    Example:
        >>> data = windows("abcabcabcabc", "abc", length=3)
        >>> data.x_train[0], data.t_train[0]
        (array([0, 1, 2], dtype=int32), array([1, 2, 0], dtype=int32))
    """
    ids = encode(text, vocabulary)
    train_length = len(ids) - max(int(TEST_SHARE * len(ids)), length + 1)
    if length < 1 or train_length <= length:
        raise ValueError(f"text: {len(ids)} characters, expected at least {2 * length + 2}, for windows of {length}")
    stride = min(max(1, train_length // MIN_WINDOWS), length)
    train, test = (
        sliding_window_view(part, length + 1)[::step]
        for part, step in ((ids[:train_length], stride), (ids[train_length:], length))
    )
    return Dataset(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:])
