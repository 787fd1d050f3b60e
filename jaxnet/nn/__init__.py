"""Layers, networks and losses as pure functions."""

from jaxnet.nn.attention import *
from jaxnet.nn.convolution import *
from jaxnet.nn.description import *
from jaxnet.nn.inference import *
from jaxnet.nn.layers import *
from jaxnet.nn.losses import *
from jaxnet.nn.networks import *
from jaxnet.nn.normalization import *
