"""Notebooks as pages: what was computed is shown, figures included."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.site.links import led_to_pages
from tools.site.tutorials import MissingNotebookError, fenced, page, pages

FIGURE = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {"title": {"text": "</script>"}}}


def saved(path: Path, *outputs: object) -> Path:
    cells = [
        new_markdown_cell("# A title\n\nWords."),
        new_code_cell("1 + 1", outputs=list(outputs)),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_each_kind_of_output_is_shown(tmp_path: Path) -> None:
    text = page(
        saved(
            tmp_path / "a.ipynb",
            new_output("stream", name="stdout", text="\x1b[1mbold\x1b[0m\n"),
            new_output("stream", name="stderr", text="a bar of progress"),
            new_output("execute_result", data={"text/plain": "2"}),
            new_output(
                "display_data",
                data={"text/html": "<table><tr>\n\n<td>cell</td></tr></table>", "text/plain": "x"},
            ),
            new_output("display_data", data={"image/png": "AAAA\n", "text/plain": "x"}),
            new_output(
                "display_data",
                data={"application/vnd.plotly.v1+json": FIGURE, "text/html": "<div>other</div>"},
            ),
        )
    )
    assert text.startswith("# A title\n\n<script src=")
    assert "```python\n1 + 1\n```" in text
    assert "```text\nbold\n```" in text and "progress" not in text and "```text\n2\n```" in text
    assert "<tr>\n<td>cell</td>" in text and "data:image/png;base64,AAAA" in text
    assert text.count("Plotly.newPlot") == 1 and "other" not in text
    assert text.count("</script>") == 2  # that of the library and the figure's own


def test_a_notebook_without_figures_loads_no_library(tmp_path: Path) -> None:
    assert "<script" not in page(saved(tmp_path / "a.ipynb"))


def test_what_has_not_run_is_no_tutorial(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    saved(tmp_path / "sources" / "a.ipynb")
    with pytest.raises(MissingNotebookError, match="make notebooks"):
        pages(tmp_path, tmp_path / "sources")
    failed = new_output("error", ename="ValueError", evalue="no", traceback=[])
    with pytest.raises(MissingNotebookError, match="ended in ValueError: no"):
        page(saved(tmp_path / "b.ipynb", failed))


def test_code_with_ticks_stays_one_block() -> None:
    assert fenced("a ``` b", "text") == "````text\na ``` b\n````"


@pytest.mark.parametrize(
    ("link", "led"),
    [
        ("[a](../CONTRIBUTING.md#adding-things)", "[a](contributing.md#adding-things)"),
        ("[a](circuits.md)", "[a](circuits.md)"),
        ("[`a`](../notebooks/probes.ipynb)", "[`a`](tutorials/probes.md)"),
        ("[a](../LICENSE)", "a"),  # no page of its own
        ("[a](missing.md)", "[a](missing.md)"),  # MkDocs finds it
        ("[a](https://arxiv.org/abs/1)", "[a](https://arxiv.org/abs/1)"),
        ("[a](#here) ![b](picture.png)", "[a](#here) ![b](picture.png)"),
    ],
)
def test_links_of_the_repository_lead_to_pages(link: str, led: str) -> None:
    moved = {"CONTRIBUTING.md": "contributing.md", "notebooks/probes.ipynb": "tutorials/probes.md"}
    known = {*moved.values(), "circuits.md", "models.md"}
    assert led_to_pages(link, "docs/models.md", "models.md", moved, known) == led
