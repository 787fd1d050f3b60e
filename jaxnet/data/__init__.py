"""Datasets: handwritten digits, MNIST and characters of a text."""

from jaxnet.data.datasets import DATASETS, Dataset, DatasetError, digits, load_mnist, mnist

__all__ = ["DATASETS", "Dataset", "DatasetError", "digits", "load_mnist", "mnist"]
