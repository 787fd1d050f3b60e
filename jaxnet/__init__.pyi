from . import crosscheck, data, nn, plots, train
from .data.datasets import Dataset
from .nn.inference import predict, sample
from .nn.losses import accuracy, mean_squared_error, softmax_cross_entropy
from .nn.networks import deep_conv_net, multi_layer_net, notebook_net, simple_conv_net, transformer, two_layer_net
from .train.divergence import DivergedError
from .train.fastest_form import fastest_form
from .train.fit import fit, iter_fit
from .train.history import History, Progress
from .train.random_batches import RandomBatches
from .train.run_plan import initial_state, plan_run
from .train.step import OPTIMIZERS, TrainState, draw_batches, init_train_state, loss, step_noise, train_step
from .train.sweep import Sweep, sweep
from .train.trained_run import TrainedRun, load

DISTRIBUTION: str
__version__: str

__all__ = [
    "OPTIMIZERS",
    "Dataset",
    "DivergedError",
    "History",
    "Progress",
    "RandomBatches",
    "Sweep",
    "TrainState",
    "TrainedRun",
    "accuracy",
    "crosscheck",
    "data",
    "deep_conv_net",
    "draw_batches",
    "fastest_form",
    "fit",
    "init_train_state",
    "initial_state",
    "iter_fit",
    "load",
    "loss",
    "mean_squared_error",
    "multi_layer_net",
    "nn",
    "notebook_net",
    "plan_run",
    "plots",
    "predict",
    "sample",
    "simple_conv_net",
    "softmax_cross_entropy",
    "step_noise",
    "sweep",
    "train",
    "train_step",
    "transformer",
    "two_layer_net",
]
