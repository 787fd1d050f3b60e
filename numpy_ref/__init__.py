"""Layers, networks and their back propagation written by hand, in NumPy and nothing else."""

from numpy_ref.attention import *
from numpy_ref.convolution import *
from numpy_ref.layers import *
from numpy_ref.losses import *
from numpy_ref.networks import *
from numpy_ref.normalization import *
from numpy_ref.numerical import *
from numpy_ref.optimizers import *
from numpy_ref.training import *
