"""Measures the training over several devices: the same as `jaxnet scaling`."""

from jaxnet.cli.scaling import run

if __name__ == "__main__":
    run()
