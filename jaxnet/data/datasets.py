"""Handwritten digits as arrays: the ones that scikit-learn embeds, and MNIST, fetched once and checked at every use.

pooch, requests and scikit-learn come with the extra `train`; each is imported only where it is needed.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Int32

from jaxnet.data.idx import IMAGES, LABELS, read_idx

DISTRIBUTION = "jaxnet-crosscheck"  # what pip installs; jaxnet is another project there
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
CHECKSUMS = {  # SHA-256 of the files as published; images before labels, training before test
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


class Dataset(NamedTuple):
    """N samples to train on and M to test on: D pixels in a row and a class number; or T characters, and the next."""

    x_train: Float32[np.ndarray, "N D"] | Int32[np.ndarray, "N T"]  # pixels in [0, 1]
    t_train: Int32[np.ndarray, " N"] | Int32[np.ndarray, "N T"]
    x_test: Float32[np.ndarray, "M D"] | Int32[np.ndarray, "M T"]
    t_test: Int32[np.ndarray, " M"] | Int32[np.ndarray, "M T"]


class DatasetError(RuntimeError):
    """One line: what happened, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class ProgressBar(Protocol):
    """What pooch asks of a progress bar; counts are bytes of one file.

    Source: https://www.fatiando.org/pooch/latest/progressbars.html
    """

    total: Any

    def update(self, n: int, /) -> object: ...  # noqa: D102
    def reset(self) -> object: ...  # noqa: D102
    def close(self) -> object: ...  # noqa: D102


def digits() -> Dataset:
    """1797 images of 8 by 8 pixels; every fifth one of every class is held out for testing.

    What `sklearn.datasets.load_digits` reads, without the seconds that importing scikit-learn takes.

    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI, 1998: its test set.

    Raises:
        DatasetError: scikit-learn is not installed, or is without the file.
    """
    with _extra("digits"):
        if (installed := find_spec("sklearn")) is None:
            raise ModuleNotFoundError("No module named 'sklearn'")
    path = Path(*installed.submodule_search_locations or (), "datasets", "data", "digits.csv.gz")
    try:
        table = np.loadtxt(path, np.uint8, delimiter=",")  # (1797, 65): 64 pixels in 0..16, and the class
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({_reason(error)}); install another scikit-learn") from error
    x, t = table[:, :64] / np.float32(16), table[:, 64].astype(np.int32)
    nth = (t[:, None] == np.arange(10)).cumsum(axis=0)[np.arange(len(t)), t]  # 1, 2, ... in its class
    held_out = nth % 5 == 0
    return Dataset(x[~held_out], t[~held_out], x[held_out], t[held_out])


def mnist(
    *,
    mirrors: Sequence[str] = MIRRORS,
    checksums: Mapping[str, str] = CHECKSUMS,
    timeout: float = 10.0,
    progress: ProgressBar | None = None,
) -> Dataset:
    """60,000 and 10,000 images of 28 by 28 pixels, from `$JAXNET_DATA/mnist` or else the user's cache.

    Files that are there are used, missing ones fetched. A damaged file in the cache is fetched again; one in a
    folder that JAXNET_DATA names is the user's, and is never replaced.

    Source: Y. LeCun, C. Cortes and C. J. C. Burges, *The MNIST database of handwritten digits*, 1998.

    Args:
        mirrors: URLs ending in a slash, tried in order.
        checksums: SHA-256 by file name, in the order of `CHECKSUMS`.
        timeout: Seconds that a server may stay silent.
        progress: Runs from 0 to `total` once for each file.

    Raises:
        DatasetError: The files cannot be fetched, read or written, or are not what they should be.
    """
    named = os.environ.get("JAXNET_DATA")
    folder = (Path(named).expanduser() if named else _cache()) / "mnist"
    try:
        found = {name: _sha256(folder / name) for name in checksums}
        wanted = {name: checksum for name, checksum in checksums.items() if found[name] != checksum}
        for name, checksum in wanted.items():
            if named and found[name]:
                raise DatasetError(
                    f"{folder / name}: SHA-256 {found[name]}, expected {checksum}; "
                    "move it away to have it fetched, or set JAXNET_DATA to another folder"
                )
        if wanted:
            _fetch(wanted, folder, mirrors, timeout, progress)
        x_train, t_train, x_test, t_test = (folder / name for name in checksums)
        return Dataset(*_labelled_images(x_train, t_train), *_labelled_images(x_test, t_test))
    except OSError as error:
        raise DatasetError(
            f"MNIST could not be loaded ({_reason(error)}): use the digits instead (--dataset digits), "
            f"or put {', '.join(checksums)} into {folder}, or set JAXNET_DATA to a folder that has them in mnist/"
        ) from error


