from . import html, svg
from .comparing import (
    accuracies_by_init_std,
    activations,
    losses,
    optimizer_paths,
    overfitting,
    run_curves,
    sweep_map,
)
from .training import first_layer_weights, learning_curves, mistakes, save, step_sizes

__all__ = [
    "accuracies_by_init_std",
    "activations",
    "first_layer_weights",
    "html",
    "learning_curves",
    "losses",
    "mistakes",
    "optimizer_paths",
    "overfitting",
    "run_curves",
    "save",
    "step_sizes",
    "svg",
    "sweep_map",
]
