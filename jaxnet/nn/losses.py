"""What is made small, and what one would like to see large.

N samples, C classes. Labels t are class numbers (N,) in [0, C), or one-hot rows (N, C). Samples may be made of
positions, each with logits and a label of its own: (N, T, C) and (N, T), all of them counted alike.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jaxnet.nn.layers import Params
from jaxnet.nn.tree_paths import flatten
from jaxnet.validation import check_labels


def softmax_cross_entropy(logits: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Float[Array, ""]:
    """-(1/N) Σₙ log softmax(logitsₙ)[tₙ], in nats: finite however far apart the logits are.

    Bishop, *Pattern Recognition and Machine Learning*, equation 4.108, averaged over the batch.

    Raises:
        ValueError: A class number is out of range, or the shapes do not fit; within a traced function the shapes alone
            are seen. Rows of the shape of `logits` are taken as they are.
    """
    log_y = jax.nn.log_softmax(logits, axis=-1)  # (N, C), shifted by each row's maximum
    return -jnp.sum(_one_hot(t, logits) * log_y) / math.prod(logits.shape[:-1])


def mean_squared_error(y: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Float[Array, ""]:
    """(1/N) Σₙ ½ |yₙ - tₙ|²; class numbers stand for their one-hot rows.

    The half is the book's, and Bishop's (*Pattern Recognition and Machine Learning*, equation 5.11): the gradient is
    (y - t) / N, as that of softmax cross-entropy is.

    Raises:
        ValueError: As for `softmax_cross_entropy`.
    """
    return jnp.sum((y - _one_hot(t, y)) ** 2) / (2 * math.prod(y.shape[:-1]))


def weight_decay(params: Params, strength: float | Float[Array, ""]) -> Float[Array, ""]:
    """strength/2 Σ W², over the weights: the leaves whose name begins with W, so neither biases nor embeddings.

    Added to a loss, it adds strength * W to the gradient (Bishop, *Pattern Recognition and Machine Learning*, equation
    5.112).
    """
    weights = [leaf for name, leaf in flatten(params).items() if name.split(".")[-1].startswith("W")]
    return jnp.asarray(strength / 2 * sum(jnp.sum(W**2) for W in weights))


def accuracy(logits: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Float[Array, ""]:
    """The share of samples whose largest logit is the true class's, in [0, 1].

    Raises:
        ValueError: As for `softmax_cross_entropy`.
    """
    return jnp.mean(correct(logits, t), dtype=logits.dtype)


def correct(logits: Float[Array, "*N C"], t: Int[Array, "*N"] | Num[Array, "*N C"]) -> Bool[Array, "*N"]:
    """Whether each sample's largest logit is the true class's.

    Raises:
        ValueError: As for `softmax_cross_entropy`.
    """
    return jnp.argmax(logits, axis=-1) == jnp.argmax(_one_hot(t, logits), axis=-1)


def _one_hot(t: Array, logits: Array) -> Array:
    """Returns labels in the shape and dtype of the logits: a product needs no gather, its gradient no scatter."""
    if t.shape == logits.shape:
        return t.astype(logits.dtype)
    if t.shape != logits.shape[:-1] or not jnp.issubdtype(t.dtype, jnp.integer):
        raise ValueError(
            f"t: {t.dtype} of shape {t.shape} does not label logits of shape {logits.shape}; "
            f"expected integers of shape {logits.shape[:-1]} or one-hot rows of shape {logits.shape}"
        )
    if t.size and not isinstance(t, jax.core.Tracer):  # whose values are known only later; `fit` has looked at them
        check_labels("t", t, logits.shape)
    return jax.nn.one_hot(t, logits.shape[-1], dtype=logits.dtype)
