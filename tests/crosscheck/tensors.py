"""Defines PyTorch tensors and functions that several tests use, on one thread and with seeded weights."""

import numpy as np
import pytest

from jaxnet.crosscheck.streams import Stream, stream

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads are slower for small tensors
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield


def T(*shape, seed=3, dtype=torch.float64):
    """Returns a tensor of numbers away from 0."""
    x = stream(Stream.INPUTS, seed).standard_normal(shape)
    return torch.from_numpy(np.asarray(x + 0.2 * np.sign(x))).to(dtype)


def custom(forward, backward):
    """Returns a Function whose backward gets dout, inputs and output, and whose forward keeps its argument names."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)

    passes = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(lambda ctx, dout: backward(dout, *ctx.saved_tensors)),
    }
    return type("Custom", (torch.autograd.Function,), passes)


def scale(x, gamma):
    return x * gamma


def tanh(x):
    return torch.tanh(x)
