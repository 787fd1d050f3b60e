"""A two-layer network and its back propagation written by hand, in NumPy and nothing else."""

from numpy_ref.functions import cross_entropy_error_one_hot, log_softmax, one_hot, sigmoid, softmax
from numpy_ref.layers import Affine, ReLU, Sigmoid, SoftmaxWithLoss, Tanh
from numpy_ref.networks import Network, TwoLayerNet, build_layers
from numpy_ref.numerical import numerical_gradient, numerical_gradient_batch, numerical_gradient_batch_v2
from numpy_ref.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
    clip_by_global_norm,
    make_optimizer,
)
from numpy_ref.training import History, train

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Affine",
    "History",
    "Momentum",
    "Nesterov",
    "Network",
    "Optimizer",
    "RMSprop",
    "ReLU",
    "Sigmoid",
    "SoftmaxWithLoss",
    "Tanh",
    "TwoLayerNet",
    "build_layers",
    "clip_by_global_norm",
    "cross_entropy_error_one_hot",
    "log_softmax",
    "make_optimizer",
    "numerical_gradient",
    "numerical_gradient_batch",
    "numerical_gradient_batch_v2",
    "one_hot",
    "sigmoid",
    "softmax",
    "train",
]
