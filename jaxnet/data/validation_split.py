"""Splits validation data off the training data, so that the test data need not be looked at before the end."""

import numpy as np

from jaxnet.data.datasets import Dataset


def split_validation(data: Dataset, share: float, seed: int, ordered: bool = False) -> Dataset:
    """Returns a part of the training samples as training data, and the rest in the place of the test data.

    Args:
        data: The data, of which the test samples are left out.
        share: Share of the training samples for validation, in (0, 1).
        seed: Seed of the samples that are drawn.
        ordered: Whether the samples are windows (N, T) of a text in its order. Then the last ones are taken, and the T
            before them are left out: they may share characters with them. Defaults to False.

    Raises:
        ValueError: If no sample would remain in one of the parts.

    Example:
        >>> data = split_validation(jaxnet.data.digits(), 0.1, seed=0)
        >>> len(data.x_train), len(data.x_test)
        (1298, 144)
    """
    x, t, count = data.x_train, data.t_train, len(data.x_train)
    rows, held_out, gap = np.arange(count), round(share * count), 0
    if ordered:
        gap = x.shape[1]
    else:
        rows = np.random.default_rng(seed).permutation(count)
    if held_out < 1 or count - held_out - gap < 1:
        raise ValueError(f"validation: {share} of {count} training samples, expected at least one in each part")
    train, validation = np.sort(rows[: count - held_out - gap]), np.sort(rows[count - held_out :])
    return Dataset(x[train], t[train], x[validation], t[validation])
