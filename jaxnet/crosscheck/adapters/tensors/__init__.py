"""Adapts code of objects that hold an array, and perhaps its gradient: engines and tensor classes."""
