"""Layers, losses and networks as pure functions: a layer is a pair of functions, `init` and `apply`."""
