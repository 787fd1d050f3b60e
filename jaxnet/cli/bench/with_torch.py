"""Training and inference in PyTorch, eager and compiled, with the layers that its users write."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jaxnet.cli.bench.problem import LEARNING_RATE, Problem, Skip, counterparts


def _set(layer: Any, **arrays: np.ndarray) -> Any:
    """Copies arrays into the parameters of these names, and returns the layer."""
    with torch.no_grad():
        for name, array in arrays.items():
            getattr(layer, name).copy_(torch.from_numpy(np.array(array)))
    return layer


class CausalAttention(nn.Module):  # type: ignore[misc]
    """Causal self-attention with one product for q, k and v, as in nanoGPT."""

    def __init__(self, params: Any, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        W = np.concatenate([params["Wq"], params["Wk"], params["Wv"]], axis=1)  # (D, 3D)
        self.q_k_v = _set(nn.Linear(size, 3 * size, bias=False), weight=W.T)
        self.output = _set(nn.Linear(size, size, bias=False), weight=params["Wo"].T)

    def forward(self, x: Any) -> Any:
        """Maps x (N, T, D) to y (N, T, D)."""
        N, T, D = x.shape
        q, k, v = (part.view(N, T, self.heads, D // self.heads).transpose(1, 2) for part in self.q_k_v(x).split(D, -1))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(o.transpose(1, 2).reshape(N, T, D))


class Position(nn.Module):  # type: ignore[misc]
    """Adds the embedding of each position."""

    def __init__(self, params: Any, length: int, size: int) -> None:
        super().__init__()
        self.embedding = _set(nn.Embedding(length, size), weight=params["P"])

    def forward(self, x: Any) -> Any:
        """Maps x (N, T, D) to y (N, T, D)."""
        return x + self.embedding(torch.arange(x.shape[1]))


class Residual(nn.Module):  # type: ignore[misc]
    """Adds its input to the output of its layers."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        """Maps x to x + f(x)."""
        return x + self.layers(x)


def _normalized(layer: Any, params: Any) -> Any:
    return _set(layer, weight=params["gamma"], bias=params["beta"])


LAYERS: dict[str, Callable[..., Any]] = {
    "Affine": lambda p, D, M: _set(nn.Linear(D, M), weight=p["W"].T, bias=p["b"]),
    "Attention": CausalAttention,
    "BatchNorm": lambda p, size, momentum, eps: _normalized(nn.BatchNorm1d(size, eps, 1 - momentum), p),
    "Convolution": lambda p, channels, filters, *window: _set(
        nn.Conv2d(channels, filters, *window), weight=p["W"], bias=p["b"]
    ),
    "Dropout": lambda _, rate: nn.Dropout(rate),
    "Embedding": lambda p, vocabulary, size: _set(nn.Embedding(vocabulary, size), weight=p["E"]),
    "Flatten": lambda _: nn.Flatten(),
    "GELU": lambda _: nn.GELU(approximate="tanh"),
    "LayerNorm": lambda p, size, eps: _normalized(nn.LayerNorm(size, eps), p),
    "MaxPool": lambda _, size, stride, padding: nn.MaxPool2d(size, stride, padding),
    "PositionalEmbedding": Position,
    "ReLU": lambda _: nn.ReLU(),
    "Residual": Residual,
}


def build(problem: Problem, *, images_last: bool) -> Any:
    """Returns the network with the problem's parameters; with its channels last in memory if wanted.

    Raises:
        Skip: If PyTorch has no such layer, or the channels cannot be last.
    """
    if images_last and not problem.has_images:
        raise Skip("only images have channels")
    torch.set_num_threads(problem.threads)
    model = nn.Sequential(*counterparts("PyTorch", LAYERS, problem.net.description[1], problem.params))
    return model.to(memory_format=torch.channels_last) if images_last else model


def compile_function(function: Any) -> Any:
    """Returns a compiled function.

    Raises:
        Skip: If there is no C++ compiler, which torch.compile needs.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "c++"))):
        raise Skip("torch.compile needs a C++ compiler on the PATH")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read at the first use; otherwise it forks workers
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def train_torch(
    problem: Problem, *, fused: bool | None = None, compiled: bool = False, images_last: bool = False
) -> Any:
    """Trains eagerly or compiled, with the default SGD or the fused one."""
    model = build(problem, images_last=images_last).train()
    initial = {name: array.clone() for name, array in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, fused=fused)
    x_train, t_train = torch.from_numpy(problem.data.x_train), torch.from_numpy(problem.data.t_train).long()

    def step(x: Any, t: Any) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, -2), t.flatten()).backward()
        optimizer.step()

    if compiled:
        step = compile_function(step)

    def train(batches: np.ndarray) -> np.ndarray:
        model.load_state_dict(initial)
        for batch in torch.from_numpy(batches.astype(np.int64)):
            x = x_train[batch]
            step(x.to(memory_format=torch.channels_last) if images_last else x, t_train[batch])
        weights = next(model.parameters()).detach().numpy()
        return np.array(weights.T if weights.ndim == 2 and not problem.has_text else weights)

    return train


def predict_torch(problem: Problem, *, compiled: bool = False, images_last: bool = False) -> Any:
    """Returns a function from samples and a batch size to logits, which takes a batch at a time in inference mode."""
    model = build(problem, images_last=images_last).eval()
    forward = compile_function(model) if compiled else model

    def predict(x: np.ndarray, batch_size: int) -> np.ndarray:
        with torch.inference_mode():
            batches = torch.from_numpy(x).split(batch_size)
            if images_last:
                batches = [batch.to(memory_format=torch.channels_last) for batch in batches]
            return np.asarray(torch.cat([forward(batch) for batch in batches]))

    return predict
