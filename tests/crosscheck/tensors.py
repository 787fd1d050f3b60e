"""Tensors and functions of PyTorch that several tests bring to the checker, on one thread, with weights of a seed."""

import numpy as np
import pytest

from jaxnet.crosscheck.streams import Stream, stream

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for small tensors several are slower
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield


def T(*shape, seed=3, dtype=torch.float64):
    """A tensor of numbers away from 0."""
    x = stream(Stream.INPUTS, seed).standard_normal(shape)
    return torch.from_numpy(np.asarray(x + 0.2 * np.sign(x))).to(dtype)


def custom(forward, backward):
    """A Function whose backward gets (dout, inputs and output); it has the forward's own argument names."""

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
