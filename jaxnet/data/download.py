"""Downloads published files, whose sizes and checksums are known, from the first mirror that has them.

Whatever a mirror answers, it takes no more than its time, and no more bytes than the files have: answers are read as
they are sent, without decompression, and no redirect is read but for its address.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urljoin

from jaxnet.common.cleanup import temporary_folder

MAX_REDIRECTS = 5
CHUNK = 1024  # bytes read at a time
MAX_REASON = 300  # characters: the status line of an answer may have 65536

ProgressBar = Any  # with total, update, reset and close, such as `tqdm.tqdm`


class PublishedFile(NamedTuple):
    """The size in bytes and the SHA-256 of a file, as published."""

    size: int
    sha256: str


class _MirrorError(Exception):
    """Raised when a mirror fails to send a file."""


class _Mirror(NamedTuple):
    """A mirror that was given some seconds to send all missing files."""

    url: str
    timeout: float
    seconds: float
    deadline: float  # of `time.monotonic`


def download(
    files: Mapping[str, PublishedFile],
    folder: Path,
    mirrors: Sequence[str],
    *,
    timeout: float,
    mirror_seconds: float,
    progress: ProgressBar | None = None,
) -> None:
    """Downloads files. Those that the first mirror fails to send are requested from the next one.

    Args:
        files: What was published, by file name.
        folder: Folder for the files, which is made if it does not exist. Each appears there once it is verified.
        mirrors: URLs that end with a slash, tried in order.
        timeout: Seconds to wait for a connection, and for the next bytes.
        mirror_seconds: Seconds that each mirror may take in all.
        progress: Counts from 0 to `total` once for each file. Defaults to none.

    Raises:
        ConnectionError: If no mirror has them all. The message tells the reason of each.
        OSError: If a file cannot be written.
        ImportError: If requests is not installed.
    """
    import requests  # noqa: F401  # imported here, so that its absence is not taken for a failure of a mirror

    failures, missing = [], dict(files)
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(".download-", folder) as temporary:
        for url in mirrors:
            mirror = _Mirror(url, timeout, mirror_seconds, time.monotonic() + mirror_seconds)
            try:
                for name in [*missing]:
                    _write(mirror, name, missing[name], temporary / name, progress)
                    (temporary / name).replace(folder / name)
                    del missing[name]
                return
            except _MirrorError as error:
                failures.append(f"{url}: {error}")
    raise ConnectionError("; ".join(failures))


def _write(mirror: _Mirror, name: str, file: PublishedFile, path: Path, progress: ProgressBar | None) -> None:
    """Writes a file as a mirror sends it, and verifies its size and checksum."""
    digest, received = hashlib.sha256(), 0
    if progress is not None:
        progress.total = file.size
        progress.reset()
    with path.open("wb") as out:
        for chunk in _receive(mirror, name, file.size):
            out.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            if progress is not None:
                progress.update(len(chunk))
    if received != file.size:
        raise _MirrorError(f"{name} ended after {received:,} bytes, expected {file.size:,}")
    if digest.hexdigest() != file.sha256:
        raise _MirrorError(f"{name} has SHA-256 {digest.hexdigest()}, expected {file.sha256}")
    if progress is not None:
        progress.close()


def _receive(mirror: _Mirror, name: str, size: int) -> Iterator[bytes]:
    """Yields the bytes of a file as they arrive, at most `size`.

    They are read in a thread, which can be left behind: a socket's timeout starts anew with every byte, and nothing
    limits the time to look up a name or to read headers.
    """
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()
    abandoned = threading.Event()

    def read() -> None:
        try:
            for chunk in _read(mirror.url + name, size, mirror.timeout):
                answers.put(chunk)
                if abandoned.is_set():
                    return
            answers.put(b"")
        except Exception as error:  # whatever an answer provokes is that mirror's failure
            answers.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while answer := answers.get(timeout=max(0, mirror.deadline - time.monotonic())):
            if isinstance(answer, Exception):
                raise _MirrorError(reason_of(answer)[:MAX_REASON]) from answer
            yield answer
    except Empty:
        raise _MirrorError(
            f"{name} is not complete, and the {mirror.seconds:g} s that a mirror may take in all are over"
        ) from None
    finally:
        abandoned.set()


def _read(url: str, size: int, timeout: float) -> Iterator[bytes]:
    """Yields the bytes of an answer as they are sent, at most `size`, after at most MAX_REDIRECTS redirects."""
    import requests

    with requests.Session() as session:
        for _ in range(MAX_REDIRECTS + 1):
            request = session.prepare_request(requests.Request("GET", url, headers={"Accept-Encoding": "identity"}))
            settings: Any = session.merge_environment_settings(url, {}, True, None, None)  # proxies and certificates
            # By its adapter, because a session reads the whole body of every redirect, and decompresses it.
            response = session.get_adapter(url).send(request, timeout=timeout, **settings)
            try:
                if response.is_redirect:
                    url = urljoin(url, response.headers["Location"])
                    continue
                yield from _body(response, size)
                return
            finally:
                response.close()
    raise _MirrorError(f"more than {MAX_REDIRECTS} redirects")


def _body(response: Any, size: int) -> Iterator[bytes]:
    if response.status_code != 200:
        raise _MirrorError(f"HTTP status {response.status_code}, expected 200, for {response.url}")
    length = response.headers.get("Content-Length", str(size))
    if length != str(size):
        raise _MirrorError(f"{length[:20]} bytes announced, expected {size}, for {response.url}")
    while size and (chunk := response.raw.read(min(CHUNK, size), decode_content=False)):
        yield chunk
        size -= len(chunk)


def reason_of(error: BaseException) -> str:
    """Returns the message of the innermost cause: requests wraps urllib3, which wraps the socket's error."""
    if error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
