"""Keeps compiled programs between processes, and uses none that is damaged.

JAX writes and reads the entries of its cache as they are: one flipped bit may change results or end the process. So an
entry is stored under a name that has its digest. A process works in a folder of its own, with links to the stored
entries whose digests are right, and stores new entries when it ends, by renaming. Processes do not disturb each other.
"""

import atexit
import hashlib
import importlib
import os
import re
import secrets
import shutil
import warnings
import zlib
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jaxnet.common.cleanup import cleanup

MAX_BYTES = 200 * 2**20  # of stored entries, which every process reads to verify them; the oldest are removed
STORED = re.compile(r"(?P<entry>.+-cache)\.(?P<digest>[0-9a-f]{32})")
IN_USE = re.compile(r"in-use-(?P<process>\d+)-[0-9a-f]+")


def use_program_cache(store: Path) -> None:
    """Lets JAX keep programs that took over 0.1 s to compile. Without a folder that can be written, it keeps none."""
    import jax

    config: Any = jax.config
    try:
        folder = folder_of_this_process(store)
    except OSError:
        return
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)  # e.g. full
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    config.update("jax_persistent_cache_enable_xla_caches", "none")  # they would make the folder part of every key
    removal = ExitStack()
    removal.enter_context(cleanup(partial(shutil.rmtree, folder, ignore_errors=True)))  # if a signal ends the process
    atexit.register(removal.close)
    atexit.register(store_entries, folder, store)  # functions registered last are called first


def folder_of_this_process(store: Path) -> Path:
    """Makes a folder for JAX's cache, with links to the stored entries that are undamaged; removes the others.

    Raises:
        OSError: If it cannot be made.
    """
    store.mkdir(parents=True, exist_ok=True)
    for path in store.iterdir():
        if (match := IN_USE.fullmatch(path.name)) and not _is_running(int(match["process"])):
            shutil.rmtree(path, ignore_errors=True)
    folder = store / f"in-use-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    for path in store.iterdir():
        if match := STORED.fullmatch(path.name):
            with suppress(OSError):  # another process removed it meanwhile
                if digest_of(path) == match["digest"]:
                    _link(path, folder / match["entry"])
                else:
                    path.unlink()
    return folder


def store_entries(folder: Path, store: Path) -> None:
    """Moves the complete new entries of a folder to the store, and keeps the store small."""
    with suppress(OSError):  # the next process compiles again
        stored = {match["entry"] for path in store.iterdir() if (match := STORED.fullmatch(path.name))}
        for path in folder.glob("*-cache"):
            if path.name not in stored and is_complete(path.read_bytes()):
                path.rename(store / f"{path.name}.{digest_of(path)}")
        _remove_oldest(store)


def digest_of(path: Path) -> str:
    """Returns 32 hexadecimal digits that another content would not have."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def is_complete(entry: bytes) -> bool:
    """Returns whether an entry, which JAX compresses with zlib or zstandard, can be decompressed to its end."""
    with suppress(zlib.error):
        zlib.decompress(entry)
        return True
    for name in ("compression.zstd", "zstandard"):
        with suppress(Exception):  # the module is missing, or its own error
            module = importlib.import_module(name)
            decompress = getattr(module, "decompress", None) or module.ZstdDecompressor().decompress
            decompress(entry)
            return True
    return False


def _link(path: Path, new: Path) -> None:
    try:
        new.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, new)


def _remove_oldest(store: Path) -> None:
    stored = [path for path in store.iterdir() if STORED.fullmatch(path.name)]
    paths = sorted(stored, key=lambda path: path.stat().st_mtime)
    excess = sum(path.stat().st_size for path in paths) - MAX_BYTES
    for path in paths:
        if excess <= 0:
            return
        excess -= path.stat().st_size
        path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
