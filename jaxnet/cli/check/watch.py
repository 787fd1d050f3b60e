"""Runs a check again whenever the checked code changes.

Each run is a forked child of a process that has loaded NumPy and the checker. A fork takes milliseconds; a
fresh interpreter would repeat the imports, and reloaded modules would keep state of an earlier run.
"""

import gc
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from jaxnet.crosscheck import check
from jaxnet.crosscheck.targets import TargetError, forget_bytecode, import_root

STEP = 20  # milliseconds without a change after which a save is complete
LONGEST_WAIT = 500  # milliseconds after which files are compared although no change was announced
MOST_NAMED = 3  # files that are watched
CHECKED = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}

Stamp = tuple[int, int]  # the time of the last change in nanoseconds, and the size


def watch(files: Iterable[Path], run: Callable[[], int]) -> None:
    """Runs a check, waits until a file of the code changes, and runs it again, until Ctrl-C.

    Args:
        files: The files that the targets are in. The modules of their projects that they import are watched as well.
        run: Prints the reports and returns the exit status.

    Raises:
        TargetError: If `watchfiles` is not installed, or the system cannot fork a process.
        KeyboardInterrupt: On Ctrl-C.
    """
    if not hasattr(os, "fork"):
        raise TargetError("watch: needs a system that forks processes, such as Linux or macOS")
    try:
        import watchfiles
    except ModuleNotFoundError:
        from jaxnet import DISTRIBUTION

        raise TargetError(f'watch: needs watchfiles: pip install "{DISTRIBUTION}[watch]"') from None

    warm_up()
    targets = [file.resolve() for file in files]
    watched = set(map(str, targets))
    while True:
        before, start = contents(watched), time.perf_counter()
        status, imported = run_in_child(run, targets)
        watched = {*map(str, targets), *imported}
        before = contents(watched) | before
        verdict, seconds = CHECKED.get(status, "not checked"), time.perf_counter() - start
        clock = time.strftime("%H:%M:%S")
        print(f"{clock}  {verdict} in {seconds:.2f} s; watching {in_words(watched, targets)}, Ctrl-C ends", flush=True)
        if contents(watched) == before:
            folders = {str(Path(file).parent) for file in watched}
            changes = watchfiles.watch(
                *[folder for folder in folders if Path(folder).is_dir()],
                recursive=False, step=STEP, debounce=10 * STEP, rust_timeout=LONGEST_WAIT, yield_on_timeout=True,
            )  # fmt: skip
            next(_ for _ in changes if contents(watched) != before)
        wait_until_saved(watched)
        for file, content in contents(watched).items():
            if content != before.get(file):
                forget_bytecode(Path(file))


def in_words(files: Collection[str], targets: Collection[Path]) -> str:
    """Returns the names of a few files; of many, those of the targets and the number of the others.

    Examples:
        >>> in_words(["/a/mine.py", "/a/b.py"], [Path("/a/mine.py")])
        'b.py, mine.py'
        >>> in_words(["/a/mine.py", "/a/b.py", "/a/c.py", "/a/d.py"], [Path("/a/mine.py")])
        'mine.py and 3 more files'
    """
    if len(files) <= MOST_NAMED:
        return ", ".join(sorted(Path(file).name for file in files))
    named = sorted({file.name for file in targets})[:MOST_NAMED]
    return f"{', '.join(named)} and {len(files) - len(named)} more files"


def wait_until_saved(files: Iterable[str]) -> None:
    """Waits until files do not change for a moment: saving one may empty it first."""
    before = None
    while (after := contents(files)) != before:
        before = after
        time.sleep(STEP / 1000)


def warm_up() -> None:
    """Checks a small layer, so that the children need not load what a check loads, and freezes what they share."""
    check((lambda x: (x**2, x), lambda dout, x: 2 * x * dout), np.ones((2, 2)))
    gc.collect()
    gc.freeze()


def contents(files: Iterable[str]) -> dict[str, bytes | None]:
    """Returns a digest of each file, None if it cannot be read.

    A time stamp alone would not do: editors and formatters write a file several times for one save.
    """
    found: dict[str, bytes | None] = {}
    for file in files:
        try:
            status = os.stat(file)
            found[file] = _digest(file, (status.st_mtime_ns, status.st_size))
        except OSError:
            found[file] = None
    return found


@cache  # a file is read again only after its stamp has changed
def _digest(file: str, _stamp: Stamp) -> bytes:
    return sha256(Path(file).read_bytes()).digest()


def run_in_child(run: Callable[[], int], targets: Iterable[Path]) -> tuple[int, set[str]]:
    """Runs a function in a child of this process, and returns its status and the files of the project it imported."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads of this process, which wait for work
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run_and_exit(run, targets, writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        imported = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, set(json.loads(imported or "[]"))


def _run_and_exit(run: Callable[[], int], targets: Iterable[Path], writer: int) -> None:
    status = 2
    try:
        status = run()
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 2
    except BaseException:
        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(writer, "w") as file:
            json.dump(sorted(project_files(targets, is_imported=status != 2)), file)
    finally:
        os._exit(status)


def project_files(targets: Iterable[Path], *, is_imported: bool) -> set[str]:
    """Returns the files of loaded modules that are in the projects of the targets, but not in installed packages.

    Args:
        targets: The files of the targets.
        is_imported: Whether the targets could be imported. If not, the files beside them are returned as well, one of
            which may be what raised.
    """
    roots = [import_root(file) for file in targets]
    command = sys.modules["__main__"]  # multiprocessing has another name for it
    modules = [module for module in [*sys.modules.values()] if module is not command]
    loaded = [Path(file) for module in modules if (file := getattr(module, "__file__", None))]
    beside = [] if is_imported else [other for file in targets for other in file.parent.glob("*.py")]
    installed = Path(sys.prefix)
    return {
        str(file)
        for file in [*loaded, *beside]
        if any(file.is_relative_to(root) for root in roots) and not file.is_relative_to(installed)
    }
