"""Opens files that have an end: pipes and devices would block, or never end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Opens a file for reading bytes.

    Raises:
        OSError: If it cannot be opened, or is no regular file, such as a pipe or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened, as opening a pipe waits for its writer
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return path.open("rb")
