"""Adapts layers: how they keep their parameters, take their inputs, and leave their gradients."""
