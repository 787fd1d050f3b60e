"""Adapts functions, pairs of functions and losses: what they take again, and what they return."""
