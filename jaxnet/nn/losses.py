"""Losses and metrics, beside `numpy_ref/losses.py`, from logits of N samples and C classes.

Labels t are class numbers (N,) in [0, C), or one-hot rows (N, C). Of logits (N, T, C), means run over all N T rows.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jaxnet.common.validation import check_labels
from jaxnet.nn.layers import Params
from jaxnet.nn.tree_paths import leaves_by_path

__all__ = ["accuracy", "correct", "l2_penalty", "mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(logits: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Float[Array, ""]:
    """Returns -(1/N) Σₙ log softmax(logitsₙ)[tₙ], in nats, which is finite however far apart the logits are.

    Bishop, *Pattern Recognition and Machine Learning*, equation 4.108, averaged over the batch.

    Args:
        logits: Scores of any size, (N, C).
        t: Class numbers (N,), or rows (N, C), which may be soft labels.

    Raises:
        ValueError: If the shapes do not fit, or a class number, unless it is traced, is out of range.

    Example:
        >>> float(softmax_cross_entropy(jnp.array([[800.0, 0.0]]), jnp.array([1])))
        800.0
    """
    log_y = jax.nn.log_softmax(logits, axis=-1)  # (N, C), shifted by each row's maximum
    return -jnp.sum(_one_hot(t, logits) * log_y) / math.prod(logits.shape[:-1])


def mean_squared_error(y: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Float[Array, ""]:
    """Returns (1/N) Σₙ ½ |yₙ - tₙ|², where class numbers stand for their one-hot rows.

    The factor ½ is the book's, and Bishop's (*Pattern Recognition and Machine Learning*, equation 5.11).

    Raises:
        ValueError: As for `softmax_cross_entropy`.
    """
    return jnp.sum((y - _one_hot(t, y)) ** 2) / (2 * math.prod(y.shape[:-1]))


def l2_penalty(params: Params, strength: float | Float[Array, ""]) -> Float[Array, ""]:
    """Returns strength/2 Σ W² over the weights, the leaves whose name begins with W: no biases and no embeddings.

    It adds strength * W to the gradient: weight decay (Bishop, *Pattern Recognition and Machine Learning*, eq. 5.112).
    """
    weights = [leaf for name, leaf in leaves_by_path(params).items() if name.split(".")[-1].startswith("W")]
    return jnp.asarray(strength / 2 * sum(jnp.sum(W**2) for W in weights))


def accuracy(logits: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Float[Array, ""]:
    """Returns the share of samples whose largest logit is the true class's, in [0, 1]; those with nan are wrong.

    Raises:
        ValueError: As for `softmax_cross_entropy`.
    """
    return jnp.mean(correct(logits, t), dtype=logits.dtype)


def correct(logits: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Bool[Array, "*N"]:
    """Returns whether each sample's largest logit is the true class's; none is where a logit is nan.

    Raises:
        ValueError: As for `softmax_cross_entropy`.
    """
    predicted = jnp.argmax(logits, axis=-1)  # the place of the first nan, if there is one
    return (predicted == jnp.argmax(_one_hot(t, logits), axis=-1)) & ~jnp.isnan(logits).any(axis=-1)


def _one_hot(t: Array, logits: Array) -> Array:
    """Returns labels in the shape and dtype of the logits: a product needs no gather, its gradient no scatter."""
    if t.shape == logits.shape:
        return t.astype(logits.dtype)
    if t.shape != logits.shape[:-1] or not jnp.issubdtype(t.dtype, jnp.integer):
        raise ValueError(
            f"t: {t.dtype} of shape {t.shape} does not label logits of shape {logits.shape}; "
            f"expected integers of shape {logits.shape[:-1]} or one-hot rows of shape {logits.shape}"
        )
    if t.size and not isinstance(t, jax.core.Tracer):  # `fit` checks the labels before it traces
        check_labels("t", t, logits.shape)
    return jax.nn.one_hot(t, logits.shape[-1], dtype=logits.dtype)
