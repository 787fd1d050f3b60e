"""Gradients that are wrong because of other calls: accumulated dx, a cache of the class, an early update."""

from mutants.kinds.wrong_state import Dense, of_size, registered, third_call


@registered("state/dx-added-up", "The gradients of all calls are added up in dx.", third_call)
class _Added(Dense):
    total = 0.0

    def backward(self, dout):
        self.total = self.total + super().backward(dout)
        return self.total.copy()


@registered("state/class-level-cache", "The cache is stored in the class, by shape, so instances share it.", third_call)
def _shared(draw):
    class Shared(Dense):
        known: dict = {}  # noqa: RUF012

        def forward(self, x):
            y = super().forward(x)
            self.y = self.known.setdefault(x.shape, y)
            return y.copy()

    return Shared(draw)


@registered("state/steps-before-dx", "W is updated in place before it is used for dx.", of_size(1.0))
class _Steps(Dense):
    def backward(self, dout):
        dW = self.x.T @ (dout * (1 - self.y**2))
        self.W -= 0.1 * dW
        dx = super().backward(dout)
        self.W += 0.1 * dW
        return dx
