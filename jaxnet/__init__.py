"""Layers and networks as pure functions in JAX, their gradients cross-checked, their training one compiled program.

Names are loaded when they are first used, so that checking a NumPy layer does not import JAX. Even what loads them is
imported at the first use, so that the command `jaxnet` handles Ctrl-C within milliseconds.
"""

__version__ = "0.1.0"
DISTRIBUTION = "jaxnet-crosscheck"  # the name on PyPI, where jaxnet is another project


def _attach() -> None:
    """Replaces the functions below by those that load the names of `__init__.pyi`, and defines `__all__`."""
    import lazy_loader

    functions = lazy_loader.attach_stub(__name__, __file__)
    globals().update(zip(("__getattr__", "__dir__", "__all__"), functions, strict=True))


def __getattr__(name: str) -> object:
    _attach()
    return globals()[name] if name == "__all__" else globals()["__getattr__"](name)


def __dir__() -> list[str]:
    _attach()
    return globals()["__dir__"]()
