"""Names the two meanings of a complex gradient of a real loss, each the conjugate of the other.

JAX's is stated in its autodiff cookbook, PyTorch's in its notes on autograd. That of HIPS autograd is JAX's.
"""

from enum import Enum


class Convention(Enum):
    """The meaning of the complex gradient of a real loss L by z = x + iy."""

    PYTORCH = "PyTorch's convention, dL/dx + i dL/dy for z = x + iy"
    JAX = "JAX's convention, dL/dx - i dL/dy for z = x + iy"

    @property
    def of_holomorphic(self) -> str:
        """The gradient of a holomorphic function f by its argument z."""
        return "dout * conj(f'(z))" if self is Convention.PYTORCH else "dout * f'(z), without a conjugate"

    @property
    def of_real(self) -> str:
        """The gradient of a complex function f by its real argument x."""
        return "the real part of " + ("dout * conj(f'(x))" if self is Convention.PYTORCH else "dout * f'(x)")
