"""Adapts layers that update their parameters: computes the gradients from the updates."""
