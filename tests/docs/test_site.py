"""Tests what the site is made with. `mkdocs build --strict` itself checks the pages, their links and the API."""

import doctest
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import sampled

from jaxnet import crosscheck

DOCS = Path(__file__).parents[2] / "docs"


def hook(name):
    """Imports a hook of mkdocs, which the group `docs` installs."""
    for package in ("mkdocs", "latex2mathml"):
        pytest.importorskip(package, reason="uv run --group docs pytest tests/docs")
    return import_module(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["formulas", "pages"])
def test_the_examples_of_the_hooks_print_what_they_say(name):
    results = doctest.testmod(hook(name))
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize(
    ("name", "content", "remote"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ("a.html", '<link rel="stylesheet" href="//cdn.example/x.css">', ["//cdn.example/x.css"]),
        ("a.html", '<img alt="" src="http://example/x.png">', ["http://example/x.png"]),
        ("a.html", '<a href="https://example/">read</a><img src="x.png"><script>"https://x"</script>', []),
        ("a.css", '@import "https://example/x.css"; p {background: url(//example/x.png)}',
         ["https://example/x.css", "//example/x.png"]),
        ("a.css", "p {background: url(x.png)} /* https://example */", []),
        ("a.js", 'fetch("https://example")', []),
    ],
)  # fmt: skip
def test_what_a_page_loads_from_other_hosts_is_detected(tmp_path, name, content, remote):
    (tmp_path / name).write_text(content)
    assert hook("offline").remote_resources(tmp_path / name) == remote


@pytest.mark.parametrize(("value", "runs"), [(None, True), ("", True), ("skip", False)])
def test_notebooks_are_run_unless_the_environment_says_skip(monkeypatch, value, runs):
    pages, executed = hook("pages"), []
    monkeypatch.delenv("NOTEBOOKS", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTEBOOKS", value)
    monkeypatch.setattr(pages.bilingual_notebooks, "execute", lambda notebook, *_: executed.append(1) or notebook)
    config = SimpleNamespace(site_dir="", use_directory_urls=True, plugins=SimpleNamespace(_current_plugin=None))
    made = list(pages._notebook_files(DOCS / "notebooks" / "compiled_run.py", DOCS.parent, config))
    assert bool(executed) == runs
    assert "fit(" in made[0].content_string


def test_a_wrong_choice_of_notebooks_is_refused(monkeypatch):
    pages = hook("pages")
    monkeypatch.setenv("NOTEBOOKS", "no")
    with pytest.raises(SystemExit) as refused:
        pages.runs_notebooks()
    assert str(refused.value) == "NOTEBOOKS=no, expected skip, or nothing to run the notebooks"


BUILD = """
import pages, sys
from pathlib import Path
try:
    list(pages._notebook_files(Path("n.py").absolute(), Path.cwd(), None))
except SystemExit as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(stopped.code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "killed", sampled(["os.getppid(), signal.SIGTERM", "os.getppid(), signal.SIGINT", "os.getpid(), 9"], 3)
)
def test_a_killed_build_ends_in_one_line(tmp_path, killed):
    hook("pages")
    (tmp_path / "n.py").write_text(f"# %%\nimport os, signal, time\nos.kill({killed})\ntime.sleep(100)\n")
    environment = os.environ | {"PYTHONPATH": str(DOCS / "hooks"), "NOTEBOOKS": ""}
    done = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    message = "n.py: the process that runs its cells was ended; NOTEBOOKS=skip builds the site without outputs"
    assert done.stderr.strip() == message


def test_every_public_name_of_the_checker_has_its_place_and_the_checks_come_first():
    documented = re.findall(r"^::: jaxnet\.crosscheck\.(\w+)$", (DOCS / "api" / "crosscheck.md").read_text(), re.M)
    assert documented[:4] == ["check", "check_function", "check_layer", "check_network"]
    assert sorted(documented) == sorted(crosscheck.__all__)


def test_every_public_name_of_the_package_has_its_place():
    import jaxnet

    page = (DOCS / "api" / "jaxnet.md").read_text()
    for name in jaxnet.__all__:
        assert re.search(rf"`(jaxnet\.)?{name}`|\[jaxnet\.{name}\]", page), name
