"""Loads a user's code as it is, named as FILE.py:NAME or module.name:NAME on a command line."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxnet.crosscheck.held_stderr import held_stderr
from jaxnet.crosscheck.inspect.errors import describe, did_you_mean

PROJECT_MARKERS = ("pyproject.toml", "setup.py", ".git")
UNDER_MAIN = "under if __name__ == '__main__'"
MOST_NAMES = 12  # that an error message lists
MOST_FOLDERS = 5  # of modules that a file imports by names that no import path has


class TargetError(ValueError):
    """A file, a name or a value on the command line is wrong; the message says which one and why."""


def load(target: str) -> Any:
    """Returns what FILE.py:NAME names, or the functions of FILE.py:FORWARD,BACKWARD as a pair.

    The file is imported as the module that it is in its project, so relative imports and a `src` folder work. While it
    is imported, `sys.argv` has the file alone, and the working folder is that of the command.

    Args:
        target: The file, or the module's dotted name, and a name in it, which may be dotted, such as `Net.layer`.

    Raises:
        TargetError: If there is no such file or name, or the file raises or exits while it is imported.
    """
    place, _, names = target.rpartition(":")
    if not place or not names:
        raise TargetError(f"{target!r}: expected FILE.py:NAME, or module.name:NAME")
    is_module = not place.endswith(".py") and all(part.isidentifier() for part in place.split("."))
    module = (
        _module_of_name(target, place) if is_module and not Path(place).exists() else _module_of_file(target, place)
    )
    objects = tuple(_attribute(target, module, name) for name in names.split(","))
    return objects if len(objects) > 1 else objects[0]


def load_module(file: str) -> ModuleType:
    """Returns the module of FILE.py, imported as `load` does.

    Raises:
        TargetError: If there is no such file, or it raises or exits while it is imported.
    """
    return _module_of_file(file, file)


def file_of(target: str) -> Path:
    """Returns the file of a target, which need not exist. A module is looked for below the working folder."""
    place = target.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place)
    path = Path(*place.split("."))
    files = [
        folder / file for folder in (Path(), Path("src")) for file in (path.with_suffix(".py"), path / "__init__.py")
    ]
    return next((file for file in files if file.is_file()), files[0])


def import_root(file: Path) -> Path:
    """Returns the folder from which the modules of a file's project are imported.

    It is the folder above the outermost package with an `__init__.py`. For a file in no package, it is the project's
    folder, or its `src`; for a file in no project, the file's own.
    """
    folder = file.parent
    if (folder / "__init__.py").exists():
        while (folder / "__init__.py").exists():
            folder = folder.parent
        return folder
    project = next((path for path in file.parents if any((path / name).exists() for name in PROJECT_MARKERS)), folder)
    return project / "src" if file.is_relative_to(project / "src") else project


def forget_bytecode(file: Path) -> None:
    """Removes what Python compiled from a file earlier.

    Python takes it for current if the file has the size and the second of its time, as after two saves within a second.
    """
    with suppress(OSError):
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def _module_of_file(target: str, place: str) -> ModuleType:
    path = Path(place)
    if path.is_dir():
        raise TargetError(f"{target}: {place} is a folder, expected FILE.py:NAME")
    if not path.is_file():
        near = did_you_mean(path.name, (other.name for other in path.parent.glob("*.py")))
        raise TargetError(f"{target}: there is no file {place}" + (f"; {near}" if near else ""))
    if path.suffix != ".py":
        raise TargetError(f"{target}: {place} is not a Python file, expected FILE.py:NAME")
    file = path.resolve()
    forget_bytecode(file)
    root = import_root(file)
    # A file on its own finds its neighbours before everything else, as when it is run; in a package, it would hide
    # modules of the same names.
    folders = [root] if (file.parent / "__init__.py").exists() else [file.parent, root]
    sys.path[:0] = [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in sys.path]
    return _imported(target, place, file, lambda: _as_module(file, root))


def _as_module(file: Path, root: Path) -> ModuleType:
    """Imports a file by its dotted name below the root, or under its own name if that is not what it is imported as."""
    parts = file.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    if loaded is None and all(part.isidentifier() for part in parts):
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):  # a module that the file's package imports
                raise
            spec = None
        if spec is not None and spec.origin == str(file):
            return importlib.import_module(name)
    return _executed(file, f"_checked_{file.stem}" if file.stem in sys.modules else file.stem)


def _module_of_name(target: str, name: str) -> ModuleType:
    folders = [folder for folder in (Path.cwd(), Path.cwd() / "src") if folder.is_dir()]
    sys.path[:0] = [str(folder) for folder in folders if str(folder) not in sys.path]
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    except Exception as error:  # a parent package raises
        raise TargetError(f"{target}: importing {name} raised {describe(error)}") from error
    if spec is None:
        raise TargetError(f"{target}: there is no module {name} in {Path.cwd()} or among the installed ones")
    return _imported(target, name, Path(spec.origin or name), lambda: importlib.import_module(name))


def _executed(file: Path, name: str) -> ModuleType:
    """Returns the module of a file, which is registered under a name as importing does."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def as_script(file: Path) -> Iterator[None]:
    """Sets `sys.argv` to a file without arguments, as code that reads them expects."""
    argv, sys.argv = sys.argv, [str(file)]
    try:
        yield
    finally:
        sys.argv = argv


