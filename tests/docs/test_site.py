"""Tests what the site is made with. `mkdocs build --strict` itself checks the pages, their links and the API."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

from jaxnet import crosscheck

DOCS = Path(__file__).parents[2] / "docs"


def hook(name):
    """Imports a hook of mkdocs, which the group `docs` installs."""
    for package in ("mkdocs", "latex2mathml"):
        pytest.importorskip(package, reason="uv run --group docs pytest tests/docs")
    return import_module(name)


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


def test_every_public_name_of_the_checker_has_its_place_and_the_checks_come_first():
    documented = re.findall(r"^::: jaxnet\.crosscheck\.(\w+)$", (DOCS / "api" / "crosscheck.md").read_text(), re.M)
    assert documented[:4] == ["check", "check_function", "check_layer", "check_network"]
    assert sorted(documented) == sorted(crosscheck.__all__)


def test_every_public_name_of_the_package_has_its_place():
    import jaxnet

    page = (DOCS / "api" / "jaxnet.md").read_text()
    for name in jaxnet.__all__:
        assert re.search(rf"`(jaxnet\.)?{name}`|\[jaxnet\.{name}\]", page), name
