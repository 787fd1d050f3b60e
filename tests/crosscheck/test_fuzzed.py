"""Tests that any input ends in a result or in a documented error, and that no call hangs."""

import gzip
import json
import re
import struct

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxnet
from jaxnet.common.validation import check_batches, check_labels, check_samples
from jaxnet.data.idx import IMAGES, read_idx
from jaxnet.train import run_folder

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(quick, max_examples=12)  # few, because each compiles a program

DTYPES = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.bool_, np.complex64]
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NUMBERS = st.one_of(st.integers(-3, 3), st.floats(), st.none(), st.booleans(), st.text(max_size=3))


def refused(message, function, *arguments):
    """Returns whether a call raises a ValueError that begins with this message. Any other error fails the test."""
    try:
        function(*arguments)
    except ValueError as error:
        assert re.match(message, str(error)), error  # noqa: PT017
        return True
    return False


@pytest.mark.slow
@quick
@given(ARRAYS)
def test_any_samples_are_accepted_or_refused_by_name(x):
    good = x.ndim >= 2 and x.size > 0 and x.dtype.kind in "fiu" and np.isfinite(x).all()
    good = good and (x.dtype.kind == "f" or -(2**31) <= x.min() <= x.max() < 2**31)
    assert refused(r"x[:\[]", check_samples, "x", x) != good


@pytest.mark.slow
@quick
@given(ARRAYS, st.integers(1, 4), st.integers(1, 4))
def test_any_labels_are_accepted_or_refused_by_name(t, samples, classes):
    rows = t.shape == (samples, classes)
    good = (rows and t.dtype.kind in "fiub" and np.isin(t, [0, 1]).all() and (t.sum(axis=-1) == 1).all()) or (
        t.shape == (samples,) and t.dtype.kind in "iu" and (t >= 0).all() and (t < classes).all()
    )
    assert refused(r"t[:\[]", check_labels, "t", t, (samples, classes)) != good


@pytest.mark.slow
@quick
@given(ARRAYS, st.integers(1, 5))
def test_any_batches_are_accepted_or_refused_by_name(batches, samples):
    kind = batches.ndim == 2 and batches.size > 0 and batches.dtype.kind in "iu"
    good = kind and (batches >= 0).all() and (batches < samples).all()
    assert refused("batches: ", check_batches, "batches", batches, samples) != good


@pytest.mark.slow
@quick
@given(NUMBERS, NUMBERS, NUMBERS)
def test_any_sizes_are_accepted_or_refused_by_name(inputs, hidden, outputs):
    """Expects a layer, or a ValueError that names a size."""
    good = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in (inputs, hidden, outputs))
    message = "(input|hidden|output)_size: .*, expected a whole number of at least 1"
    assert refused(message, jaxnet.two_layer_net, inputs, hidden, outputs) != good


@pytest.mark.slow
@few
@given(
    st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8]),
    st.integers(1, 4),
    st.floats(allow_subnormal=False),
    st.floats(allow_subnormal=False),
    NUMBERS,
)
def test_run_with_any_options_ends_in_a_result_or_a_documented_error(dtype, features, value, rate, every):
    """Draws pixels and learning rates of any size: the run must end, be refused, or be reported as diverged."""
    with np.errstate(all="ignore"):
        x = np.full((6, features), value).astype(dtype) if np.isfinite(value) else np.full((6, features), value)
    t = np.arange(6, dtype=np.int32) % 3
    data, net = jaxnet.Dataset(x, t, x, t), jaxnet.two_layer_net(features, 3, 3)
    batches = jaxnet.draw_batches(jax.random.key(0), 6, 2, 5)
    params = net.init(jax.random.key(1), 0.1)
    ended = []

    def fit():
        try:
            ended.append(jaxnet.fit(net, params, data, batches, learning_rate=rate, eval_every=every).history)
        except jaxnet.DivergedError as error:
            ended.append(error.history)

    if not refused(r"(data\.x_train|x|learning_rate|eval_every)[:\[]", fit):
        assert np.isfinite(ended[0].loss).all()
        assert len(ended[0].loss) <= 5


@pytest.mark.slow
@quick
@given(st.binary(max_size=60), st.booleans())
def test_an_idx_file_of_any_bytes_is_read_or_refused(tmp_path, content, zipped):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(ValueError, match=r"images\.gz"):
        read_idx(path, IMAGES)


@quick
@given(st.lists(st.integers(-1, 5), min_size=3, max_size=3), st.binary(max_size=40))
def test_an_idx_file_of_any_sizes_is_read_or_refused(tmp_path, sizes, content):
    path = tmp_path / "images.gz"
    head = struct.pack(">I", 0x0803) + struct.pack(">3i", *sizes)
    path.write_bytes(gzip.compress(head + content))
    good = min(sizes) >= 1 and np.prod(sizes) == len(content)
    assert refused(r".*images\.gz", read_idx, path, IMAGES) != good
    if good:
        images = read_idx(path, IMAGES)
        assert list(images.shape) == sizes
        assert images.tobytes() == content


@pytest.mark.slow
@quick
@given(st.one_of(st.binary(max_size=40), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_options_of_a_run_folder_are_read_or_refused(tmp_path, content):
    """Reads the options of a run, as --resume does: they are an object, or a ValueError names the file."""
    (tmp_path / "options.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"options\.json: "):
        run_folder.read_options(tmp_path)


@quick
@given(st.binary(max_size=60))
def test_a_parameter_file_of_any_bytes_is_read_or_refused(tmp_path, content):
    path = tmp_path / "parameters.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"parameters\.npz"):
        run_folder.read_parameters(path, jaxnet.two_layer_net(3, 2, 2))