def load_mnist(
    normalize: bool = True, one_hot_label: bool = True
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(x_train, t_train), (x_test, t_test) of `mnist`, as the notebook calls for them.

    Args:
        normalize: x is float32 in [0, 1] (N, 784); otherwise uint8 in 0..255.
        one_hot_label: t is float32 one-hot rows (N, 10); otherwise int32 class numbers (N,).

    Raises:
        DatasetError: As `mnist`.
    """
    x_train, t_train, x_test, t_test = mnist()
    if not normalize:
        x_train, x_test = (np.rint(x * 255).astype(np.uint8) for x in (x_train, x_test))
    if one_hot_label:
        t_train, t_test = (np.eye(10, dtype=np.float32)[t] for t in (t_train, t_test))
    return (x_train, t_train), (x_test, t_test)


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits, "mnist": mnist}


def _labelled_images(images: Path, labels: Path) -> tuple[Float32[np.ndarray, "N D"], Int32[np.ndarray, " N"]]:
    try:
        x, t = read_idx(images, IMAGES), read_idx(labels, LABELS)
    except ValueError as error:
        raise DatasetError(str(error)) from error
    if len(x) != len(t):
        raise DatasetError(f"{images}: {len(x)} images, expected {len(t)}, as many as labels in {labels.name}")
    if t.max() > 9:
        raise DatasetError(f"{labels}: label {t.max()}, expected 0 to 9")
    return np.divide(x.reshape(len(x), -1), 255, dtype=np.float32), t.astype(np.int32)


def _cache() -> Path:
    with _extra("MNIST, where JAXNET_DATA is not set,"):
        import pooch
    return Path(pooch.os_cache("jaxnet"))


def _fetch(
    checksums: Mapping[str, str], folder: Path, mirrors: Sequence[str], timeout: float, progress: ProgressBar | None
) -> None:
    """Every file from the first mirror that delivers; the next one is asked only for what the last could not deliver.

    Raises:
        ConnectionError: No mirror delivered; the reason of each.
        OSError: The folder cannot be written to.
    """
    with _extra("fetching MNIST"):
        import pooch
        import requests
    pooch.get_logger().setLevel("WARNING")  # it announces every attempt; progress and errors are reported here
    download = pooch.HTTPDownloader(progressbar=progress or False, timeout=timeout)
    failures = []
    for mirror in mirrors:
        try:
            for name, checksum in checksums.items():
                if progress is not None:
                    progress.reset()  # pooch leaves it where the last file, or a failure, left it
                pooch.retrieve(mirror + name, checksum, name, folder, downloader=download)
            return
        except (requests.RequestException, ValueError) as error:  # pooch's ValueError: another checksum
            failures.append(f"{mirror}: {_reason(error)}")
    raise ConnectionError("; ".join(failures))


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _reason(error: BaseException) -> str:
    """The innermost cause: requests wraps urllib3, which wraps the socket's own error."""
    if error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition(". Deleted download")[0]  # where pooch's advice begins


@contextmanager
def _extra(user: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DatasetError(f'{user} needs more ({error}): pip install "{DISTRIBUTION}[train]"') from error
