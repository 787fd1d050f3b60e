"""Tests that reading data takes no more time and memory than the data have: hostile files are refused."""

import gzip
import os
import re
import struct
import tracemalloc

import numpy as np
import pytest

from jaxnet.data import DatasetError, text
from jaxnet.data.idx import IMAGES, LABELS, read_idx
from jaxnet.data.own_images import read_image
from jaxnet.train import run_folder


def packed(header, body):
    return gzip.compress(struct.pack(f">{len(header)}I", *header) + body, compresslevel=1)


def test_an_array_is_read_as_it_was_written(tmp_path):
    x = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    (tmp_path / "x.gz").write_bytes(packed((IMAGES, 3, 4, 5), x.tobytes()))
    np.testing.assert_array_equal(read_idx(tmp_path / "x.gz", IMAGES), x)


def test_a_small_file_that_unpacks_to_many_bytes_does_not_fill_the_memory(tmp_path):
    """The file has 4 labels by its header, and 64 million zeros after them."""
    (tmp_path / "t.gz").write_bytes(packed((LABELS, 4), bytes(64 * 2**20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=re.escape("more bytes after the header, expected 4 for [4]")):
        read_idx(tmp_path / "t.gz", LABELS)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_sizes_that_no_data_set_has_are_refused_before_anything_is_read(tmp_path):
    (tmp_path / "x.gz").write_bytes(packed((IMAGES, 2**31, 2**20, 2**20), b""))
    with pytest.raises(ValueError, match=r"sizes \[2147483648, 1048576, 1048576\], expected at least 1 each"):
        read_idx(tmp_path / "x.gz", IMAGES)


@pytest.fixture(params=["pipe", "device"])
def endless(request, tmp_path):
    """Returns a path that would block, or never end."""
    if request.param == "device":
        return tmp_path.__class__("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_what_is_no_regular_file_is_refused_at_once(endless):
    with pytest.raises(OSError, match="not a regular file"):
        read_idx(endless, IMAGES)
    with pytest.raises(DatasetError, match=r"not a regular file.*name another file"):
        text.read_text(endless)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(endless, 8)
    with pytest.raises(ValueError, match="cannot be read"):
        run_folder.read_object(endless)
    with pytest.raises(ValueError, match="cannot be read"):
        run_folder.read_arrays(endless)


def test_a_long_text_takes_a_small_multiple_of_its_memory():
    characters = "The quick brown fox jumps over 12 lazy dogs, äöü.\n" * 60_000  # 3 million, 1 byte each
    tracemalloc.start()
    ids = text.encode(characters, text.vocabulary_of(characters))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids.nbytes == 4 * len(characters)
    assert peak < ids.nbytes + 16 * text.CHUNK
    assert text.decode(ids[:50], text.vocabulary_of(characters)) == characters[:50]
