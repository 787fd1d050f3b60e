"""Tests the data sets. MNIST comes from local servers, each with one fault, none of which may damage the cache."""

import contextlib
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
import platformdirs
import pytest
import requests  # noqa: F401  # nothing can be imported after the test process becomes the user nobody
from sklearn.datasets import load_digits

from jaxnet.cli.datasets import ReceivedBytes
from jaxnet.data import datasets
from jaxnet.data.datasets import Dataset, DatasetError, digits, load_mnist, mnist
from jaxnet.data.download import PublishedFile

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix users and limits")


def idx(magic: int, shape: tuple[int, ...], values: bytes) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + values, mtime=0)


def published(files: Mapping[str, bytes]) -> dict[str, PublishedFile]:
    return {name: PublishedFile(len(body), sha256(body).hexdigest()) for name, body in files.items()}


# Three training and two test images of 2 rows and 3 columns.
FILES = {
    "train-images-idx3-ubyte.gz": idx(2051, (3, 2, 3), bytes([0, 51, 255, 1, 2, 3, *range(100, 112)])),
    "train-labels-idx1-ubyte.gz": idx(2049, (3,), bytes([9, 0, 5])),
    "t10k-images-idx3-ubyte.gz": idx(2051, (2, 2, 3), bytes(range(200, 212))),
    "t10k-labels-idx1-ubyte.gz": idx(2049, (2,), bytes([7, 1])),
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
PIXELS = [[[0, 51, 255, 1, 2, 3], range(100, 106), range(106, 112)], [range(200, 206), range(206, 212)]]
CLASSES = [[9, 0, 5], [7, 1]]


def assert_equals_expected_data(data: Dataset) -> None:
    for x, pixels in zip((data.x_train, data.x_test), PIXELS, strict=True):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, np.array([[p / 255 for p in image] for image in pixels], np.float32))
    for t, classes in zip((data.t_train, data.t_test), CLASSES, strict=True):
        assert t.dtype == np.int32
        np.testing.assert_array_equal(t, classes)


