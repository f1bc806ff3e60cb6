"""Reference pages that are written by hand name all that there is, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from affectlens.core import errors
from affectlens.evaluation.arm_metrics import ArmMetrics
from affectlens.evaluation.comparisons import Comparison
from affectlens.pipeline.bake_off import FOLDER
from affectlens.pipeline.causal import TABLE
from affectlens.pipeline.side_effects import RESULT
from affectlens.steering.spec import _DEFAULTS, MAX_STRENGTH, POSITIONS, UNITS
from tests.docs.blocks import ROOT

REFERENCE = ROOT / "docs" / "reference"
OPTIONAL = {"notices"}
"""Fields that a run without anything to say leaves out."""


def words(page: str) -> set[str]:
    """All that stands in code on a page."""
    return set(re.findall(r"`([^`\n]+)`", (REFERENCE / page).read_text(encoding="utf-8")))


def table(page: str, title: str) -> set[str]:
    """Names in the first column of the table below a heading."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n{title}\n")
    rows = re.findall(r"^\| (`[^|]+) \|", rest.split("\n#", 1)[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_each_field_of_a_runs_metrics_is_explained(demo: Path) -> None:
    found: dict[str, Any] = json.loads((demo / "runs" / "demo" / "metrics.json").read_text())
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    head = text.partition("\n## ")[0]
    named = {n for row in re.findall(r"^\| (`[^|]+) \|", head, re.MULTILINE)
             for n in re.findall(r"`([^`]+)`", row)}  # fmt: skip
    assert named - OPTIONAL == set(found) - OPTIONAL
    assert table("metrics.md", "## probe") == set(found["probe"])
    assert table("metrics.md", "## judge") == set(found["judge"])
    inner = {*found["probe"]["by_layer"][0], *found["judge"]["false_hits"], *found["directions"],
             *found["circuit"], *found["circuit"]["overlap"]["heads"]}  # fmt: skip
    assert inner <= words("metrics.md")
    (row, *_), (pair, *_) = list(found["arms"].values()), found["comparisons"]
    assert set(row) == {field.name for field in fields(ArmMetrics)}
    assert set(pair) == {field.name for field in fields(Comparison)}
    documented = set(re.findall(r"^        (\w+): ", ArmMetrics.__doc__ or "", re.MULTILINE))
    assert set(row) <= documented | words("metrics.md")


def test_files_of_a_run_are_named(demo: Path) -> None:
    named = words("files.md")
    for path in (demo / "runs" / "demo").iterdir():
        if not path.name.startswith("."):
            name = f"{path.name}/" if path.is_dir() else path.name
            assert any(fnmatch(name, one) for one in named), f"files.md does not tell of {name}"


def test_files_of_single_commands_are_named() -> None:
    """They may lie in a run folder too, whichever commands were tried there before."""
    names = {TABLE, RESULT, f"{FOLDER}/", "side_effects/", "efficiency/", "ratings/"}
    assert names <= words("files.md")


def test_options_of_specs_are_explained() -> None:
    assert table("spec.md", "## Options") == set(_DEFAULTS)
    assert table("spec.md", "## Units") == set(UNITS) == set(MAX_STRENGTH)
    assert set(POSITIONS) <= words("spec.md")
    text = (REFERENCE / "spec.md").read_text(encoding="utf-8")
    for unit, most in MAX_STRENGTH.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{unit}` |"))
        assert row.endswith(f" {most:,} |".replace(",", " "))


def test_kinds_of_errors_are_explained() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"members: \[(.*)\]", page)
    kinds = [name for name, kind in vars(errors).items()
             if isinstance(kind, type) and issubclass(kind, errors.AffectLensError)]  # fmt: skip
    assert listed.split(", ") == kinds
