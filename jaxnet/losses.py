"""What is made small, and what one would like to see large. Both take logits.

N samples, C classes. Labels t are class numbers (N,) in [0, C), or one-hot rows (N, C).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num


def softmax_cross_entropy(logits: Float[Array, "N C"], t: Int[Array, " N"] | Num[Array, "N C"]) -> Float[Array, ""]:
    """-(1/N) Σₙ log softmax(logitsₙ)[tₙ], in nats: finite however far apart the logits are.

    Bishop, *Pattern Recognition and Machine Learning*, equation 4.108, averaged over the batch.

    Raises:
        ValueError: The shapes of `logits` and `t` do not fit. A class number out of range is not seen here, where
            values may be traced: `fit` looks at them.
    """
    log_y = jax.nn.log_softmax(logits, axis=-1)  # (N, C), shifted by each row's maximum
    return -jnp.sum(_one_hot(t, logits) * log_y) / len(logits)


def accuracy(logits: Float[Array, "N C"], t: Int[Array, " N"] | Num[Array, "N C"]) -> Float[Array, ""]:
    """The share of samples whose largest logit is the true class's, in [0, 1].

    Raises:
        ValueError: The shapes of `logits` and `t` do not fit.
    """
    hits = jnp.argmax(logits, axis=-1) == jnp.argmax(_one_hot(t, logits), axis=-1)
    return jnp.mean(hits, dtype=logits.dtype)


def _one_hot(t: Array, logits: Array) -> Array:
    """Labels in the shape and dtype of the logits. A product with it needs no gather, nor its gradient a scatter."""
    if t.shape == logits.shape:
        return t.astype(logits.dtype)
    if t.shape != logits.shape[:-1] or not jnp.issubdtype(t.dtype, jnp.integer):
        raise ValueError(
            f"t: {t.dtype} of shape {t.shape} does not label logits of shape {logits.shape}; "
            f"expected integers of shape {logits.shape[:-1]} or one-hot rows of shape {logits.shape}"
        )
    return jax.nn.one_hot(t, logits.shape[-1], dtype=logits.dtype)