def assert_contains(folder: Path, names: Any, files: Mapping[str, bytes] = FILES) -> None:
    """Checks that the folder contains exactly these files, byte for byte."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
    assert contents == {name: files[name] for name in names}


# ------------------------------------------------------------------------------------------------ servers


class Request(BaseHTTPRequestHandler):
    server: "Mirror"

    def do_GET(self) -> None:
        name = self.path.removeprefix("/mnist/")
        self.server.requested.append(name)
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
        self.requested: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"


def intact(request: Request, body: bytes) -> None:
    request.answer(body)


def cut_short(request: Request, body: bytes) -> None:
    request.answer(body[:-5], length=len(body))


def changed(request: Request, body: bytes) -> None:
    request.answer(body[:-1] + bytes([body[-1] ^ 1]))


def closed_early(request: Request, body: bytes) -> None:
    request.send_response(200)  # without a length: the body ends with the connection
    request.end_headers()
    request.wfile.write(body[:20])


def too_long(request: Request, body: bytes) -> None:
    request.answer(body + b"more")


def send_until_closed(request: Request, data: bytes, pause: float = 0.0) -> None:
    """Sends the data again and again, until either side closes the connection."""
    with contextlib.suppress(ConnectionError):
        while not request.server.closing.wait(pause):
            request.wfile.write(data)


def endless(request: Request, body: bytes) -> None:
    request.send_response(200)
    request.end_headers()
    send_until_closed(request, b"x" * 10_000)


def dripping(request: Request, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    send_until_closed(request, b"x", pause=0.1)


def dripping_headers(request: Request, body: bytes) -> None:
    request.send_response(200)
    request.flush_headers()
    send_until_closed(request, b"x", pause=0.1)


BOMB = gzip.compress(bytes(10**6), mtime=0) * 500  # half a megabyte that decompresses to 500 MB


def compressed(request: Request, body: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(BOMB)))
        request.end_headers()
        request.wfile.write(BOMB)


def redirect(request: Request, location: str) -> None:
    request.send_response(302)
    request.send_header("Location", location)
    request.end_headers()


def compressed_redirect(request: Request, body: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        request.send_response(302)
        request.send_header("Location", request.path)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(BOMB)))
        request.end_headers()
        request.wfile.write(BOMB)


def redirected_in_circles(request: Request, body: bytes) -> None:
    redirect(request, request.path)


def redirected_with_an_endless_body(request: Request, body: bytes) -> None:
    redirect(request, request.path)
    send_until_closed(request, body)


def redirected_to_a_file(request: Request, body: bytes) -> None:
    redirect(request, "file:///etc/hostname")


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


FAILING_MIRRORS = {  # with the reason in the error message
    cut_short: r"IncompleteRead\(.*\)",
    closed_early: r"train-images-idx3-ubyte.gz ended after 20 bytes, expected \d+",
    changed: r"train-images-idx3-ubyte.gz has SHA-256 \w{64}, expected \w{64}",
    login_page: r"27 bytes announced, expected \d+, for \S+",
    too_long: r"\d+ bytes announced, expected \d+, for \S+",
    endless: r"train-images-idx3-ubyte.gz has SHA-256 \w{64}, expected \w{64}",
    compressed: r"\d+ bytes announced, expected \d+, for \S+",
    not_found: r"HTTP status 404, expected 200, for \S+",
    redirected_in_circles: "more than 5 redirects",
    redirected_with_an_endless_body: "more than 5 redirects",
    redirected_to_a_file: "No connection adapters were found for 'file:///etc/hostname'",
    dripping: "train-images-idx3-ubyte.gz is not complete, and the 0.5 s that a mirror may take in all are over",
    dripping_headers: "train-images-idx3-ubyte.gz is not complete, and the 0.5 s that .* are over",
    stalled: "timed out",
    silent: "timed out",
    not_http: ".*220 mail ready.*",
    down: r"\[Errno \d+\] Connection refused",
}
WAITS_LIKE_ANOTHER = dripping_headers, silent  # half a second each
each_failing_mirror = pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(*item, id=item[0].__name__, marks=[pytest.mark.slow] * (item[0] in WAITS_LIKE_ANOTHER))
        for item in FAILING_MIRRORS.items()
    ],
)

Serve = Callable[..., Mirror]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[tuple[Mirror, threading.Thread]] = []

    def start(reply: Reply = intact, files: Mapping[str, bytes] = FILES) -> Mirror:
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
    """Returns the cache folder that is used if JAXNET_DATA is not set; it does not exist yet."""
    monkeypatch.delenv("JAXNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))  # macOS
    folder = platformdirs.user_cache_path("jaxnet") / "mnist"
    assert folder.is_relative_to(tmp_path)
    return folder


@pytest.fixture
def users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Returns the folder of MNIST that the user has chosen with JAXNET_DATA; it does not exist yet."""
    monkeypatch.setenv("JAXNET_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "mnist"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)


def fetch(*mirrors: Mirror, files: Mapping[str, bytes] = FILES, **options: Any) -> Dataset:
    urls = [mirror.url for mirror in mirrors]
    return mnist(mirrors=urls, files=published(files), **options)


def limits_for(reply: Reply) -> dict[str, float]:
    """Returns seconds: few only for a server that never ends, so that tests also pass on a busy machine."""
    timeout = 0.5 if reply in (stalled, silent) else 5.0
    return {"timeout": timeout, "mirror_seconds": 0.5 if reply in (dripping, dripping_headers) else 30.0}


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(DatasetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------ fetching


def test_mnist_is_downloaded_once(serve: Serve, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mirror = serve()
    assert_equals_expected_data(fetch(mirror))
    assert_equals_expected_data(fetch(mirror))
    assert mirror.requested == list(FILES)
    assert_contains(cache, FILES)
    assert capfd.readouterr() == ("", "")


@each_failing_mirror
def test_failing_mirrors_raise_a_one_line_error(serve: Serve, cache: Path, reply: Reply, reason: str) -> None:
    mirrors = serve(reply), serve(down)
    message = error_of(lambda: fetch(*mirrors, **limits_for(reply)))
    first, second = (mirror.url for mirror in mirrors)
    assert re.search(rf"loaded \({first}: {reason}; {second}: {FAILING_MIRRORS[down]}\): use", message)
    for help_ in ("--dataset digits", *FILES, str(cache), "JAXNET_DATA"):
        assert help_ in message
    assert_contains(cache, [])


@each_failing_mirror
def test_the_second_mirror_is_used_if_the_first_fails(serve: Serve, cache: Path, reply: Reply, reason: str) -> None:
    working = serve()
    assert_equals_expected_data(fetch(serve(reply), working, **limits_for(reply)))
    assert working.requested == list(FILES)
    assert_contains(cache, FILES)


def test_a_redirected_file_is_downloaded(serve: Serve, cache: Path) -> None:
    working = serve()
    elsewhere = serve(lambda request, body: redirect(request, working.url + request.path.rpartition("/")[2]))
    assert_equals_expected_data(fetch(elsewhere))
    assert working.requested == elsewhere.requested == list(FILES)


def test_files_are_requested_uncompressed(serve: Serve, cache: Path) -> None:
    encodings = []

    def note_the_encoding(request: Request, body: bytes) -> None:
        encodings.append(request.headers["Accept-Encoding"])
        request.answer(body)

    fetch(serve(note_the_encoding))
    assert encodings == ["identity"] * len(FILES)


def test_a_mirror_has_its_time_for_all_files_together(serve: Serve, cache: Path) -> None:
    def slow(request: Request, body: bytes) -> None:
        request.server.closing.wait(0.3)
        request.answer(body)

    working = serve()
    assert_equals_expected_data(fetch(serve(slow), working, mirror_seconds=0.8))  # four times 0.3 s are more
    assert TEST_LABELS in working.requested


@pytest.mark.parametrize("name", ["timeout", "mirror_seconds"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "10"])
def test_seconds_that_are_not_positive_are_refused(serve: Serve, cache: Path, name: str, seconds: Any) -> None:
    mirror = serve()
    with pytest.raises(ValueError, match=f"^{name}: .*, expected a finite number > 0"):
        fetch(mirror, **{name: seconds})
    assert mirror.requested == []


LOAD_LARGE = """
import resource, sys
import requests
from jaxnet.data import DatasetError, mnist
from jaxnet.data.datasets import FILES
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = {name: file._replace(size=int(sys.argv[2])) for name, file in FILES.items()}
try:
    mnist(mirrors=[sys.argv[1]], files=files)
except DatasetError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@unix
@pytest.mark.parametrize(("reply", "reason"), [(compressed, "has SHA-256"), (compressed_redirect, "5 redirects")])
def test_compressed_answers_are_not_decompressed(serve: Serve, cache: Path, reply: Reply, reason: str) -> None:
    command = [sys.executable, "-c", LOAD_LARGE, serve(reply).url, str(len(BOMB))]
    peak, _, message = subprocess.check_output(command, text=True).partition(" ")
    assert reason in message
    assert int(peak) * (1 if sys.platform == "darwin" else 1024) < 50e6  # decompressed, it has 500 MB
    assert_contains(cache, [])


def half_intact(request: Request, body: bytes) -> None:
    (intact if "train" in request.path else cut_short)(request, body)


def test_intact_files_from_a_failing_mirror_are_kept(serve: Serve, cache: Path) -> None:
    error_of(lambda: fetch(serve(half_intact)))
    assert_contains(cache, [TRAIN_IMAGES, TRAIN_LABELS])
    working = serve()
    assert_equals_expected_data(fetch(serve(half_intact), working))
    assert working.requested == [TEST_IMAGES, TEST_LABELS]
    assert_contains(cache, FILES)


def test_damaged_cached_files_are_downloaded_again(serve: Serve, cache: Path) -> None:
    write_files(cache, FILES | {TEST_IMAGES: FILES[TEST_IMAGES][:-1], TEST_LABELS: b""})
    mirror = serve()
    assert_equals_expected_data(fetch(mirror))
    assert mirror.requested == [TEST_IMAGES, TEST_LABELS]
    assert_contains(cache, FILES)


def test_files_in_the_users_folder_are_read_without_downloading_anything(
    serve: Serve, users_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(users_folder, FILES)
    mirror = serve()
    for package in ("platformdirs", "requests"):
        monkeypatch.setitem(sys.modules, package, None)  # not installed
    assert_equals_expected_data(fetch(mirror))
    assert mirror.requested == []


def test_files_missing_from_the_users_folder_are_downloaded(serve: Serve, users_folder: Path) -> None:
    write_files(users_folder, {TRAIN_IMAGES: FILES[TRAIN_IMAGES]})
    mirror = serve()
    assert_equals_expected_data(fetch(mirror))
    assert mirror.requested == [TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
    assert_contains(users_folder, FILES)


def test_a_damaged_file_in_the_users_folder_is_reported_and_not_replaced(serve: Serve, users_folder: Path) -> None:
    files = {TRAIN_LABELS: FILES[TRAIN_LABELS], TEST_LABELS: b"precious"}
    write_files(users_folder, files)
    mirror = serve()
    message = error_of(lambda: fetch(mirror))
    assert f"{users_folder / TEST_LABELS}: SHA-256 {sha256(b'precious').hexdigest()}" in message
    assert f"expected {sha256(FILES[TEST_LABELS]).hexdigest()}; move it away" in message
    assert mirror.requested == []
    assert_contains(users_folder, files, files)


LOAD_MNIST = """
import sys
from jaxnet.data import mnist
from jaxnet.data.download import PublishedFile
print([name for name in ("jax", "platformdirs", "requests", "sklearn") if name in sys.modules])
words = sys.argv[2:]
files = {name: PublishedFile(int(size), sha256) for name, size, sha256 in zip(words[::3], words[1::3], words[2::3])}
data = mnist(mirrors=[sys.argv[1]], files=files)
print(data.t_train.tolist(), data.t_test.tolist())
"""


@pytest.mark.slow
def test_two_processes_may_download_at_the_same_time(serve: Serve, cache: Path) -> None:
    barrier = threading.Barrier(2, timeout=5)

    def wait_for_both_requests(request: Request, body: bytes) -> None:
        if TRAIN_IMAGES in request.path:
            barrier.wait()
        request.answer(body)

    mirror = serve(wait_for_both_requests)
    sums = [str(word) for name, file in published(FILES).items() for word in (name, *file)]
    command = [sys.executable, "-W", "error", "-c", LOAD_MNIST, mirror.url, *sums]
    running = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    assert [process.communicate() for process in running] == [("[]\n[9, 0, 5] [7, 1]\n", "")] * 2
    assert mirror.requested.count(TRAIN_IMAGES) == 2
    assert_contains(cache, FILES)


class Bar:
    def __init__(self) -> None:
        self.total, self.count, self.closed = 0, 0, list[tuple[int, int]]()

    def update(self, n: int) -> None:
        self.count += n
        assert self.count <= self.total

    def reset(self) -> None:
        self.count = 0

    def close(self) -> None:
        self.closed.append((self.count, self.total))


def test_progress_bars_count_every_byte(serve: Serve, cache: Path) -> None:
    files = FILES | {TEST_IMAGES: idx(2051, (2, 50, 50), np.random.default_rng(0).bytes(5000))}
    bar = Bar()
    fetch(serve(half_intact, files), serve(intact, files), files=files, progress=bar)
    assert bar.closed == [(len(body), len(body)) for body in files.values()]


def test_the_progress_of_a_command_tells_megabytes_from_the_first_download_on(serve: Serve, cache: Path) -> None:
    files = FILES | {TEST_IMAGES: idx(2051, (2, 1000, 1250), np.random.default_rng(0).bytes(2_500_000))}
    texts = []

    class Recorded(ReceivedBytes):
        def update(self, size: int) -> None:
            super().update(size)
            texts.append(self.text())

    received = Recorded("mnist")
    assert received.text() == "loading mnist"
    fetch(serve(intact, files), files=files, progress=received)
    whole = f"{len(files[TEST_IMAGES]) / 1e6:.1f} MB"
    assert [text for text in texts if whole in text][-1] == f"downloading mnist: 2.5 of {whole}"
    assert len({text for text in texts if whole in text}) > 10  # 0.1, 0.2, ...


def test_an_interrupted_download_leaves_no_files(serve: Serve, cache: Path) -> None:
    class Interrupted(Bar):
        def update(self, n: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(serve(), progress=Interrupted())
    assert_contains(cache, [])


# ------------------------------------------------------------------------------------------------ folders


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields a read-only folder. Root could write to it, so root becomes the user nobody.

    The folder is not below tmp_path, which only its owner may enter.
    """
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "mnist"
        write_files(folder, FILES)
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
def test_a_read_only_folder_is_read_and_a_missing_file_is_an_error(serve: Serve, read_only: Path) -> None:
    mirror = serve()
    assert_equals_expected_data(fetch(mirror))
    missing = FILES | {"t10k-labels-idx1-ubyte": b""}
    del missing[TEST_LABELS]
    message = error_of(lambda: fetch(mirror, files=missing))
    assert re.search(rf"could not be loaded \(.*Permission denied: '{read_only}", message)
    assert mirror.requested == []
    assert_contains(read_only, FILES)


def test_a_cache_folder_that_cannot_be_created_is_an_error(serve: Serve, cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("no folder")
    message = error_of(lambda: fetch(serve(), serve()))
    assert re.search(rf"could not be loaded \(.*Not a directory: '{cache}", message)
    assert "--dataset digits" in message
    assert cache.parent.read_text() == "no folder"


@unix
def test_a_full_disk_is_reported_without_trying_another_mirror(serve: Serve, cache: Path) -> None:
    import resource

    mirror = serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        message = error_of(lambda: fetch(mirror, mirror))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be loaded ([Errno 27] File too large" in message
    assert mirror.requested == [TRAIN_IMAGES]  # another mirror does not help
    assert_contains(cache, [])


# ------------------------------------------------------------------------------------------------ the format


FAULTY_FILES = {
    "no gzip": (TRAIN_IMAGES, b"no gzip at all", "Not a gzipped file (b'no')"),
    "gzip cut short": (TEST_IMAGES, FILES[TEST_IMAGES][:-9], "ended before the end"),
    "gzip damaged": (TEST_IMAGES, FILES[TEST_IMAGES][:10] + b"\xff" * 20, "invalid block"),
    "empty file": (TRAIN_LABELS, b"", "0 bytes, expected at least the 8 of"),
    "short header": (TRAIN_IMAGES, idx(2051, (3, 2), b""), "12 bytes, expected at least the 16 of"),
    "labels as images": (TRAIN_IMAGES, idx(2049, (9,), bytes(9)), "magic number 2049, expected 2051"),
    "images as labels": (TEST_LABELS, idx(2051, (2, 1, 1), bytes(2)), "magic number 2051, expected 2049"),
    "too short": (
        TRAIN_IMAGES,
        idx(2051, (3, 2, 3), bytes(17)),
        "only 17 bytes after the header, expected 18",
    ),
    "too long": (TEST_LABELS, idx(2049, (2,), bytes(3)), "more bytes after the header, expected 2 for [2]"),
    "no images": (TRAIN_IMAGES, idx(2051, (0, 2, 3), b""), "sizes [0, 2, 3], expected at least 1"),
    "label 10": (TRAIN_LABELS, idx(2049, (3,), bytes([9, 10, 0])), "label 10, expected 0 to 9"),
    "counts differ": (TRAIN_IMAGES, idx(2051, (2, 2, 3), bytes(12)), "2 images, expected 3, as many as"),
}


@pytest.mark.parametrize(("name", "body", "fault"), FAULTY_FILES.values(), ids=FAULTY_FILES)
def test_a_malformed_file_with_the_right_checksum_is_reported_by_name(
    serve: Serve, cache: Path, name: str, body: bytes, fault: str
) -> None:
    files = FILES | {name: body}
    message = error_of(lambda: fetch(serve(intact, files), files=files))
    assert message.startswith(f"{cache / name}: ")
    assert fault in message
    assert_contains(cache, files, files)


# ------------------------------------------------------------------------------------------------ data sets


def test_every_fifth_digit_of_each_class_is_held_out() -> None:
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
    for c in range(10):  # the fifth, the tenth, ... are held out, and the order is kept
        of_class = pixels[labels == c]
        np.testing.assert_array_equal(16 * data.x_test[data.t_test == c], of_class[4::5])
        np.testing.assert_array_equal(16 * data.x_train[data.t_train == c], np.delete(of_class, np.s_[4::5], axis=0))


def test_a_missing_digits_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = ModuleSpec("sklearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(datasets, "find_spec", lambda _: spec)
    assert "digits.csv.gz: cannot be read (" in error_of(digits)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_load_mnist_returns_the_books_formats(
    monkeypatch: pytest.MonkeyPatch, normalize: bool, one_hot_label: bool
) -> None:
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


def test_a_missing_package_is_reported_with_the_extra_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("platformdirs", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    for dataset in (digits, mnist):
        assert error_of(dataset).endswith('pip install "jaxnet-crosscheck[train]"')


def test_a_multiline_error_becomes_one_line() -> None:
    assert str(DatasetError("an import failed\nand said so at length")) == "an import failed and said so at length"


@pytest.mark.slow
@pytest.mark.skipif("JAXNET_DATA" not in os.environ, reason="JAXNET_DATA is not set: no MNIST files to read")
def test_the_published_files_have_the_published_statistics() -> None:
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
