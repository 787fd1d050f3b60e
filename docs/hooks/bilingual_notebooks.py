"""Notebooks in English and Korean from the same cells.

A source is a Python file in jupytext's percent format. Each text stands in it twice, as two markdown cells one after
the other, the first marked `lang="en"` and the second `lang="ko"`; code cells are shared. A code cell that draws
describes its picture in both languages, as in `# %% alt_en="A falling curve" alt_ko="내려가는 곡선"`, and one that is
meant to fail is marked `tags=["raises-exception"]`.
"""

import base64
import hashlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

SUFFIXES = {"en": "", "ko": ".ko"}  # language: what stands between the name of a notebook and its extension
FACTS = {
    "headings": r"^#+ ",
    "formulas": r"\$\$.+?\$\$|\$.+?\$",
    "code": r"```.+?```|`[^`]+`",
    "links": r"\]\([^)]+\)",
    "numbers": r"\d+(?:[.,]\d+)*",
}
TIMEOUT = 300  # seconds for one cell


class NotebookError(ValueError):
    """Raised for a notebook that cannot be published. The message names the file and the cell."""


class KernelError(RuntimeError):
    """Raised when the process that runs a notebook has ended, as it does when the build is killed."""


def read(source: Path) -> NotebookNode:
    """Reads a source and checks that no text lacks a language.

    Args:
        source: A file in the percent format.

    Returns:
        The notebook, with the texts of both languages and without outputs.

    Raises:
        NotebookError: If a text is missing in one language, or the two do not state the same.
    """
    notebook = jupytext.read(source, fmt="py:percent")
    texts: list[NotebookNode] = []
    for cell in [*notebook.cells, None]:
        if cell is not None and cell.cell_type == "markdown":
            texts.append(cell)
        else:
            _check_texts(source.name, texts)
            texts = []
    return notebook


def _check_texts(name: str, texts: list[NotebookNode]) -> None:
    """Checks the markdown cells between two code cells, which alternate between the languages."""
    for i, cell in enumerate(texts):
        expected = tuple(SUFFIXES)[i % len(SUFFIXES)]
        if cell.metadata.get("lang") != expected:
            raise NotebookError(
                f"{name}: the cell {_opening(cell)!r} has lang={cell.metadata.get('lang')!r}, expected {expected!r}: "
                "each English text is followed by its Korean translation"
            )
    if len(texts) % len(SUFFIXES):
        raise NotebookError(f"{name}: the cell {_opening(texts[-1])!r} has no Korean translation after it")
    for english, korean in zip(texts[::2], texts[1::2], strict=True):
        for kind, pattern in FACTS.items():
            in_english, in_korean = (_facts(kind, pattern, cell.source) for cell in (english, korean))
            if in_english != in_korean:
                raise NotebookError(
                    f"{name}: the {kind} of the cell {_opening(english)!r} differ: only in English "
                    f"{list(in_english - in_korean)}, only in Korean {list(in_korean - in_english)}"
                )


def _facts(kind: str, pattern: str, text: str) -> Counter[str]:
    """Counts what two translations of a text must share, in any order: word order differs between languages."""
    if kind == "numbers":  # those of formulas and code are compared with them
        text = re.sub("|".join(FACTS[other] for other in ("formulas", "code", "links")), " ", text, flags=re.DOTALL)
    facts = re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE)
    return Counter(" ".join(fact.replace(".ko.", ".").split()) for fact in facts)


def _opening(cell: NotebookNode) -> str:
    return str(cell.source).strip().partition("\n")[0][:60]


def execute(notebook: NotebookNode, folder: Path, cache: Path) -> NotebookNode:
    """Runs the code cells of a notebook in their order.

    Args:
        notebook: The notebook, as from `read`.
        folder: The root of the repository, in which the cells run.
        cache: A folder of executed notebooks. A notebook is run again if it or any Python file of the packages changes.

    Returns:
        The notebook with outputs.

    Raises:
        CellExecutionError: If a cell raises an error that it is not marked for.
        KernelError: If the process that runs the cells ends before them.
    """
    executed = cache / f"{_digest(notebook, folder)}.ipynb"
    if executed.exists():
        return nbformat.read(executed, as_version=4)  # type: ignore[no-untyped-call]
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    # One BLAS thread: with a second on a busy machine, small products take ten times as long.
    try:
        client.execute(
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,  # of the kernel itself: warnings, and a traceback if the build is killed
        )
    except (AssertionError, RuntimeError) as error:  # nbclient ends the process on a signal, and asserts that it runs
        raise KernelError("the process that runs its cells was ended") from error
    cache.mkdir(parents=True, exist_ok=True)
    partial = executed.with_suffix(f".{os.getpid()}")
    nbformat.write(notebook, partial)  # type: ignore[no-untyped-call]
    partial.replace(executed)
    return notebook


def _digest(notebook: NotebookNode, folder: Path) -> str:
    digest = hashlib.sha256(jupytext.writes(notebook, fmt="py:percent").encode())
    for path in sorted(path for room in ("jaxnet", "numpy_ref") for path in (folder / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def edition(notebook: NotebookNode, language: str) -> NotebookNode:
    """Returns a notebook for Jupyter with the texts of one language and all code cells.

    Args:
        notebook: The notebook, as from `read` or `execute`.
        language: A key of `SUFFIXES`.
    """
    cells = [cell for cell in notebook.cells if cell.metadata.get("lang", language) == language]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)  # type: ignore[no-untyped-call]


def to_markdown(notebook: NotebookNode, name: str, language: str) -> tuple[str, dict[str, bytes]]:
    """Converts an executed notebook to a page of the site, in the site's own style and with files for its pictures.

    Args:
        notebook: One edition, with outputs.
        name: The name of the notebook, from which those of its pictures are made.
        language: The language of the pictures' descriptions.

    Returns:
        The page, and its pictures by file name.

    Raises:
        NotebookError: If a picture has no description.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                if not (alt := cell.metadata.get(f"alt_{language}")):
                    raise NotebookError(f"{name}: no alt_{language} on the cell that draws: {_opening(cell)!r}")
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(png)
                parts.append(f"![{alt}]({picture})")
            elif table := output.get("data", {}).get("text/html"):
                parts.append(f'<div class="output">\n{table}\n</div>')
        if text := "".join(_texts(cell.outputs)).rstrip("\n"):
            parts.append(f"```{{ .text .output .no-copy }}\n{text}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _texts(outputs: list[Any]) -> Iterator[str]:
    for output in outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield f"{output.ename}: {output.evalue}\n"
        elif output.data.keys().isdisjoint(("image/png", "text/html")):
            yield output.data["text/plain"] + "\n"
