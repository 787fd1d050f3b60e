"""The commands, a file each. They alone may use both the JAX and the hand-written layers."""
