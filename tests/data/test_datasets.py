"""MNIST is fetched from real servers on this machine, each with one fault; whatever happens, the cache stays whole."""

import gzip
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import requests  # noqa: F401  # once root has become nobody, nothing more can be imported
from sklearn.datasets import load_digits

from jaxnet.data import datasets
from jaxnet.data.datasets import Dataset, DatasetError, digits, load_mnist, mnist

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix users and limits")


def idx(magic: int, shape: tuple[int, ...], values: bytes) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + values, mtime=0)


def checksums_of(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256(body).hexdigest() for name, body in files.items()}


# Three images and two, of 2 rows and 3 columns.
FILES = {
    "train-images-idx3-ubyte.gz": idx(2051, (3, 2, 3), bytes([0, 51, 255, 1, 2, 3, *range(100, 112)])),
    "train-labels-idx1-ubyte.gz": idx(2049, (3,), bytes([9, 0, 5])),
    "t10k-images-idx3-ubyte.gz": idx(2051, (2, 2, 3), bytes(range(200, 212))),
    "t10k-labels-idx1-ubyte.gz": idx(2049, (2,), bytes([7, 1])),
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
PIXELS = [[[0, 51, 255, 1, 2, 3], range(100, 106), range(106, 112)], [range(200, 206), range(206, 212)]]
CLASSES = [[9, 0, 5], [7, 1]]


def assert_is_the_data(data: Dataset) -> None:
    for x, pixels in zip((data.x_train, data.x_test), PIXELS, strict=True):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, np.array([[p / 255 for p in image] for image in pixels], np.float32))
    for t, classes in zip((data.t_train, data.t_test), CLASSES, strict=True):
        assert t.dtype == np.int32
        np.testing.assert_array_equal(t, classes)


def assert_whole(folder: Path, names: Any, files: Mapping[str, bytes] = FILES) -> None:
    """The folder holds these files, byte for byte, and nothing else."""
    there = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
    assert there == {name: files[name] for name in names}


# ------------------------------------------------------------------------------------------------ servers


class Request(BaseHTTPRequestHandler):
    server: "Mirror"

    def do_GET(self) -> None:
        name = self.path.removeprefix("/mnist/")
        self.server.asked.append(name)
        self.server.reply(self, self.server.files[name])

    def answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


Reply = Callable[[Request, bytes], None]


