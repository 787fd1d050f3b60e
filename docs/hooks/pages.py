"""Pages of the site that lie elsewhere: the files in the root of the repository, and the notebooks."""

import logging
import os
import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import bilingual_notebooks
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
OTHER_LANGUAGE = {"en": ("ko", "한국어로 읽기"), "ko": ("en", "Read in English")}
DOWNLOAD = {"en": "Download as a Jupyter notebook, with outputs", "ko": "출력이 담긴 Jupyter 노트북 내려받기"}
LINK = re.compile(r"(?P<text>!?\[[^\[\]]*\])\((?P<target>(?!\w+:)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")

NOTEBOOKS = "NOTEBOOKS"  # the environment variable that may be "skip"

log = logging.getLogger("mkdocs.hooks.pages")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from other files, and completes the navigation."""
    root = Path(config.config_file_path).parent
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text(encoding="utf-8")))
    for picture in sorted((root / ".readme").iterdir()):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    for source in sorted((root / "docs" / "notebooks").glob("*.py")):
        for file in _notebook_files(source, root, config):
            files.append(file)
    if config.nav is not None:
        config.nav = complete_nav(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Makes links between files of the repository links between pages of the site.

    A link to a file that is no page, such as code, becomes its text alone.
    """

    def on_site(match: re.Match[str]) -> str:
        target = relink(match["target"], page.file.src_uri)
        return match["text"].strip("![]") if target is None else f"{match['text']}({target}{match['anchor'] or ''})"

    return LINK.sub(on_site, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Marks the language of Korean pages, for screen readers and the choice of fonts."""
    return output.replace('<html lang="en"', '<html lang="ko"', 1) if page.file.src_uri.endswith(".ko.md") else output


def runs_notebooks() -> bool:
    """Returns whether the cells of the notebooks are run, which takes minutes.

    Raises:
        Abort: If the environment variable NOTEBOOKS is neither unset nor "skip".
    """
    if (choice := os.environ.get(NOTEBOOKS, "")) not in ("", "skip"):
        raise Abort(f"{NOTEBOOKS}={choice}, expected skip, or nothing to run the notebooks")
    return not choice


def relink(target: str, page: str) -> str | None:
    """Returns where a link leads on the site, or None if it leads to no page.

    Args:
        target: The link as written, relative to its file in the repository.
        page: The page of the site that has the link.

    Examples:
        >>> relink("docs/crosscheck.md", "index.md"), relink("../README.md", "crosscheck.md")
        ('crosscheck.md', 'index.md')
        >>> relink(".readme/v.png", "index.md"), relink("nn.md", "api/data.md")
        ('pictures/v.png', 'nn.md')
        >>> relink("docs/notebooks/back_propagation.py", "index.md"), relink("numpy_ref/layers.py", "index.md")
        ('notebooks/back_propagation.md', None)
    """
    folder = "" if page in ROOT_PAGES.values() else posixpath.join("docs", posixpath.dirname(page))
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in ROOT_PAGES:
        path = ROOT_PAGES[path]
    elif path.startswith(".readme/"):
        path = path.replace(".readme/", "pictures/", 1)
    elif path.startswith("docs/"):
        path = path.removeprefix("docs/")
        if path.startswith("notebooks/"):
            path = re.sub(r"\.py$", ".md", path)
    else:
        return None
    return posixpath.relpath(path, posixpath.dirname(page) or ".")


def complete_nav(nav: Any, pages: list[str]) -> Any:
    """Replaces each pattern in a navigation, such as "*.md", by the pages that fit it and are not named elsewhere.

    Examples:
        >>> complete_nav([{"Home": "index.md"}, {"More": ["b.md", "*.md"]}], ["a.md", "b.md", "c/d.md", "index.md"])
        [{'Home': 'index.md'}, {'More': ['b.md', 'a.md']}]
    """
    named = set(_named_pages(nav))

    def complete(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: complete(item) for title, item in entry.items()}
        if not isinstance(entry, list):
            return entry
        items: list[Any] = []
        for item in entry:
            if isinstance(item, str) and "*" in item:
                items += [
                    page
                    for page in sorted(pages)
                    if page not in named and fnmatch(page, item) and page.count("/") == item.count("/")
                ]
            else:
                items.append(complete(item))
        return items

    return complete(nav)


def _named_pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named_pages(item)


def _notebook_files(source: Path, root: Path, config: MkDocsConfig) -> Iterator[File]:
    """Yields the pages, pictures and Jupyter notebooks of one source."""
    notebook = bilingual_notebooks.read(source)
    if runs_notebooks():
        log.info("Running the cells of %s, unless they were run before", source.relative_to(root))
        try:
            notebook = bilingual_notebooks.execute(notebook, root, root / ".cache" / "notebooks")
        except bilingual_notebooks.KernelError as error:
            raise Abort(
                f"{source.relative_to(root)}: {error}; {NOTEBOOKS}=skip builds the site without outputs"
            ) from None
    for language, suffix in bilingual_notebooks.SUFFIXES.items():
        name = source.stem + suffix
        edition = bilingual_notebooks.edition(notebook, language)
        text, pictures = bilingual_notebooks.to_markdown(edition, name, language)
        other, invitation = OTHER_LANGUAGE[language]
        title, _, body = text.partition("\n")
        links = (
            f"[{invitation}]({source.stem}{bilingual_notebooks.SUFFIXES[other]}.md) · "
            f"[{DOWNLOAD[language]}]({name}.ipynb)"
        )
        yield File.generated(config, f"notebooks/{name}.md", content=f"{title}\n\n{links}\n{body}")
        yield File.generated(config, f"notebooks/{name}.ipynb", content=nbformat.writes(edition))  # type: ignore[no-untyped-call]
        for picture, content in pictures.items():
            yield File.generated(config, f"notebooks/{picture}", content=content)
