"""A two-layer network as pure functions in JAX, its gradients cross-checked, its training one compiled program."""

from jaxnet import datasets
from jaxnet.datasets import Dataset
from jaxnet.layers import Layer, affine, relu, sequential, sigmoid, tanh
from jaxnet.losses import accuracy, softmax_cross_entropy
from jaxnet.networks import loss, multi_layer_net, notebook_net, two_layer_net
from jaxnet.training import OPTIMIZERS, DivergedError, History, TrainState, draw_batches, fit, train_loop, train_step

__all__ = [
    "OPTIMIZERS",
    "Dataset",
    "DivergedError",
    "History",
    "Layer",
    "TrainState",
    "accuracy",
    "affine",
    "datasets",
    "draw_batches",
    "fit",
    "loss",
    "multi_layer_net",
    "notebook_net",
    "relu",
    "sequential",
    "sigmoid",
    "softmax_cross_entropy",
    "tanh",
    "train_loop",
    "train_step",
    "two_layer_net",
]
