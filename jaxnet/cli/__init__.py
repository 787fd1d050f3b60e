"""The commands, a module or a package each. Only this package uses both JAX and hand-written layers."""
