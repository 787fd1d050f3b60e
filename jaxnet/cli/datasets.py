"""Loads the data set that a command names, and shows on a terminal how much of it was downloaded."""

from jaxnet.common.progress_line import progress_line
from jaxnet.data import DATASETS, Dataset, mnist


class ReceivedBytes:
    """Counts the bytes of a file that is downloaded, as a progress bar of `mnist`.

    Args:
        name: The name of the data set.
    """

    def __init__(self, name: str) -> None:
        self.name, self.received, self.total = name, 0, 0

    def update(self, size: int) -> None:
        """Counts further bytes."""
        self.received += size

    def reset(self) -> None:
        """Starts to count again, for another file."""
        self.received = 0

    def close(self) -> None:
        """Ends the count of a file."""

    def text(self) -> str:
        """Returns what is done, with the megabytes of the present file if there is one to download."""
        if not self.total:
            return f"loading {self.name}"
        return f"downloading {self.name}: {self.received / 1e6:.1f} of {self.total / 1e6:.1f} MB"


def load_dataset(name: str) -> Dataset:
    """Returns the data set of a name in `DATASETS`, with a progress line if it takes long.

    Raises:
        DatasetError: If it cannot be loaded.
    """
    received = ReceivedBytes(name)
    with progress_line(received.text):
        return mnist(progress=received) if name == "mnist" else DATASETS[name]()
