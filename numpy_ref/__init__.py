"""Layers, networks and their back propagation written by hand, in NumPy and nothing else."""

from numpy_ref.attention import Attention, Embedding, Position
from numpy_ref.convolution import AveragePool, Convolution, MaxPool
from numpy_ref.functions import cross_entropy_error_one_hot, log_softmax, one_hot, sigmoid, softmax
from numpy_ref.layers import (
    GELU,
    Affine,
    Dropout,
    Flatten,
    Layer,
    MeanSquaredError,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
)
from numpy_ref.networks import Network, TwoLayerNet, build_layers
from numpy_ref.normalization import BatchNorm, LayerNorm
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
    "GELU",
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Affine",
    "Attention",
    "AveragePool",
    "BatchNorm",
    "Convolution",
    "Dropout",
    "Embedding",
    "Flatten",
    "History",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "MeanSquaredError",
    "Momentum",
    "Nesterov",
    "Network",
    "Optimizer",
    "Position",
    "RMSprop",
    "ReLU",
    "Residual",
    "Sequential",
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
