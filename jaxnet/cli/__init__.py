"""The commands, one file each with its helpers beside it. Only this package uses both JAX and hand-written layers."""
