"""Reads the IDX format of the MNIST files: a magic number, the size of each dimension, the values row by row."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

IMAGES, LABELS = 0x0803, 0x0801  # 2051, 2049: 08 for unsigned bytes, and the number of dimensions


def read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """Reads the array in a gzipped IDX file of unsigned bytes (LeCun, Cortes and Burges, *The MNIST database*).

    Raises:
        ValueError: If the file is not gzipped, is truncated, has another magic number or length, or is empty.
        OSError: If the file cannot be read.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}; expected a complete gzip file") from error
    header = 4 + 4 * (magic % 256)
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes, expected at least the {header} of an IDX header")
    actual, *shape = struct.unpack(f">{header // 4}I", content[:header])
    if actual != magic:
        raise ValueError(f"{path}: magic number {actual}, expected {magic}")
    if len(content) != header + math.prod(shape):
        raise ValueError(f"{path}: {len(content)} bytes, expected {header} + {math.prod(shape)} for {shape}")
    if 0 in shape:
        raise ValueError(f"{path}: sizes {shape}, expected at least 1 in each dimension")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
