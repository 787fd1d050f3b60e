"""Handwritten digits: those embedded in scikit-learn, and MNIST, downloaded once and verified at every use."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from jaxnet import DISTRIBUTION
from jaxnet.common.outline import outline
from jaxnet.common.regular_files import open_regular
from jaxnet.common.validation import check_positive
from jaxnet.data.download import ProgressBar, PublishedFile, download, reason_of
from jaxnet.data.idx import IMAGES, LABELS, read_idx

MIRRORS = "https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = {  # as published; images before labels, training before test
    "train-images-idx3-ubyte.gz": PublishedFile(
        9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": PublishedFile(
        28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": PublishedFile(
        1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": PublishedFile(
        4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}


class Dataset(NamedTuple):
    """N training and M test samples: D pixels with a class number, or T characters with the next ones."""

    x_train: Float32[np.ndarray, "N D"] | Int32[np.ndarray, "N T"]  # pixels in [0, 1]
    t_train: Int32[np.ndarray, " N"] | Int32[np.ndarray, "N T"]
    x_test: Float32[np.ndarray, "M D"] | Int32[np.ndarray, "M T"]
    t_test: Int32[np.ndarray, " M"] | Int32[np.ndarray, "M T"]

    def __repr__(self) -> str:
        """Returns the shapes of the fields."""
        return outline(self)


class DatasetError(RuntimeError):
    """Raised when data cannot be loaded. Its message is one line with the reason and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


def digits() -> Dataset:
    """Loads 1797 images of 8 by 8 pixels; every fifth image of each class is for testing.

    Reads the file of `sklearn.datasets.load_digits`. Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*,
    UCI, 1998, test set.

    Raises:
        DatasetError: If scikit-learn is not installed, or lacks the file.
    """
    path = sklearn_datasets("digits") / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, np.uint8, delimiter=",")  # (1797, 65): 64 pixels in 0..16, and the class
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({reason_of(error)}); reinstall scikit-learn") from error
    x, t = table[:, :64] / np.float32(16), table[:, 64].astype(np.int32)
    nth = (t[:, None] == np.arange(10)).cumsum(axis=0)[np.arange(len(t)), t]  # 1, 2, ... within the class
    is_test = nth % 5 == 0
    return Dataset(x[~is_test], t[~is_test], x[is_test], t[is_test])


def sklearn_datasets(what: str) -> Path:
    """Returns the folder of scikit-learn's data sets, without importing scikit-learn, which takes seconds.

    Raises:
        DatasetError: If scikit-learn, which `what` needs, is not installed.
    """
    with needs_extra(what):
        if (installed := find_spec("sklearn")) is None:
            raise ModuleNotFoundError("No module named 'sklearn'")
    return Path(*installed.submodule_search_locations or (), "datasets")


def mnist(
    *,
    mirrors: Sequence[str] = MIRRORS,
    files: Mapping[str, PublishedFile] = FILES,
    timeout: float = 10.0,
    mirror_seconds: float = 300.0,
    progress: ProgressBar | None = None,
) -> Dataset:
    """Loads 60,000 training and 10,000 test images of 28 by 28 pixels.

    The files are in `$JAXNET_DATA/mnist`, or in the user's cache folder if JAXNET_DATA is not set. Missing files are
    downloaded. A damaged file in the cache is downloaded again, but one in $JAXNET_DATA is never replaced.
    LeCun, Cortes and Burges, *The MNIST database of handwritten digits*, 1998.

    Args:
        mirrors: URLs that end with a slash, tried in order. Defaults to `MIRRORS`.
        files: Sizes and SHA-256 by file name, in the order of `FILES`, the default. No more bytes are downloaded.
        timeout: Seconds > 0 to wait for a connection, and for the next bytes. Defaults to 10.
        mirror_seconds: Seconds > 0 that each mirror may take in all, before the next one is asked for the files that
            are still missing. Defaults to 300.
        progress: Counts from 0 to `total` once for each file. Defaults to none.

    Raises:
        ValueError: If `timeout` or `mirror_seconds` is not > 0.
        DatasetError: If the files cannot be downloaded, read or written, or have other checksums.
    """
    check_positive("timeout", timeout)
    check_positive("mirror_seconds", mirror_seconds)
    user_folder = os.environ.get("JAXNET_DATA")
    folder = (Path(user_folder).expanduser() if user_folder else _cache()) / "mnist"
    try:
        actual = {name: _sha256(folder / name) for name in files}
        wanted = {name: file for name, file in files.items() if actual[name] != file.sha256}
        for name, file in wanted.items():
            if user_folder and actual[name]:
                raise DatasetError(
                    f"{folder / name}: SHA-256 {actual[name]}, expected {file.sha256}; "
                    "move it away to have it downloaded, or set JAXNET_DATA to another folder"
                )
        if wanted:
            with needs_extra("downloading MNIST"):
                download(wanted, folder, mirrors, timeout=timeout, mirror_seconds=mirror_seconds, progress=progress)
        x_train, t_train, x_test, t_test = (folder / name for name in files)
        return Dataset(*_labelled_images(x_train, t_train), *_labelled_images(x_test, t_test))
    except OSError as error:
        raise DatasetError(
            f"MNIST could not be loaded ({reason_of(error)}): use the digits instead (--dataset digits), "
            f"or put {', '.join(files)} into {folder}, or set JAXNET_DATA to a folder that has them in mnist/"
        ) from error


def load_mnist(
    normalize: bool = True, one_hot_label: bool = True
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns (x_train, t_train), (x_test, t_test) of `mnist`, with the signature that the notebook uses.

    Args:
        normalize: Whether x is float32 in [0, 1] (N, 784) instead of uint8 in 0..255. Defaults to True.
        one_hot_label: Whether t is float32 one-hot rows (N, 10) instead of int32 class numbers (N,). Defaults to True.

    Raises:
        DatasetError: As for `mnist`.
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
    with needs_extra("MNIST without JAXNET_DATA"):
        import platformdirs
    return platformdirs.user_cache_path("jaxnet")


def _sha256(path: Path) -> str | None:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@contextmanager
def needs_extra(user: str) -> Iterator[None]:
    """Raises DatasetError with the command to install the extra, if the block imports a package that is missing."""
    try:
        yield
    except ImportError as error:
        raise DatasetError(f'{user} needs the extra ({error}): pip install "{DISTRIBUTION}[train]"') from error
