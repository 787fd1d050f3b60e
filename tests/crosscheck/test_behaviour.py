"""Tests the checks of behaviour with layers that have one fault each, and with similar layers that are correct."""

from functools import cache

import numpy as np
import pytest
from conftest import exhaustive, sampled

from jaxnet.crosscheck import check_layer, inspected
from jaxnet.crosscheck.explain.behaviour_sentences import sentence
from jaxnet.crosscheck.measure.behaviour import check_behaviour
from jaxnet.crosscheck.measure.derivation import Measured
from jaxnet.crosscheck.measure.findings import Behaviour, Finding, Level
from jaxnet.crosscheck.measure.gradient_form import misshapen, other_dtype
from jaxnet.crosscheck.measure.memory import Layout, laid_out
from jaxnet.crosscheck.streams import Stream, stream


def draw(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def measured(subject, at, dout):
    """Returns the gradients, and their changes if the leaves change in the last place."""
    signs = np.random.default_rng(3)
    value = subject.backward({n: a.copy() for n, a in at.items()}, dout)
    nudged = {
        n: a * (1 + np.finfo(a.dtype).eps * signs.choice([-1, 1], a.shape)).astype(a.dtype) for n, a in at.items()
    }
    other = subject.backward(nudged, dout)
    terms = np.sqrt(sum(a.size for a in at.values()))
    sums = {n: terms * np.finfo(g.dtype).eps / 2 * np.abs(g).max(initial=0) for n, g in value.items()}
    return {n: Measured(np.array(g), float(np.abs(other[n] - g).max(initial=0) + sums[n])) for n, g in value.items()}


def findings_of(layer, *inputs, in_double=True, seed=0):
    subject = inspected(layer, *inputs)
    copies = {n: np.array(a, order="K") for n, a in subject.leaves.items()}
    y = subject.open(copies).forward()
    dout = stream(Stream.DOUT, seed).standard_normal(y.shape) if subject.takes_dout and y.ndim else np.ones_like(y)
    at = {n: a.astype(np.float64) if in_double else a for n, a in subject.leaves.items()}
    dout = dout if in_double else dout.astype(y.dtype)
    at = {n: a.copy() for n, a in at.items()}
    return check_behaviour(subject, dout, at, measured(subject, at, dout), stream(Stream.BEHAVIOUR, seed))


class Dense:
    """y = tanh(x W)."""

    def __init__(self):
        self.W = draw(4, 3) / 2

    def forward(self, x):
        self.x, self.y = x, np.tanh(x @ self.W)
        return self.y.copy()

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return d @ self.W.T


class Sine:
    """y = sin(x), without parameters."""

    def forward(self, x):
        self.x = x
        return np.sin(x)

    def backward(self, dout):
        return self.above(dout) * np.cos(self.x)

    def above(self, dout):
        return dout


def flat_of(array):
    """Reads memory from its start as a kernel does that ignores strides."""
    memory = array
    while isinstance(memory.base, np.ndarray) and not array.flags.c_contiguous:
        memory = memory.base
    return np.ndarray(array.shape, array.dtype, buffer=memory)


WRONG, RIGHT = {}, {}


def wrong(kind, level=Level.FAULT, leaf=None, x=(5, 4)):
    def add(made):
        WRONG[made.__name__] = made, kind, level, leaf, x
        return made

    return add


def right(*allowed, x=(5, 4)):
    """Registers a correct layer, with the findings it may have."""

    def add(made):
        RIGHT[made.__name__] = made, allowed, x
        return made

    return add


right()(Dense)
right()(Sine)

# -- memory


@wrong(Behaviour.OVERWRITES_DOUT)
class MasksDoutInPlace(Dense):
    def backward(self, dout):
        dout *= 1 - self.y**2
        self.dW = self.x.T @ dout
        return dout @ self.W.T


@wrong(Behaviour.OVERWRITES_DOUT)
class WritesThroughAReshapedView(Sine):
    def backward(self, dout):
        flat = dout.reshape(-1)
        np.multiply(flat, np.cos(self.x).reshape(-1), out=flat)
        return flat.reshape(dout.shape)


@right()
class MasksItsOwnCopyInPlace(Dense):
    def backward(self, dout):
        dx = np.array(dout)
        dx *= 1 - self.y**2
        self.dW = self.x.T @ dx
        return dx @ self.W.T


@right()
class DividesADoutOfALossInPlace:
    def forward(self, x):
        self.n, self.shape = x.size, x.shape
        return x.mean()

    def backward(self, dout=1.0):
        dout *= 1 / self.n
        return np.full(self.shape, dout)


@wrong(Behaviour.OVERWRITES_DOUT)
class DividesAnArrayOfALossInPlace:
    def forward(self, x):
        self.n, self.shape = x.size, x.shape
        return np.asarray(x.mean())

    def backward(self, dout):
        dout *= 1 / self.n
        return np.full(self.shape, dout)


@wrong(Behaviour.FORWARD_OVERWRITES, leaf="x")
class RectifiesItsInputInPlace:
    def forward(self, x):
        self.mask = x > 0
        return np.maximum(x, 0, out=x).copy()

    def backward(self, dout):
        return dout * self.mask


@right()
class RectifiesItsOwnCopyInPlace:
    def forward(self, x):
        out = x.copy()
        self.mask = x > 0
        out[~self.mask] = 0
        return out

    def backward(self, dout):
        dx = dout.copy()
        dx[~self.mask] = 0
        return dx


@wrong(Behaviour.FORWARD_OVERWRITES, leaf="W")
class ScalesItsWeightsAgainAndAgain(Dense):
    def forward(self, x):
        y = super().forward(x)
        self.W *= 0.5
        return y


@wrong(Behaviour.BACKWARD_OVERWRITES, leaf="x")
class WritesToTheInputThatItKept(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        np.subtract(self.x, self.x.mean(axis=0), out=self.x)
        return dx


@wrong(Behaviour.BACKWARD_OVERWRITES, leaf="W")
class TakesAStepOfLearning(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        self.W -= 0.1 * self.dW
        return dx


@wrong(Behaviour.REPLACES_PARAMETER, Level.WARNING, leaf="W")
class ReplacesItsWeights(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        self.W = self.W - 0.1 * self.dW
        return dx


@right()
class ReplacesItsWeightsByACopy(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        self.W = self.W.copy()
        return dx


@wrong(Behaviour.NOT_CONTIGUOUS_DOUT, leaf="x")
class ReadsDoutFromTheStartOfItsMemory(Sine):
    def above(self, dout):
        return dout if dout.ndim and 0 in dout.strides else flat_of(dout)


@right()
class MakesDoutContiguousFirst(Sine):
    def above(self, dout):
        return flat_of(np.ascontiguousarray(dout))


@wrong(Behaviour.FORTRAN_DOUT, leaf="x")
class RavelsDoutAsItLiesInMemory(Sine):
    def above(self, dout):
        return dout.ravel(order="K").reshape(dout.shape)


@right()
class RavelsDoutByRows(Sine):
    def above(self, dout):
        return dout.ravel().reshape(dout.shape)


@wrong(Behaviour.NEGATIVE_STRIDE_DOUT, leaf="x")
class TakesStridesWithoutTheirSign(Sine):
    def above(self, dout):
        memory = dout.base if isinstance(dout.base, np.ndarray) and min(dout.strides) < 0 else dout
        return np.lib.stride_tricks.as_strided(memory, dout.shape, tuple(abs(s) for s in dout.strides))


@wrong(Behaviour.STRIDE_0_DOUT)
class SumsARepeatedElementOnce(Sine):
    def above(self, dout):
        return dout / (dout.size if dout.strides == (0,) * dout.ndim else 1)


@right()
class ExpandsARepeatedElement(Sine):
    def above(self, dout):
        return np.full(dout.shape, dout.flat[0]) if dout.strides == (0,) * dout.ndim else dout


@wrong(Behaviour.READ_ONLY_DOUT, Level.WARNING)
class RefusesAReadOnlyDout(Sine):
    def above(self, dout):
        if not dout.flags.writeable:
            raise ValueError("buffer source array is read-only")
        return dout


@wrong(Behaviour.NOT_CONTIGUOUS_DOUT, Level.WARNING)
class RefusesADoutThatIsNotContiguous(Sine):
    def above(self, dout):
        assert dout.flags.c_contiguous or 0 in dout.strides, "dout must be contiguous"
        return dout


@wrong(Behaviour.NOT_CONTIGUOUS_INPUT)
class ReadsItsInputFromTheStartOfItsMemory(Sine):
    def forward(self, x):
        return super().forward(x if 0 in x.strides else flat_of(x))


@wrong(Behaviour.FORTRAN_INPUT)
class RavelsItsInputAsItLiesInMemory(Sine):
    def forward(self, x):
        return super().forward(x.ravel(order="K").reshape(x.shape))


@wrong(Behaviour.FORTRAN_INPUT, leaf="x")
class RavelsInBackwardWhatItKept(Sine):
    def backward(self, dout):
        return dout * np.cos(self.x.ravel(order="K").reshape(self.x.shape))


@wrong(Behaviour.INPUT_AS_PASSED, x="transposed")
class RavelsATransposedInput(Sine):
    def forward(self, x):
        return super().forward(x.ravel(order="A").reshape(x.shape))


@right(x="transposed")
class TakesATransposedInput(Dense):
    pass


@right()
class SumsTransposedViewsByEinsum:
    def __init__(self):
        self.W = draw(4, 3)

    def forward(self, x):
        self.x = x
        return np.einsum("ij,jk->ik", x, self.W.T.copy().T)

    def backward(self, dout):
        self.dW = np.einsum("ij,ik->jk", self.x, dout)
        return np.einsum("ik,kj->ij", dout, self.W.T)


@wrong(Behaviour.REUSES_OUTPUT)
class ReturnsTheBufferThatItWritesTo(Dense):
    buffer = None

    def forward(self, x):
        self.x = x
        if self.buffer is None or len(self.buffer) != len(x):
            self.buffer = np.empty((len(x), 3), x.dtype)
        np.matmul(x, self.W, out=self.buffer)
        self.y = np.tanh(self.buffer)
        self.buffer[...] = self.y
        return self.buffer


@wrong(Behaviour.REUSES_GRADIENT, leaf="x")
class ReturnsTheBufferOfDx(Dense):
    buffer = None

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        if self.buffer is None or len(self.buffer) != len(d):
            self.buffer = np.empty((len(d), 4), d.dtype)
        np.matmul(d, self.W.T, out=self.buffer)
        return self.buffer


@right()
class WritesToBuffersAndReturnsCopies(Dense):
    buffer = None

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        if self.buffer is None or len(self.buffer) != len(d):
            self.buffer = np.empty((len(d), 4), d.dtype)
        np.matmul(d, self.W.T, out=self.buffer)
        return self.buffer.copy()


@right()
class WritesDwIntoAnArrayThatIsAlwaysTheSame(Dense):
    """Writes its gradient as in the book: self.grads[0][...] = dW."""

    def __init__(self):
        super().__init__()
        self.dW = np.zeros((4, 3))

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW[...] = self.x.T @ d
        return d @ self.W.T


@wrong(Behaviour.LENDS_CACHE, Level.WARNING)
class HandsOutTheArrayThatItKeeps(Dense):
    def forward(self, x):
        self.x, self.y = x, np.tanh(x @ self.W)
        return self.y


@right()
class HandsOutItsInput:
    """Returns its input, as dropout does in inference."""

    params = ()

    def forward(self, x):
        return x

    def backward(self, dout):
        return dout


# -- state


@wrong(Behaviour.ADDS_UP, Level.NOTE, leaf="W")
class AddsUpDw(Dense):
    def __init__(self):
        super().__init__()
        self.dW = np.zeros((4, 3))

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW += self.x.T @ d
        return d @ self.W.T


@wrong(Behaviour.RUNS_ONCE, Level.NOTE)
class FreesItsCache(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        del self.x, self.y
        return dx


@wrong(Behaviour.SECOND_BACKWARD_DIFFERS, Level.WARNING)
class UsesUpItsCache(Sine):
    def forward(self, x):
        self.slope = np.cos(x)
        return np.sin(x)

    def backward(self, dout):
        self.slope *= dout
        return self.slope.copy()


@wrong(Behaviour.EARLIER_CALL)
class KeepsItsFirstInput(Dense):
    first = None

    def forward(self, x):
        self.first = x.copy() if self.first is None else self.first
        return super().forward(x)

    def backward(self, dout):
        self.x = self.first
        return super().backward(dout)


@wrong(Behaviour.LATER_CALL)
class GoesWrongAtItsThirdCall(Dense):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)

    def backward(self, dout):
        return super().backward(dout) * (1 if self.calls < 3 else 0.5)


@right()
class CountsItsCalls(Dense):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


@wrong(Behaviour.SHARED_BY_CLASS)
class KeepsItsCacheInTheClass(Dense):
    cache = {}  # noqa: RUF012

    def forward(self, x):
        y = super().forward(x)
        KeepsItsCacheInTheClass.cache.update(x=x, y=y)
        return y

    def backward(self, dout):
        self.x, self.y = self.cache["x"], self.cache["y"]
        return super().backward(dout)


@cache
def windows(n, size):
    return np.arange(n - size + 1)[:, None] + np.arange(size)


@right()
class KeepsIndicesOfWindowsForAllInstances:
    """A one-dimensional convolution that caches indices, which depend on the shape alone."""

    def __init__(self):
        self.w = draw(3)

    def forward(self, x):
        self.x, self.at = x, windows(x.shape[1], 3)
        return x[:, self.at] @ self.w

    def backward(self, dout):
        self.dw = np.einsum("nij,ni->j", self.x[:, self.at], dout)
        dx = np.zeros_like(self.x)
        np.add.at(dx, (slice(None), self.at), dout[:, :, None] * self.w)
        return dx


@wrong(Behaviour.STALE_BACKWARD, leaf="x")
class TransposesItsWeightsAtTheFirstCall(Dense):
    WT = None

    def forward(self, x):
        if self.WT is None:
            self.WT = np.ascontiguousarray(self.W.T)
        return super().forward(x)

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return d @ self.WT


@wrong(Behaviour.WRONG_AFTER_STEP, leaf="x")
class TransposesItsWeightsAtConstruction(Dense):
    def __init__(self):
        super().__init__()
        self.WT = np.ascontiguousarray(self.W.T)

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return d @ self.WT


@wrong(Behaviour.STALE_FORWARD, leaf="W")
class KeepsItsWeightsFromTheFirstCall(Dense):
    first = None

    def forward(self, x):
        self.first = self.W.copy() if self.first is None else self.first
        self.x, self.y = x, np.tanh(x @ self.first)
        return self.y.copy()


@right()
class TransposesItsWeightsAtEveryCall(Dense):
    def forward(self, x):
        self.WT = np.ascontiguousarray(self.W.T)
        return super().forward(x)

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return d @ self.WT


@right()
class HoldsItsWeightsAlsoTransposed(Dense):
    """Stores WT, a view of W that changes with W."""

    def __init__(self):
        super().__init__()
        self.WT = self.W.T

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return d @ self.WT


@right()
class GrowsWithEveryCall:
    """A decoder that stores all earlier inputs."""

    params = ()

    def __init__(self):
        self.past = np.zeros((0, 4))

    def forward(self, x):
        self.past, self.n = np.concatenate([self.past, x]), len(x)
        return np.sin(self.past)

    def backward(self, dout):
        return (dout * np.cos(self.past))[-self.n :]


@right()
class SortsRows:
    def forward(self, x):
        self.order = np.argsort(x, axis=1)
        return np.take_along_axis(x, self.order, axis=1)

    def backward(self, dout):
        return np.take_along_axis(dout, np.argsort(self.order, axis=1), axis=1)


@right(x=(4, 4))
class Inverts:
    """Has no inverse at constant inputs, where the output is determined by rounding."""

    def forward(self, x):
        self.y = np.linalg.inv(x)
        return self.y.copy()

    def backward(self, dout):
        return -self.y.T @ dout @ self.y.T


@right()
class NormalisesColumnsWithoutAnEpsilon:
    """Divides 0 by 0 at constant inputs, up to rounding."""

    def forward(self, x):
        centred = x - x.mean(axis=0)
        self.norm = np.linalg.norm(centred, axis=0)
        self.y = centred / self.norm
        return self.y.copy()

    def backward(self, dout):
        d = (dout - self.y * (self.y * dout).sum(axis=0)) / self.norm
        return d - d.mean(axis=0)


@wrong(Behaviour.OTHER_BATCH_SIZE)
class MultipliesALargerBatchesRows(Dense):
    """Uses all rows of buffers that are as long as the largest batch so far."""

    rows = np.zeros((0, 4))
    above = np.zeros((0, 3))

    def forward(self, x):
        if len(self.rows) < len(x):
            self.rows, self.above = np.zeros((len(x), 4)), np.zeros((len(x), 3))
        self.rows[: len(x)] = x
        return super().forward(x)

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.above[: len(d)] = d
        self.dW = self.rows.T @ self.above
        return d @ self.W.T


@right()
class MultipliesItsOwnRowsOfALargerBuffer(MultipliesALargerBatchesRows):
    def backward(self, dout):
        d = dout * (1 - self.y**2)
        n = len(d)
        self.above[:n] = d
        self.dW = self.rows[:n].T @ self.above[:n]
        return d @ self.W.T


@wrong(Behaviour.ONE_BATCH_SIZE, Level.WARNING)
class KeepsToTheFirstBatchSize(Dense):
    rows = None

    def forward(self, x):
        self.rows = np.empty_like(x) if self.rows is None else self.rows
        self.rows[...] = x
        return super().forward(self.rows.copy())


@right()
class AllocatesAnewForAnotherBatchSize(Dense):
    rows = None

    def forward(self, x):
        if self.rows is None or self.rows.shape != x.shape:
            self.rows = np.empty_like(x)
        self.rows[...] = x
        return super().forward(self.rows.copy())


@right()
class AcceptsOneBatchSizeAlone(Dense):
    def forward(self, x):
        assert len(x) == 5
        return super().forward(x)


@right()
class MovesARunningMean:
    params = ()

    def __init__(self):
        self.mean = np.zeros(4)

    def forward(self, x):
        y = np.sin(x - self.mean)
        self.x, self.used = x, self.mean
        self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
        return y

    def backward(self, dout):
        return dout * np.cos(self.x - self.used)


@wrong(Behaviour.EARLIER_CALL, leaf="x")
class UsesTheFirstRunningMean(MovesARunningMean):
    def backward(self, dout):
        return dout * np.cos(self.x)


@right()
class NormalisesABatchAndKeepsItsStatistics:
    def __init__(self):
        self.gamma, self.beta, self.running_mean = draw(4) + 2, draw(4, seed=2), np.zeros(4)

    def forward(self, x):
        self.running_mean = 0.9 * self.running_mean + 0.1 * x.mean(axis=0)
        self.std = np.sqrt(x.var(axis=0) + 1e-5)
        self.xhat = (x - x.mean(axis=0)) / self.std
        return self.gamma * self.xhat + self.beta

    def backward(self, dout):
        self.dgamma, self.dbeta = (dout * self.xhat).sum(axis=0), dout.sum(axis=0)
        d = dout * self.gamma
        return (d - d.mean(axis=0) - self.xhat * (d * self.xhat).mean(axis=0)) / self.std


@right()
class DrawsItsMaskFromItsOwnGenerator:
    params = ()

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        self.mask = self.rng.random(x.shape) > 0.5
        return x * self.mask * 2

    def backward(self, dout):
        return dout * self.mask * 2


@right()
class DrawsItsMaskFromTheGlobalGenerator:
    def forward(self, x):
        self.mask = np.random.rand(*x.shape) > 0.5  # noqa: NPY002
        return x * self.mask * 2

    def backward(self, dout):
        return dout * self.mask * 2


# -- from call to call

entropy = np.random.default_rng()


@wrong(Behaviour.NOT_REPEATABLE, Level.WARNING)
class AddsNoiseThatNoSeedDecides(Dense):
    def forward(self, x):
        return super().forward(x) + 1e-3 * entropy.standard_normal((len(x), 3))


@wrong(Behaviour.DRAWS_AGAIN)
class DrawsAnotherMaskInBackward(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        return dx * (entropy.random(dx.shape) > 0.5)


@wrong(Behaviour.ROUNDS_DIFFERENTLY, Level.NOTE, x=(40, 4))
class SumsInAnyOrder(Dense):
    def __init__(self):
        super().__init__()
        self.b = draw(3)

    def forward(self, x):
        return super().forward(x) + self.b

    def backward(self, dout):
        self.db = np.zeros_like(dout[0])
        for i in entropy.permutation(len(dout)):
            self.db = self.db + dout[i]
        return super().backward(dout)


@right(Behaviour.ROUNDS_DIFFERENTLY, x=(40, 4))
class SumsInAnyOrderInForward(Dense):
    def forward(self, x):
        self.x, z = x, np.zeros((len(x), 3))
        for j in entropy.permutation(4):
            z = z + x[:, j, None] * self.W[j]
        self.y = np.tanh(z)
        return self.y.copy()


# -- linearity


@wrong(Behaviour.IGNORES_DOUT)
class TakesDoutForOne(Dense):
    def backward(self, dout):
        return super().backward(np.ones_like(dout))


@wrong(Behaviour.NOT_LINEAR)
class ClipsDout(Sine):
    def above(self, dout):
        return np.clip(dout, -0.5, 0.5)


@wrong(Behaviour.NOT_LINEAR)
class FlushesBelow1em12(Sine):
    def above(self, dout):
        return np.where(np.abs(dout) < 1e-12, 0, dout)


@wrong(Behaviour.NOT_LINEAR)
class FlushesBelow1em25(Sine):
    def above(self, dout):
        return np.where(np.abs(dout) < 1e-25, 0, dout)


@wrong(Behaviour.NOT_LINEAR)
class ClipsANormOfAMillion(Sine):
    def above(self, dout):
        return dout * min(1.0, 1e6 / np.linalg.norm(dout))


@wrong(Behaviour.NOT_LINEAR)
class ClipsANormOf1e10(Sine):
    def above(self, dout):
        return dout * min(1.0, 1e10 / np.linalg.norm(dout))


@wrong(Behaviour.NOT_LINEAR)
class AddsAnEpsilonToTheNorm(Sine):
    def above(self, dout):
        norm = np.linalg.norm(dout)
        return dout * norm / (norm + 1e-8)


@wrong(Behaviour.NOT_LINEAR)
class SkipsNegativeGradients(Sine):
    """Masks dout by its sign, as guided backpropagation does."""

    def above(self, dout):
        return np.maximum(dout, 0)


@right()
class ScalesForthAndBack(Sine):
    """Loss scaling by a power of two."""

    def above(self, dout):
        return dout * 65536 / 65536


@right()
class ReadsDwOffAnUpdate(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.W - (self.W - self.dW)
        return dx


@right()
class ReadsDwOffAnUpdateAtARate(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = (self.W - (self.W - 0.1 * self.dW)) / 0.1
        return dx


@right()
class ComputesInFloat32:
    def forward(self, x):
        self.x = x.astype(np.float32)
        return np.tanh(self.x).astype(x.dtype)

    def backward(self, dout):
        return (dout.astype(np.float32) * (1 - np.tanh(self.x) ** 2)).astype(dout.dtype)


@right()
class ComputesInFloat16:
    def forward(self, x):
        self.x = x.astype(np.float16)
        return np.tanh(self.x).astype(x.dtype)

    def backward(self, dout):
        return (dout.astype(np.float16) * (1 - np.tanh(self.x) ** 2)).astype(dout.dtype)


@right()
class IsNearOverflow:
    def forward(self, x):
        self.x = x
        return 1e300 * np.sin(x)

    def backward(self, dout):
        return dout * 1e300 * np.cos(self.x)


@right()
class IsVerySmall:
    def forward(self, x):
        self.x = x
        return 1e-200 * np.sin(x)

    def backward(self, dout):
        return dout * 1e-200 * np.cos(self.x)


@right()
class Saturates:
    """Has slopes of 1e-16 and less as well as slopes of 1."""

    def forward(self, x):
        self.y = 1 / (1 + np.exp(-20 * x))
        return self.y.copy()

    def backward(self, dout):
        return 20 * dout * self.y * (1 - self.y)


def input_of(shape):
    x = draw(4, 5, seed=5).T if shape == "transposed" else draw(*shape, seed=5)
    return x + 0.1 * np.sign(x)


@pytest.mark.parametrize("name", WRONG)
def test_the_fault_is_found_with_its_level_and_its_leaf(name):
    make, kind, level, leaf, x = WRONG[name]
    findings = findings_of(make(), input_of(x))
    of_kind = [finding for finding in findings if finding.kind is kind]
    assert of_kind, findings
    assert {finding.level for finding in of_kind} == {level}
    assert leaf is None or leaf in [finding.leaf for finding in of_kind]
    others = [f for f in findings if f.level is Level.FAULT and f.kind is not kind]
    assert not others or level is Level.FAULT, others


@pytest.mark.parametrize("seed", [0, exhaustive(1), exhaustive(2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", sampled(RIGHT, 4))
def test_correct_layers_have_no_findings(name, dtype, seed):
    make, allowed, x = RIGHT[name]
    if dtype == np.float32 and make is IsNearOverflow:
        pytest.skip("it overflows in float32")
    with np.errstate(all="ignore"):
        findings = findings_of(make(), input_of(x).astype(dtype), seed=seed)
    assert not [finding for finding in findings if finding.kind not in allowed]


def test_every_kind_of_finding_has_a_layer():
    assert len(WRONG) >= 25
    assert len(RIGHT) >= 25
    elsewhere = {
        *FORMS,
        Behaviour.OTHER_VALUE,
        Behaviour.OTHER_DTYPE,
        Behaviour.LACKS_LEAF,
        Behaviour.FORWARD_OUT_OF_RANGE,
        Behaviour.WRONG_IN_LATER_CALL,
        *OF_OTHER_WAYS,
    }  # these are found by other checks
    assert {kind for _, kind, *_ in WRONG.values()} >= {
        kind for kind in Behaviour if kind not in elsewhere and "INPUT" not in kind.name
    }


# -- consequences of a finding are not findings


@pytest.mark.parametrize("name", ["MasksDoutInPlace", "WritesThroughAReshapedView"])
def test_an_overwritten_dout_has_no_further_findings(name):
    make, *_, x = WRONG[name]
    (finding,) = findings_of(make(), input_of(x))
    assert sentence(finding) == "backward overwrites dout, its argument: write to a copy"


@pytest.mark.parametrize("name", ["AddsNoiseThatNoSeedDecides", "DrawsAnotherMaskInBackward", "KeepsItsFirstInput"])
def test_each_cause_has_one_finding(name):
    make, kind, *_, x = WRONG[name]
    assert [finding.kind for finding in findings_of(make(), input_of(x))] == [kind]


class ReplacesBoth:
    """y = x W + b, with an update in backward."""

    stores_gradients = True

    def __init__(self):
        self.W, self.b = draw(4, 3), draw(3)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        dx, dW, db = dout @ self.W.T, self.x.T @ dout, dout.sum(axis=0)
        self.W, self.b = self.W - 0.1 * dW, self.b - 0.1 * db
        if self.stores_gradients:
            self.dW, self.db = dW, db
        return dx


class ReplacesBothWithoutGradients(ReplacesBoth):
    stores_gradients = False


@pytest.mark.parametrize(("make", "verdict"), [(ReplacesBoth, "PASS"), (ReplacesBothWithoutGradients, "INCONCLUSIVE")])
def test_an_update_that_replaces_parameters_is_named_once(make, verdict):
    report = check_layer(make(), draw(5, 4))
    assert report.verdict == verdict
    assert report.warnings == (
        "backward replaces W and b with new arrays, as the update W = W - lr * dW does, so the next forward uses other "
        "values: update the parameters outside of backward",
    )


def test_an_accumulated_gradient_is_compared_call_by_call():
    class Wrong(AddsUpDw):
        calls = 0

        def backward(self, dout):
            self.calls += 1
            return super().backward(dout if self.calls < 4 else 2 * dout)

    kinds = [finding.kind for finding in findings_of(Wrong(), input_of((5, 4)))]
    assert Behaviour.ADDS_UP in kinds
    assert Behaviour.LATER_CALL in kinds


def test_a_wrong_gradient_is_not_attributed_to_state():
    class Wrong(MovesARunningMean):
        def backward(self, dout):
            return 1.5 * super().backward(dout)

    class AlsoWrong(Dense):
        def backward(self, dout):
            return 1.5 * super().backward(dout)

    assert not findings_of(Wrong(), input_of((5, 4)))
    assert not findings_of(AlsoWrong(), input_of((5, 4)))


# -- pairs, functions, losses, float32


def test_a_pair_that_adds_up_rows_is_correct_and_one_that_reuses_a_buffer_is_not():
    ids = np.array([0, 3, 3, 5, 1])
    buffer = np.zeros((6, 4))

    def backward(dout, cache):
        dW = np.zeros((6, 4))
        np.add.at(dW, cache, dout)
        return dW

    def into_a_buffer(dout, cache):
        buffer[...] = 0
        np.add.at(buffer, cache, dout)
        return buffer

    forward = lambda W: (W[ids], ids)  # noqa: E731
    assert not findings_of((forward, backward), draw(6, 4))
    assert [f.kind for f in findings_of((forward, into_a_buffer), draw(6, 4))] == [Behaviour.REUSES_GRADIENT]


def test_pair_with_a_cache_from_the_first_call_is_found():
    slope = []

    def forward(x):
        if not slope:
            slope.append(np.cos(x))
        return np.sin(x), x

    kinds = [finding.kind for finding in findings_of((forward, lambda dout, x: dout * slope[0]), draw(5, 4))]
    assert Behaviour.WRONG_AFTER_STEP in kinds


def test_mask_of_the_first_call_is_found_at_mixed_values():
    masks = []

    def forward(x):
        masks.append(x > 0)
        return np.maximum(x, 0), x

    kinds = {f.kind for f in findings_of((forward, lambda dout, x: dout * masks[0]), draw(5, 4))}
    assert kinds & {Behaviour.WRONG_AFTER_STEP, Behaviour.STALE_BACKWARD}


def test_a_table_that_is_right_only_within_its_range_has_no_finding():
    """Uses np.interp, which is flat beyond the last knot, with a gradient that continues with the last slope."""
    heights = draw(5)

    def slope(dout, x):
        i = np.clip(x.astype(int), 0, 3)
        return dout * (heights[i + 1] - heights[i])

    pair = (lambda x: (np.interp(x, np.arange(5.0), heights), x), slope)
    for seed in range(10):
        assert not findings_of(pair, np.array([0.02, 1.7, 2.3, 3.98, 3.1]), seed=seed)


@pytest.mark.parametrize("in_double", [False, True])
def test_a_step_that_moves_inputs_onto_or_near_a_kink_is_not_a_fault(in_double):
    """The step changes -0.1 to 0, and -0.0996 to a number smaller than the smallest step in float32."""
    pair = (lambda x: (np.maximum(x, 0), x), lambda dout, x: dout * (x > 0))
    x = np.array([-0.1, -0.0996, 1.0, -2.0])
    for seed in range(10):
        dtype = np.float64 if in_double else np.float32
        assert not findings_of(pair, x.astype(dtype), in_double=in_double, seed=seed)


def test_reused_buffers_of_several_outputs_are_found():
    def pair(buffers):
        def forward(x):
            s, c = (np.sin(x, out=buffers[0]), np.cos(x, out=buffers[1])) if buffers else (np.sin(x), np.cos(x))
            return s, c, x

        return forward, lambda ds, dc, x: ds * np.cos(x) - dc * np.sin(x)

    x = draw(5, 4)
    assert not findings_of(pair(None), x)
    kinds = [f.kind for f in findings_of(pair((np.empty((5, 4)), np.empty((5, 4)))), x)]
    assert Behaviour.REUSES_OUTPUT in kinds


def test_a_loss_whose_backward_takes_no_argument_has_no_finding():
    class Loss:
        def forward(self, x):
            self.x = x
            return 0.5 * (x**2).sum()

        def backward(self):
            return self.x.copy()

    assert not findings_of(Loss(), draw(5, 4))
    twice = type("Twice", (Loss,), {"backward": lambda self: self.__dict__.setdefault("first", self.x).copy()})
    assert Behaviour.EARLIER_CALL in [finding.kind for finding in findings_of(twice(), draw(5, 4))]


@pytest.mark.parametrize("name", ["ReturnsTheBufferOfDx", "TransposesItsWeightsAtTheFirstCall", "ClipsDout"])
def test_faults_are_found_in_float32(name):
    make, kind, *_, x = WRONG[name]
    layer = make()
    if hasattr(layer, "W"):
        layer.W = layer.W.astype(np.float32)
    assert kind in [f.kind for f in findings_of(layer, input_of(x).astype(np.float32), in_double=False)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ReadsDwOffAnUpdate, ReadsDwOffAnUpdateAtARate])
def test_an_update_in_float32_is_linear_up_to_its_rounding(kind):
    for seed in range(5):
        layer = kind()
        layer.W = layer.W.astype(np.float32)
        assert not findings_of(layer, draw(5, 4).astype(np.float32), in_double=False, seed=seed)


def test_an_empty_array_is_accepted():
    pair = (
        lambda x, e: (np.sin(x) + e.sum(), (x, e)),
        lambda dout, cache: (dout * np.cos(cache[0]), np.zeros_like(cache[1])),
    )
    assert not findings_of(pair, draw(3), np.zeros((0, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_correct_float32_layers_have_no_findings(seed):
    layer = NormalisesABatchAndKeepsItsStatistics()
    for name in ("gamma", "beta", "running_mean"):
        setattr(layer, name, getattr(layer, name).astype(np.float32))
    assert not findings_of(layer, draw(5, 4, seed=seed).astype(np.float32), in_double=False, seed=seed)


def test_a_check_reports_the_findings():
    assert "backward overwrites dout" in check_layer(MasksDoutInPlace(), (5, 4)).text(width=None)
    assert "right only for a contiguous dout" in check_layer(ReadsDoutFromTheStartOfItsMemory(), (5, 4)).text(
        width=None
    )


# -- cost


def test_forward_is_called_at_most_50_times_for_three_leaves():
    calls = 0

    class Affine(Dense):
        def __init__(self):
            super().__init__()
            self.b = draw(3)

        def forward(self, x):
            nonlocal calls
            calls += 1
            return super().forward(x) + self.b

        def backward(self, dout):
            self.db = dout.sum(axis=0)
            return super().backward(dout)

    subject = inspected(Affine(), draw(5, 4))
    at, dout = {name: array.copy() for name, array in subject.leaves.items()}, draw(5, 3)
    gradient = measured(subject, at, dout)
    calls = 0
    assert not check_behaviour(subject, dout, at, gradient, stream(Stream.BEHAVIOUR, 0))
    assert len(gradient) == 3
    assert 20 < calls <= 50


# -- memory layouts


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 4), (2, 3, 4), (1, 6), (6, 1)])
@pytest.mark.parametrize("layout", list(Layout))
def test_a_layout_keeps_the_values(layout, shape):
    values = np.ones(shape) if layout is Layout.STRIDE_0 else draw(*shape)
    laid = laid_out(values, layout, draw(*shape[::-1]).T)
    if laid is None:
        return
    np.testing.assert_array_equal(laid, values)
    assert not (laid.flags.c_contiguous and laid.flags.writeable) or 1 in shape


# -- form

OF_OTHER_WAYS = {  # test_other_ways.py and test_torch_ways.py
    kind
    for kind in Behaviour
    if kind.name.startswith(("FORWARD_MODE", "MODES", "PARTIAL", "UNDEFINED", "TRANSFORM", "HESSIAN"))
}
FORMS = {
    Behaviour.NO_GRADIENT: ((3,), None, "backward returns None for W, expected an array of shape (3,)"),
    Behaviour.NOT_FLOATING: ((3,), np.ones(3, complex), "the gradient for W is complex128, expected float64"),
    Behaviour.WRONG_SHAPE: (
        (3,),
        np.ones((5, 2, 3)),
        "the gradient for W has shape (5, 2, 3), expected (3,)",
    ),
    Behaviour.ONLY_BROADCASTS: (
        (2, 3),
        np.ones(3),
        "the gradient for W has shape (3,), expected (2, 3): it only broadcasts to the leaf",
    ),
    Behaviour.NOT_FINITE: (
        (3,),
        np.array([0, np.nan, 1]),
        "the gradient for W is nan at [1], where the forward pass is finite",
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_gradient_of_wrong_form_is_reported(kind):
    shape, gradient, words = FORMS[kind]
    finding = misshapen("W", np.ones(shape), gradient)
    assert (finding.kind, finding.level, finding.leaf) == (kind, Level.FAULT, "W")
    assert sentence(finding) == words


def test_a_gradient_of_correct_form_has_no_finding():
    import ml_dtypes

    half = np.ones(3, ml_dtypes.bfloat16)
    assert misshapen("W", half, half) is None
    assert misshapen("W", np.ones(3), half) is None
    assert misshapen("a", np.asarray(1.0), 2.0) is None
    assert misshapen("a", np.asarray(1.0), np.asarray(2.0)) is None
    assert misshapen("W", np.ones(3), np.arange(3)) is None


def test_a_gradient_of_another_dtype_is_a_warning_and_in_half_precision_a_fault():
    finding = other_dtype("W", np.ones(3), np.ones(3, np.float32), np.ones(5))
    assert (finding.kind, finding.level) == (Behaviour.OTHER_DTYPE, Level.WARNING)
    assert sentence(finding) == "the gradient for W is float32, but forward takes and returns float64"
    assert other_dtype("W", np.ones(3), np.ones(3, np.float16), np.ones(5)).level is Level.FAULT
    assert other_dtype("W", np.ones(3), np.arange(3), np.ones(5)).kind is Behaviour.NOT_FLOATING
    assert other_dtype("a", np.asarray(np.float32(1)), 2.0, np.ones(5, np.float32)) is None
    assert other_dtype("W", np.ones(3, np.float32), np.ones(3), np.ones(5)) is None  # the output is wider, too


# -- words


@pytest.mark.parametrize("level", [Level.FAULT, Level.WARNING])
@pytest.mark.parametrize("kind", list(Behaviour))
def test_every_finding_has_a_sentence(kind, level):
    for detail in ("", "forward", "backward"):
        text = sentence(Finding(kind, level, "W", 2.0, detail))
        assert text
        assert "{" not in text
        assert not text.endswith(".")
        assert "nan" not in text


def test_different_rounding_of_a_steep_function_is_not_a_misread_layout():
    """NumPy rounds powers of reversed and of contiguous arrays differently. The patched power always does."""

    def rounded(x):
        return x if x.flags.c_contiguous else np.nextafter(x, np.inf)

    x = 0.3 * np.random.default_rng(1).standard_normal((7, 11))
    x[2, 3] = 5.0  # x⁷ is steep at this element alone
    steep = (
        lambda x: (np.sin(rounded(x) ** 7), x),
        lambda dout, x: dout * np.cos(rounded(x) ** 7) * 7 * x**6,
    )
    assert check_layer(steep, x).faults == ()