class Mirror(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, reply: Reply, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.reply, self.files = reply, files
        self.asked: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"


def whole(request: Request, body: bytes) -> None:
    request.answer(body)


def cut_short(request: Request, body: bytes) -> None:
    request.answer(body[:-5], length=len(body))


def changed(request: Request, body: bytes) -> None:
    request.answer(body[:-1] + bytes([body[-1] ^ 1]))


def login_page(request: Request, body: bytes) -> None:
    request.answer(b"<html>Please log in.</html>")


def not_found(request: Request, body: bytes) -> None:
    request.send_error(404)


def stalled(request: Request, body: bytes) -> None:
    request.answer(body[:20], length=len(body))
    request.server.closing.wait(5)


def silent(request: Request, body: bytes) -> None:
    request.server.closing.wait(5)


def not_http(request: Request, body: bytes) -> None:
    request.wfile.write(b"220 mail ready\r\n\r\n")


def down(request: Request, body: bytes) -> None:
    raise AssertionError("a server that is down was reached")


BAD_MIRRORS = {  # and what is said of each
    cut_short: r"IncompleteRead\(.*\)",
    changed: r"SHA256 hash of .* does not match the known hash: expected \w{64} but got \w{64}",
    login_page: r"SHA256 hash of .* does not match the known hash: expected \w{64} but got \w{64}",
    not_found: r"404 Client Error: Not Found for url: \S+",
    stalled: "timed out",
    silent: "timed out",
    not_http: ".*220 mail ready.*",
    down: r"\[Errno \d+\] Connection refused",
}
bad_mirrors = pytest.mark.parametrize(
    ("reply", "reason"), BAD_MIRRORS.items(), ids=[reply.__name__ for reply in BAD_MIRRORS]
)

Serve = Callable[..., Mirror]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[tuple[Mirror, threading.Thread]] = []

    def start(reply: Reply = whole, files: Mapping[str, bytes] = FILES) -> Mirror:
        mirror = Mirror(reply, files)
        if reply is down:
            mirror.server_close()
        else:
            thread = threading.Thread(target=mirror.serve_forever, args=(0.01,))
            thread.start()
            running.append((mirror, thread))
        return mirror

    yield start
    for mirror, thread in running:
        mirror.closing.set()
        mirror.shutdown()
        thread.join()
        mirror.server_close()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where MNIST goes when JAXNET_DATA is not set; not made yet."""
    monkeypatch.delenv("JAXNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))  # macOS
    folder = Path(pooch.os_cache("jaxnet")) / "mnist"
    assert folder.is_relative_to(tmp_path)
    return folder


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where MNIST is when the user has set JAXNET_DATA; not made yet."""
    monkeypatch.setenv("JAXNET_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "mnist"


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)


def fetch(*mirrors: Mirror, files: Mapping[str, bytes] = FILES, **options: Any) -> Dataset:
    urls = [mirror.url for mirror in mirrors]
    return mnist(mirrors=urls, checksums=checksums_of(files), **options)


def patience(reply: Reply) -> float:
    """Seconds: short only where the server is sure to say nothing, so that a busy machine changes no verdict."""
    return 0.5 if reply in (stalled, silent) else 5.0


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(DatasetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------ fetching


def test_fetched_once_then_used(serve: Serve, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mirror = serve()
    assert_is_the_data(fetch(mirror))
    assert_is_the_data(fetch(mirror))
    assert mirror.asked == list(FILES)
    assert_whole(cache, FILES)
    assert capfd.readouterr() == ("", "")


@bad_mirrors
def test_bad_mirrors_are_one_line(serve: Serve, cache: Path, reply: Reply, reason: str) -> None:
    mirrors = serve(reply), serve(down)
    message = error_of(lambda: fetch(*mirrors, timeout=patience(reply)))
    first, second = (mirror.url for mirror in mirrors)
    assert re.search(rf"loaded \({first}: {reason}; {second}: {BAD_MIRRORS[down]}\): use", message)
    for help_ in ("--dataset digits", *FILES, str(cache), "JAXNET_DATA"):
        assert help_ in message
    assert_whole(cache, [])


@bad_mirrors
def test_second_mirror_recovers(serve: Serve, cache: Path, reply: Reply, reason: str) -> None:
    good = serve()
    assert_is_the_data(fetch(serve(reply), good, timeout=patience(reply)))
    assert good.asked == list(FILES)
    assert_whole(cache, FILES)


def half_good(request: Request, body: bytes) -> None:
    (whole if "train" in request.path else cut_short)(request, body)


def test_what_a_bad_mirror_delivered_is_kept(serve: Serve, cache: Path) -> None:
    error_of(lambda: fetch(serve(half_good)))
    assert_whole(cache, [TRAIN_IMAGES, TRAIN_LABELS])
    good = serve()
    assert_is_the_data(fetch(serve(half_good), good))
    assert good.asked == [TEST_IMAGES, TEST_LABELS]
    assert_whole(cache, FILES)


def test_damaged_cache_recovers(serve: Serve, cache: Path) -> None:
    put(cache, FILES | {TEST_IMAGES: FILES[TEST_IMAGES][:-1], TEST_LABELS: b""})
    mirror = serve()
    assert_is_the_data(fetch(mirror))
    assert mirror.asked == [TEST_IMAGES, TEST_LABELS]
    assert_whole(cache, FILES)


def test_the_users_files_are_used(serve: Serve, named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(named, FILES)
    mirror = serve()
    monkeypatch.setitem(sys.modules, "pooch", None)  # not installed
    assert_is_the_data(fetch(mirror))
    assert mirror.asked == []


def test_the_users_missing_files_are_fetched(serve: Serve, named: Path) -> None:
    put(named, {TRAIN_IMAGES: FILES[TRAIN_IMAGES]})
    mirror = serve()
    assert_is_the_data(fetch(mirror))
    assert mirror.asked == [TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
    assert_whole(named, FILES)


def test_the_users_damaged_file_is_left_alone(serve: Serve, named: Path) -> None:
    files = {TRAIN_LABELS: FILES[TRAIN_LABELS], TEST_LABELS: b"precious"}
    put(named, files)
    mirror = serve()
    message = error_of(lambda: fetch(mirror))
    assert f"{named / TEST_LABELS}: SHA-256 {sha256(b'precious').hexdigest()}" in message
    assert f"expected {sha256(FILES[TEST_LABELS]).hexdigest()}; move it away" in message
    assert mirror.asked == []
    assert_whole(named, files, files)


TWO_AT_ONCE = """
import sys
from jaxnet.data import mnist
print([name for name in ("jax", "pooch", "requests", "sklearn") if name in sys.modules])
data = mnist(mirrors=[sys.argv[1]], checksums=dict(zip(sys.argv[2::2], sys.argv[3::2])))
print(data.t_train.tolist(), data.t_test.tolist())
"""


def test_two_processes_at_once(serve: Serve, cache: Path) -> None:
    both = threading.Barrier(2, timeout=5)

    def when_both_ask(request: Request, body: bytes) -> None:
        if TRAIN_IMAGES in request.path:
            both.wait()
        request.answer(body)

    mirror = serve(when_both_ask)
    sums = [word for pair in checksums_of(FILES).items() for word in pair]
    command = [sys.executable, "-W", "error", "-c", TWO_AT_ONCE, mirror.url, *sums]
    running = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    assert [process.communicate() for process in running] == [("[]\n[9, 0, 5] [7, 1]\n", "")] * 2
    assert mirror.asked.count(TRAIN_IMAGES) == 2
    assert_whole(cache, FILES)


class Bar:
    def __init__(self) -> None:
        self.total, self.count, self.closed = 0, 0, list[tuple[int, int]]()

    def update(self, n: int) -> None:
        self.count += n
        assert self.count < self.total + 1024  # pooch counts whole chunks of 1024 bytes

    def reset(self) -> None:
        self.count = 0

    def close(self) -> None:
        self.closed.append((self.count, self.total))


def test_progress(serve: Serve, cache: Path) -> None:
    files = FILES | {TEST_IMAGES: idx(2051, (2, 50, 50), np.random.default_rng(0).bytes(5000))}
    bar = Bar()
    fetch(serve(half_good, files), serve(whole, files), files=files, progress=bar)
    assert bar.closed == [(len(body), len(body)) for body in files.values()]


def test_interrupted(serve: Serve, cache: Path) -> None:
    class Interrupted(Bar):
        def update(self, n: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(serve(), progress=Interrupted())
    assert_whole(cache, [])


# ------------------------------------------------------------------------------------------------ folders


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A read-only folder; root, whom that does not stop, becomes nobody.

    Not below tmp_path, which only its owner may enter.
    """
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "mnist"
        put(folder, FILES)
        monkeypatch.setenv("JAXNET_DATA", top)
        user = os.geteuid()
        for path in (folder, Path(top)):
            path.chmod(0o555)
        try:
            if user == 0:
                os.seteuid(65534)
            yield folder
        finally:
            os.seteuid(user)
            for path in (Path(top), folder):
                path.chmod(0o755)


@unix
def test_read_only_folder(serve: Serve, read_only: Path) -> None:
    mirror = serve()
    assert_is_the_data(fetch(mirror))
    missing = FILES | {"t10k-labels-idx1-ubyte": b""}
    del missing[TEST_LABELS]
    message = error_of(lambda: fetch(mirror, files=missing))
    assert re.search(rf"could not be loaded \(.*Permission denied: '{read_only}", message)
    assert mirror.asked == []
    assert_whole(read_only, FILES)


def test_cache_below_a_file(serve: Serve, cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("no folder")
    message = error_of(lambda: fetch(serve(), serve()))
    assert re.search(rf"could not be loaded \(.*Not a directory: '{cache}", message)
    assert "--dataset digits" in message
    assert cache.parent.read_text() == "no folder"


@unix
def test_full_disk(serve: Serve, cache: Path) -> None:
    import resource

    mirror = serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        message = error_of(lambda: fetch(mirror, mirror))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be loaded ([Errno 27] File too large" in message
    assert mirror.asked == [TRAIN_IMAGES]  # another mirror does not help
    assert_whole(cache, [])


# ------------------------------------------------------------------------------------------------ the format


FAULTY_FILES = {
    "no gzip": (TRAIN_IMAGES, b"no gzip at all", "Not a gzipped file (b'no')"),
    "gzip cut short": (TEST_IMAGES, FILES[TEST_IMAGES][:-9], "ended before the end"),
    "gzip damaged": (TEST_IMAGES, FILES[TEST_IMAGES][:10] + b"\xff" * 20, "invalid block"),
    "empty file": (TRAIN_LABELS, b"", "0 bytes, expected at least the 8 of"),
    "short header": (TRAIN_IMAGES, idx(2051, (3, 2), b""), "12 bytes, expected at least the 16 of"),
    "labels as images": (TRAIN_IMAGES, idx(2049, (9,), bytes(9)), "magic number 2049, expected 2051"),
    "images as labels": (TEST_LABELS, idx(2051, (2, 1, 1), bytes(2)), "magic number 2051, expected 2049"),
    "too short": (TRAIN_IMAGES, idx(2051, (3, 2, 3), bytes(17)), "33 bytes, expected 16 + 18 for [3, 2, 3]"),
    "too long": (TEST_LABELS, idx(2049, (2,), bytes(3)), "11 bytes, expected 8 + 2 for [2]"),
    "no images": (TRAIN_IMAGES, idx(2051, (0, 2, 3), b""), "sizes [0, 2, 3], expected at least 1"),
    "label 10": (TRAIN_LABELS, idx(2049, (3,), bytes([9, 10, 0])), "label 10, expected 0 to 9"),
    "counts differ": (TRAIN_IMAGES, idx(2051, (2, 2, 3), bytes(12)), "2 images, expected 3, as many as"),
}


@pytest.mark.parametrize(("name", "body", "fault"), FAULTY_FILES.values(), ids=FAULTY_FILES)
def test_faulty_file_with_its_own_checksum(serve: Serve, cache: Path, name: str, body: bytes, fault: str) -> None:
    files = FILES | {name: body}
    message = error_of(lambda: fetch(serve(whole, files), files=files))
    assert message.startswith(f"{cache / name}: ")
    assert fault in message
    assert_whole(cache, files, files)


# ------------------------------------------------------------------------------------------------ what one gets


def test_digits() -> None:
    data = digits()
    assert [(a.shape, a.dtype) for a in data] == [
        ((1442, 64), np.float32),
        ((1442,), np.int32),
        ((355, 64), np.float32),
        ((355,), np.int32),
    ]
    # UCI, Optical Recognition of Handwritten Digits, class labels of the testing set:
    # https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
    published = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    held_out = np.bincount(data.t_test)
    np.testing.assert_array_equal(np.bincount(data.t_train) + held_out, published)
    assert np.abs(held_out - published / 5).max() < 1
    pixels, labels = load_digits(return_X_y=True)
    x, t = np.concatenate((data.x_train, data.x_test)), np.concatenate((data.t_train, data.t_test))
    assert sorted(zip(t, (x * 16).tolist(), strict=True)) == sorted(zip(labels, pixels.tolist(), strict=True))
    for c in range(10):  # in their order, the fifth, the tenth, ... apart
        of_class = pixels[labels == c]
        np.testing.assert_array_equal(16 * data.x_test[data.t_test == c], of_class[4::5])
        np.testing.assert_array_equal(16 * data.x_train[data.t_train == c], np.delete(of_class, np.s_[4::5], axis=0))


def test_digits_that_are_not_where_they_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = ModuleSpec("sklearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(datasets, "find_spec", lambda _: spec)
    assert "digits.csv.gz: cannot be read (" in error_of(digits)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_load_mnist(monkeypatch: pytest.MonkeyPatch, normalize: bool, one_hot_label: bool) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(2, 128)
    x, t = grey.astype(np.float32) / 255, np.array([3, 0], np.int32)
    data = Dataset(x, t, x[:1], t[:1])
    monkeypatch.setattr(datasets, "mnist", lambda: data)
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize, one_hot_label)
    x = x if normalize else grey
    t = np.array([[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], [1, *[0] * 9]], np.float32) if one_hot_label else t
    for got, expected in ((x_train, x), (t_train, t), (x_test, x[:1]), (t_test, t[:1])):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_extra_is_not_installed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pooch", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    for dataset in (digits, mnist):
        assert error_of(dataset).endswith('pip install "jaxnet-crosscheck[train]"')


def test_error_is_one_line() -> None:
    assert str(DatasetError("an import failed\nand said so at length")) == "an import failed and said so at length"


@pytest.mark.skipif("JAXNET_DATA" not in os.environ, reason="JAXNET_DATA is not set: no MNIST files to read")
def test_the_real_files() -> None:
    data = mnist(mirrors=())
    assert [(a.shape, a.dtype) for a in data] == [
        ((60000, 784), np.float32),
        ((60000,), np.int32),
        ((10000, 784), np.float32),
        ((10000,), np.int32),
    ]
    assert all((x.min(), x.max()) == (0, 1) for x in (data.x_train, data.x_test))
    # The mean that PyTorch's examples/mnist/main.py normalizes by.
    assert data.x_train.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    # The example in the docstring of MNIST in PyTorch Lightning's tests/helpers/datasets.py.
    assert np.bincount(data.t_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
