from . import crosscheck, data, nn, plots, train
from .data.datasets import Dataset
from .nn.attention import attention, embedding, position
from .nn.convolution import average_pool, convolution, max_pool
from .nn.inference import predict, sample
from .nn.layers import Layer, affine, dropout, flatten, gelu, relu, residual, sequential, sigmoid, stateless, tanh
from .nn.losses import accuracy, mean_squared_error, softmax_cross_entropy, weight_decay
from .nn.networks import deep_conv_net, multi_layer_net, notebook_net, simple_conv_net, transformer, two_layer_net
from .nn.normalization import batch_norm, layer_norm
from .train.divergence import DivergedError
from .train.fit import fit, initial_state, iter_fit
from .train.step import (
    OPTIMIZERS,
    History,
    Progress,
    TrainState,
    draw_batches,
    init_train_state,
    loss,
    step_draws,
    train_step,
)
from .train.sweep import Sweep, sweep

__version__: str

__all__ = [
    "OPTIMIZERS",
    "Dataset",
    "DivergedError",
    "History",
    "Layer",
    "Progress",
    "Sweep",
    "TrainState",
    "accuracy",
    "affine",
    "attention",
    "average_pool",
    "batch_norm",
    "convolution",
    "crosscheck",
    "data",
    "deep_conv_net",
    "draw_batches",
    "dropout",
    "embedding",
    "fit",
    "flatten",
    "gelu",
    "init_train_state",
    "initial_state",
    "iter_fit",
    "layer_norm",
    "loss",
    "max_pool",
    "mean_squared_error",
    "multi_layer_net",
    "nn",
    "notebook_net",
    "plots",
    "position",
    "predict",
    "relu",
    "residual",
    "sample",
    "sequential",
    "sigmoid",
    "simple_conv_net",
    "softmax_cross_entropy",
    "stateless",
    "step_draws",
    "sweep",
    "tanh",
    "train",
    "train_step",
    "transformer",
    "two_layer_net",
    "weight_decay",
]
