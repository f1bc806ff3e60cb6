"""Hooks of MkDocs: pages that are made from the code, and links that hold on the site as well.

``mkdocs.yml`` names this file. Pages in ``docs/`` are read in a checkout too, so their links are
those of the repository; here they are led to where the site has the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from tools.site import api, commands, names, tutorials
from tools.site.links import led_to_pages

ROOT = Path(__file__).parents[2]
COPIES: Mapping[str, str] = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "reference/benchmarks.md",
    "examples/README.md": "how-to/emotion-stream.md",
}
"""Pages that lie elsewhere in the repository."""

_FENCE = re.compile(r'^(\s*```\w+) test="[^"]*"$', re.MULTILINE)
_PLOTLY = "assets/plotly.min.js"


def on_config(config: Any) -> Any:
    """Put pages that are made, and those that nobody has put there, into the navigation."""
    made = _made(config)
    groups = {"commands/*": commands.FOLDER, "api/*": api.FOLDER, "tutorials/*": tutorials.FOLDER}
    config.nav = _expanded(config.nav, made, groups)
    known = set(_named(config.nav))
    docs = Path(config.docs_dir)
    left = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - known
    how_to = next(one["How-to"] for one in config.nav if "How-to" in one)
    how_to.extend(sorted(left))
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for uri, text in _made(config).items():
        files.append(File.generated(config, uri, content=text))
    from plotly.offline import get_plotlyjs

    files.append(File.generated(config, _PLOTLY, content=get_plotlyjs()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Lead links to pages, and take out what blocks say to tests alone."""
    origin = {uri: name for name, uri in COPIES.items()}
    origin |= {f"{tutorials.FOLDER}{path.stem}.md": f"notebooks/{path.name}"
               for path in (ROOT / "notebooks").glob("*.ipynb")}  # fmt: skip
    uri = page.file.src_uri
    where = origin.get(uri, f"docs/{uri}")
    pages = {name: site for site, name in origin.items()} | {"README.md": "index.md"}
    known = {file.src_uri for file in files}
    return _FENCE.sub(r"\1", led_to_pages(markdown, where, uri, pages, known))


def _made(config: Any) -> dict[str, str]:
    """Name of each page that is made → its Markdown."""
    cached = config.extra.get("made")
    if cached is None:
        executed = Path(os.environ.get("AFFECTLENS_EXECUTED", ROOT / "build" / "notebooks"))
        cached = {
            **commands.pages(),
            **api.pages(),
            **names.pages(),
            **tutorials.pages(executed, ROOT / "notebooks"),
            **{uri: (ROOT / name).read_text(encoding="utf-8") for name, uri in COPIES.items()},
        }
        config.extra["made"] = cached
    return cached


def _expanded(nav: Any, made: Mapping[str, str], groups: Mapping[str, str]) -> list[Any]:
    """The navigation with ``folder/*`` replaced by the pages that are made in that folder."""
    out: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            out += [{title: _expanded(inner, made, groups) if isinstance(inner, list) else inner}
                    for title, inner in entry.items()]  # fmt: skip
        elif entry in groups:
            out += [uri for uri in made if uri.startswith(groups[entry])]
        else:
            out.append(entry)
    return out


def _named(nav: Any) -> list[str]:
    """All pages that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [name for part in parts for name in _named(part)]
