import os
import signal
from importlib.metadata import version

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # tests count compilations
# Halves the compilation time of thousands of programs, most of which run once.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # 0.12 does not know the flag, and ends the process
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import numpy as np
import pytest

import jaxnet
import numpy_ref

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands that tests interrupt inherit it
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

FAST_COMPILATION = "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"
AS_A_USER = {name: value for name, value in os.environ.items() if name not in FAST_COMPILATION}


@pytest.fixture(autouse=True)
def own_interrupts():
    """Lets Ctrl-C end the tests as usual after a command that runs in this process has changed its handler."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x64():
    """Enables double precision for one test."""
    with jax.enable_x64(True):
        yield


def away_from_kinks(rng, shape, gap=0.1):
    """Returns normal numbers of at least `gap` in size, so that no step of a quotient crosses the kink of a ReLU."""
    x = rng.standard_normal(shape)
    return x + gap * np.sign(x)


def hand_built(net, params):
    return numpy_ref.Network(numpy_ref.build_layers(net.description, params))


def random_params(net, seed=0, dtype=np.float64):
    """Returns normal weights and biases; a bias of zero would hide errors."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: net.init(key, 0.5), jax.random.key(0))
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape).astype(dtype), shapes)


def noise_of(net, key, x, batches):
    """Yields the noise of each training step, as plain arrays."""
    draw = jax.jit(lambda step, x: jaxnet.step_noise(net, key, step, x))
    return (jax.device_get(draw(step, x[batch])) for step, batch in enumerate(np.asarray(batches)))


def a_dataset(rng, samples=60, features=12, classes=5):
    """Returns clusters that a small network can learn."""
    centres = rng.standard_normal((classes, features))

    def draw(n):
        t = rng.integers(0, classes, n)
        return (centres[t] + 0.5 * rng.standard_normal((n, features))).astype(np.float32), t.astype(np.int32)

    return jaxnet.Dataset(*draw(samples), *draw(samples // 2))


def exhaustive(value):
    """Returns a parameter for pytest that only -m exhaustive runs."""
    return pytest.param(value, marks=pytest.mark.exhaustive)


def slow(value):
    """Returns a parameter for pytest that only -m slow runs."""
    return pytest.param(value, marks=pytest.mark.slow)


def mostly_slow(names, every=4):
    """Returns parameters for pytest: every `every`-th runs by default, the others with -m slow."""
    return [slow(name) if i % every else name for i, name in enumerate(names)]


def some(names, every):
    """Returns parameters for pytest, of which only -m exhaustive runs all, and every `every`-th runs always."""
    return [exhaustive(name) if i % every else name for i, name in enumerate(names)]


def sampled(names, every=10):
    """Returns parameters for pytest: every `every`-th runs by default, the one after it with -m slow.

    The others run with -m exhaustive. A tuple is the values of several arguments.
    """
    marks = {0: (), 1: pytest.mark.slow}
    values = [name if isinstance(name, tuple) else (name,) for name in names]
    return [pytest.param(*value, marks=marks.get(i % every, pytest.mark.exhaustive)) for i, value in enumerate(values)]
