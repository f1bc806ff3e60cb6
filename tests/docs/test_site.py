"""The site: it builds without a warning, links lead somewhere, nothing comes from a network."""

from __future__ import annotations

import json
import os
import posixpath
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from affectlens.cli.commands.lists import TABLES
from tests.docs.blocks import ROOT

RESOURCES = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
KINDS = ("tutorials/", "how-to/", "reference/", "explanation/")


@dataclass
class Page(HTMLParser):
    """What a page links to, loads and can be linked at."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        given = dict(attrs)
        for name in ("id", "name"):
            if given.get(name):
                self.anchors.add(str(given[name]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        elif tag in RESOURCES and given.get(RESOURCES[tag]) and given.get("rel") != "canonical":
            self.loaded.append(str(given[RESOURCES[tag]]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly, from notebooks as they are committed."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    executed = {"AFFECTLENS_EXECUTED": str(ROOT / "notebooks"), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **executed}, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Every page by its name."""
    found: dict[str, Page] = {}
    for path in sorted(site.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        found[path.relative_to(site).as_posix()] = page
    return found


def target(page: str, link: str) -> tuple[str, str] | None:
    """The file and anchor that a link of the site leads to; None if it leads out of it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    place = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
    return ("index.html" if place == "." else place), unquote(parts.fragment)


def test_every_link_leads_to_a_page_and_an_anchor(site: Path, pages: dict[str, Page]) -> None:
    broken: list[str] = []
    for name, page in pages.items():
        if name == "404.html":
            continue
        for link in page.links:
            found = target(name, link)
            if found is None:
                continue
            place, anchor = found
            lost = anchor and place in pages and anchor not in pages[place].anchors
            if lost or not (site / place).is_file():
                broken.append(f"{name}: {link}")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_a_network(site: Path, pages: dict[str, Page]) -> None:
    loaded = {(name, one) for name, page in pages.items() for one in page.loaded}
    assert not [pair for pair in loaded if urlsplit(pair[1]).netloc or pair[1].startswith("//")]
    missing = [(name, one) for name, one in loaded
               if name != "404.html" and not one.startswith("data:")
               and not (site / (target(name, one) or ("", ""))[0]).is_file()]  # fmt: skip
    assert not missing
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert "url(http" not in text and "@import" not in text, path


def test_every_page_is_two_clicks_from_the_front(pages: dict[str, Page]) -> None:
    away, waiting = {"index.html": 0}, deque(["index.html"])
    while waiting:
        name = waiting.popleft()
        for link in pages[name].links:
            found = target(name, link)
            if found is not None and found[0] in pages and found[0] not in away:
                away[found[0]] = away[name] + 1
                waiting.append(found[0])
    assert {
        name: away.get(name) for name in pages if name != "404.html" and away.get(name, 9) > 2
    } == {}
    assert all(any(name.startswith(kind) for name in pages) for kind in KINDS)


def test_search_finds_every_page_without_a_server(site: Path, pages: dict[str, Page]) -> None:
    text = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert found >= set(pages) - {"404.html"}


def test_pages_made_from_the_code_have_what_the_code_has(site: Path) -> None:
    import affectlens as al

    commands = (site / "reference" / "commands" / "run.html").read_text(encoding="utf-8")
    assert all(word in commands for word in ("--corpus", "--quantize", "--template-var"))
    names = (site / "reference" / "names.html").read_text(encoding="utf-8")
    assert all(place.partition(":")[2] in names for place in TABLES.values())
    api = "".join(
        path.read_text(encoding="utf-8") for path in (site / "reference" / "api").glob("*.html")
    )
    modules = ("datasets", "serving")
    assert [n for n in al.__all__ if n not in modules and f"al.{n}" not in api] == []


def test_blocks_show_nothing_that_is_for_tests_alone(site: Path) -> None:
    assert not [p for p in site.rglob("*.html") if "test=&quot;" in p.read_text(encoding="utf-8")]
