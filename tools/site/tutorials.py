"""Notebooks as pages: the code, and what came out when they were run, figures included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "tutorials/"
INDEX = f"{FOLDER}index.md"
_SCRIPT = '<script src="../assets/plotly.min.js"></script>\n'
_HTML_KEPT = ("<table", "<div", "<p", "<span", "<pre", "<svg", "<style")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class MissingNotebookError(Exception):
    """A notebook that has not been run."""


def pages(executed: Path, sources: Path) -> dict[str, str]:
    """A page for each notebook, and one that lists them.

    Args:
        executed: Folder of the copies that were run (``make notebooks``).
        sources: Folder of the notebooks.

    Raises:
        MissingNotebookError: If one of them has not been run.
    """
    made = {INDEX: ""}
    rows: list[str] = []
    for source in sorted(sources.glob("*.ipynb"), key=lambda path: path.stem != "quickstart"):
        copy = executed / source.name
        if not copy.is_file():
            raise MissingNotebookError(f"{copy} is not there; run `make notebooks` first.")
        name = f"{FOLDER}{source.stem}.md"
        made[name] = page(copy)
        title = made[name].split("\n", 1)[0].removeprefix("# ")
        rows.append(f"- [{title}]({source.stem}.md)")
    made[INDEX] = (
        "# Tutorials\n\n"
        "Each is a notebook, shown as it ran on the default model; run it yourself from "
        "`notebooks/` (`pip install 'affectlens[notebooks]'`). They are to be read from top to "
        "bottom: the first once, the others when you get there.\n\n" + "\n".join(rows) + "\n"
    )
    return made


def page(path: Path) -> str:
    """An executed notebook as Markdown with its outputs as HTML."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    parts: list[str] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(fenced(cell.source, "python"))
            parts += outputs(cell.outputs, f"cell-{number}")
    text = "\n\n".join(parts) + "\n"
    if "Plotly.newPlot" in text:
        head, _, rest = text.partition("\n")
        text = f"{head}\n\n{_SCRIPT}{rest}"
    return text


def outputs(given: list[Any], name: str) -> Iterator[str]:
    """What a cell left: text, tables, pictures, figures; progress on stderr is left out."""
    for i, one in enumerate(given):
        if one.output_type == "stream":
            if one.name == "stdout":
                yield fenced(_plain(one.text), "text")
        elif one.output_type == "error":
            raise MissingNotebookError(f"{name} ended in {one.ename}: {one.evalue}")
        else:
            shown = best(one.data, f"{name}-{i}")
            if shown:
                yield shown


def best(data: Any, name: str) -> str:
    """The richest form of an output that a page can show."""
    if "application/vnd.plotly.v1+json" in data:
        return figure(data["application/vnd.plotly.v1+json"], name)
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    html = data.get("text/html", "").strip()
    if html.startswith(_HTML_KEPT) and "<script" not in html:
        # A blank line would end the HTML block.
        return '<div class="output">' + re.sub(r"\n\s*\n", "\n", html) + "</div>"
    return fenced(_plain(data["text/plain"]), "text") if "text/plain" in data else ""


def figure(spec: Any, name: str) -> str:
    """A plotly figure, drawn by the one copy of plotly.js that the site has."""
    layout = json.dumps({**spec.get("layout", {}), "autosize": True}).replace("</", "<\\/")
    data = json.dumps(spec["data"]).replace("</", "<\\/")
    height = spec.get("layout", {}).get("height", 450)
    return (
        f'<div id="{name}" style="height:{height}px"></div>\n'
        f'<script>Plotly.newPlot("{name}",{data},{layout},{{"responsive":true}})</script>'
    )


def fenced(text: str, language: str) -> str:
    """A block of code, whatever is in it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def _plain(text: str) -> str:
    return _ESCAPES.sub("", text)
