"""Keeps two processes from writing one folder: a lock that the system releases when its process dies."""

import importlib.util
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jaxnet.common.cleanup import cleanup


def can_lock() -> bool:
    """Returns whether the system has `flock`."""
    return importlib.util.find_spec("fcntl") is not None


def lock_of(folder: Path) -> Path:
    """Returns the file that locks a folder."""
    return folder.absolute().with_name(f".{folder.absolute().name}.lock")


@contextmanager
def locked(option: str, folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which need not exist yet and which an option names, during the block.

    The lock is a file beside the folder, `.NAME.lock`, which is removed in the end, or by the next who holds it. On
    systems without `flock`, such as Windows, the function does nothing.

    Raises:
        ValueError: If another process holds it, or no file can be written there.
    """
    if not can_lock():
        yield
        return
    import fcntl

    path = lock_of(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 1000).decode(errors="replace").strip() or "another process"
                os.close(file)
                message = (
                    f"{option}: {folder} is in use by {holder}; wait until it ends, stop it, or name another folder"
                )
                raise ValueError(message) from None
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                break
            os.close(file)  # its last holder removed it after this process had opened it
    except OSError as error:
        raise ValueError(f"{option}: {folder} cannot be written ({error.strerror}); name another folder") from error
    try:
        with cleanup(partial(path.unlink, missing_ok=True)):  # while it is held, so that nobody else has it by then
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
    finally:
        os.close(file)