def _imported(target: str, place: str, file: Path, run: Callable[[], ModuleType]) -> ModuleType:
    """Returns the module that `run` imports; folders above the file join the import path if their modules are named."""
    with as_script(file), held_stderr() as stderr:
        for _ in range(MOST_FOLDERS):
            try:
                return run()
            except ModuleNotFoundError as error:
                folder = _folder_with((error.name or "").partition(".")[0], file)
                if folder is None:
                    raise TargetError(f"{target}: importing {place} raised {describe(error)}") from error
                sys.path.append(str(folder))
            except SystemExit as stopped:
                raise TargetError(_at_exit(target, place, stopped.code, stderr.drop())) from stopped
            except FileNotFoundError as error:
                name = error.filename if isinstance(error.filename, str) else ""
                is_beside = bool(name) and (file.parent / name).exists()
                help_ = "; files are opened relative to the working folder: change to the folder of the file"
                raise TargetError(
                    f"{target}: importing {place} raised {describe(error)}" + (help_ if is_beside else "")
                ) from error
            except SyntaxError as error:  # raised by the compiler, whose frames are no code of the user
                where = f"{os.path.relpath(error.filename)}:{error.lineno}" if error.filename else place
                raise TargetError(f"{target}: importing {place} raised SyntaxError: {error.msg} ({where})") from error
            except Exception as error:
                help_ = f"; sys.argv has the file alone: read it {UNDER_MAIN}" if _reads_argv(error) else ""
                raise TargetError(f"{target}: importing {place} raised {describe(error)}{help_}") from error
        return run()


def _at_exit(target: str, place: str, status: object, printed: str) -> str:
    """Returns a message that says why a file exits while it is imported, and what to do."""
    lines = [line.strip(" ─│╭╮╰╯") for line in printed.splitlines()]  # without the box of some parsers
    last = next((line for line in reversed(lines) if line), "")
    if isinstance(status, str):  # a message, which Python prints before it exits with status 1
        last, status = last or " ".join(status.split()), 1
    reason = f" ({last})" if last else ""
    return f"{target}: {place} exits with status {status!r} when it is imported{reason}: put what it runs {UNDER_MAIN}"


def _reads_argv(error: Exception) -> bool:
    """Returns whether the line that raised an error reads the arguments of the command line."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "argv" in (frames[-1].line or "")


def _folder_with(name: str, file: Path) -> Path | None:
    """Returns the nearest folder above a file, not yet on the import path, in which there is a module of this name."""
    if not name:
        return None
    for parent in file.parents:
        for folder in (parent, parent / "src"):
            has_module = (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
            if has_module and str(folder) not in sys.path:
                return folder
    return None


def _attribute(target: str, module: ModuleType, name: str) -> Any:
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError:
        pass
    *outer, last = name.split(".")
    try:
        owner: Any = reduce(getattr, outer, module)
    except AttributeError:
        owner, last = module, name.partition(".")[0]
    public = [key for key in vars(owner) if not key.startswith("_")] if hasattr(owner, "__dict__") else []
    own = [key for key in public if getattr(vars(owner)[key], "__module__", None) == module.__name__] or public
    near = did_you_mean(last, public)
    listed = ", ".join(own[:MOST_NAMES]) + (", ..." if len(own) > MOST_NAMES else "")
    raise TargetError(
        f"{target}: no {last} in {'.'.join([Path(module.__file__ or module.__name__).name, *outer])}, "
        f"which has {listed or 'nothing'}" + (f"; {near}" if near else "")
    )
