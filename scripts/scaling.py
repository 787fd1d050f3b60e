"""Measures training on several devices, as `jaxnet scaling` does."""

from jaxnet.cli.scaling import run

if __name__ == "__main__":
    run()
