"""The IDX format of the MNIST files: a magic number, the size of each dimension, then the values, row after row."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

IMAGES, LABELS = 0x0803, 0x0801  # 2051, 2049: 08 for unsigned bytes, then the number of dimensions


def read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """The array in a gzipped IDX file of unsigned bytes; the header is of big-endian 32-bit numbers.

    Source: Y. LeCun, C. Cortes and C. J. C. Burges, *The MNIST database*, its section on the file formats.

    Raises:
        ValueError: The file is no gzip, cut short, of another kind or length than it says, or empty.
        OSError: The file cannot be read.
    """
    packed = path.read_bytes()
    try:
        content = gzip.decompress(packed)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}; expected a whole gzip file") from error
    header = 4 + 4 * (magic % 256)
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes, expected at least the {header} of an IDX header")
    found, *shape = struct.unpack(f">{header // 4}I", content[:header])
    if found != magic:
        raise ValueError(f"{path}: magic number {found}, expected {magic}")
    if len(content) != header + math.prod(shape):
        raise ValueError(f"{path}: {len(content)} bytes, expected {header} + {math.prod(shape)} for {shape}")
    if 0 in shape:
        raise ValueError(f"{path}: sizes {shape}, expected at least 1 of everything")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
