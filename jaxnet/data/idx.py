"""Reads the IDX format of the MNIST files: a magic number, the size of each dimension, the values row by row."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxnet.common.regular_files import open_regular

MAX_BYTES = 2**30  # of an array: those of MNIST have 47 million
IMAGES, LABELS = 0x0803, 0x0801  # 2051, 2049: 08 for unsigned bytes, and the number of dimensions


def read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """Reads the array in a gzipped IDX file of unsigned bytes (LeCun, Cortes and Burges, *The MNIST database*).

    Raises:
        ValueError: If the file is not gzipped, is truncated, has another magic number or length, or is empty.
        OSError: If the file cannot be read.
    """
    try:
        with open_regular(path) as file, gzip.GzipFile(fileobj=file) as unpacked:
            return _read_array(path, unpacked, magic)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}; expected a complete gzip file") from error


def _read_array(path: Path, file: gzip.GzipFile, magic: int) -> UInt8[np.ndarray, "..."]:
    """Reads no more than the header says, so that a small file cannot fill the memory."""
    size = 4 + 4 * (magic % 256)
    header = file.read(size)
    if len(header) < size:
        raise ValueError(f"{path}: {len(header)} bytes, expected at least the {size} of an IDX header")
    actual, *shape = struct.unpack(f">{size // 4}I", header)
    if actual != magic:
        raise ValueError(f"{path}: magic number {actual}, expected {magic}")
    if 0 in shape or math.prod(shape) > MAX_BYTES:
        raise ValueError(f"{path}: sizes {shape}, expected at least 1 each, and a product of at most {MAX_BYTES}")
    content = file.read(math.prod(shape))
    if len(content) < math.prod(shape) or file.read(1):
        length = f"only {len(content)}" if len(content) < math.prod(shape) else "more"
        raise ValueError(f"{path}: {length} bytes after the header, expected {math.prod(shape)} for {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)
