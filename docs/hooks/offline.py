"""Keeps the site readable without a network: warns of each script, style sheet or picture from another host."""

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

SOURCES = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}
OTHER_HOST = re.compile(r"^\s*(?:https?:)?//", flags=re.IGNORECASE)
STYLE_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", flags=re.IGNORECASE)

log = logging.getLogger("mkdocs.hooks.offline")


class ResourceParser(HTMLParser):
    """Collects the addresses of what a page loads from other hosts. Links that a reader may click are not loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the address of an element that loads something."""
        address = dict(attrs).get(SOURCES.get(tag, "")) or ""
        if OTHER_HOST.match(address):
            self.remote.append(address)


def on_post_build(config: MkDocsConfig) -> None:
    """Warns of each address, which is an error with `mkdocs build --strict`."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        for address in remote_resources(path):
            log.warning("%s loads %s from another host", path.relative_to(config.site_dir), address)


def remote_resources(path: Path) -> list[str]:
    """Returns the addresses on other hosts that a page or a style sheet loads, and none for other files."""
    if path.suffix == ".css":
        return STYLE_URL.findall(path.read_text(encoding="utf-8"))
    if path.suffix != ".html":
        return []
    parser = ResourceParser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.remote
