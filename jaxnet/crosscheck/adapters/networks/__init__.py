"""Adapts networks that start from labels: finds their passes, their cost, and the gradients of their parameters."""
