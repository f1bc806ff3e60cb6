"""Every notebook runs from top to bottom, on the real model.

``--notebooks-to FOLDER`` also keeps the executed copies (``make notebooks``).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"


@pytest.mark.model
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_runs(path: Path, request: pytest.FixtureRequest) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": FOLDER}}
    )
    client.execute()
    if folder := request.config.getoption("--notebooks-to"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, Path(folder) / path.name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    if path.stem == "serving" and os.environ.get("VLLM_PYTHON"):  # as make test-vllm runs it
        said = "".join(out.get("text", "") for cell in code for out in cell.outputs)
        assert "Serving at http" in said
        assert said.count("ok  ") == 6 and "FAIL" not in said


def test_committed_without_outputs() -> None:
    """Outputs are large and go stale; readers of the repository get them from the report."""
    import nbformat

    for path in FOLDER.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        kept = [c for c in notebook.cells if c.cell_type == "code" and c.outputs]
        assert not kept, f"{path.name} has outputs; clear them before committing"
