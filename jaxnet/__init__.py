"""Layers and networks as pure functions in JAX, their gradients cross-checked, their training one compiled program."""

from jaxnet import crosscheck, datasets, devices, runs, text
from jaxnet.attention import attention, embedding, position
from jaxnet.convolution import average_pool, convolution, max_pool
from jaxnet.datasets import Dataset
from jaxnet.divergence import DivergedError
from jaxnet.inference import predict, sample
from jaxnet.layers import Layer, affine, dropout, flatten, gelu, relu, residual, sequential, sigmoid, stateless, tanh
from jaxnet.loop import fit, initial_state, stages
from jaxnet.losses import accuracy, mean_squared_error, softmax_cross_entropy, weight_decay
from jaxnet.networks import deep_conv_net, multi_layer_net, notebook_net, simple_conv_net, transformer, two_layer_net
from jaxnet.normalization import batch_norm, layer_norm
from jaxnet.sweeping import Sweep, sweep
from jaxnet.training import (
    OPTIMIZERS,
    History,
    Stage,
    TrainState,
    draw_batches,
    init_train_state,
    loss,
    step_draws,
    train_step,
)

__all__ = [
    "OPTIMIZERS",
    "Dataset",
    "DivergedError",
    "History",
    "Layer",
    "Stage",
    "Sweep",
    "TrainState",
    "accuracy",
    "affine",
    "attention",
    "average_pool",
    "batch_norm",
    "convolution",
    "crosscheck",
    "datasets",
    "deep_conv_net",
    "devices",
    "draw_batches",
    "dropout",
    "embedding",
    "fit",
    "flatten",
    "gelu",
    "init_train_state",
    "initial_state",
    "layer_norm",
    "loss",
    "max_pool",
    "mean_squared_error",
    "multi_layer_net",
    "notebook_net",
    "position",
    "predict",
    "relu",
    "residual",
    "runs",
    "sample",
    "sequential",
    "sigmoid",
    "simple_conv_net",
    "softmax_cross_entropy",
    "stages",
    "stateless",
    "step_draws",
    "sweep",
    "tanh",
    "text",
    "train_step",
    "transformer",
    "two_layer_net",
    "weight_decay",
]
