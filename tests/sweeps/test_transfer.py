"""Probes of one corpus on another, and learning curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core import DataError
from affectlens.probes.crossval import fit_probes
from affectlens.sweeps import run_sweeps
from affectlens.sweeps.transfer import check_labels
from tests.sweeps.conftest import choice, request, rows, save_rows


def test_each_probe_reads_the_held_out_rows_of_the_other_corpus(whole: Any) -> None:
    _, found, settings = whole
    assert len(found.transfer) == 2 * 2 * 2
    first, second = settings
    for row in found.transfer:
        trained = next(c for c in found.cells if c.corpus == row["trained_on"])
        tested = first if row["tested_on"] == "plain" else second
        i = [s.hook_name for s in trained.sweep.sites].index(row["site"])
        held = tested.design.held
        x = tested.store.to_torch(trained.sweep.sites[i])[tested.design.rows][held]
        said = trained.sweep.logits(x, trained.sweep.sites[i]).argmax(-1)
        right = float((said == tested.design.y[held]).float().mean())
        assert row["value"] == pytest.approx(right)
        assert row["rows"] == int(held.sum()) and row["low"] <= row["value"] <= row["high"]


def test_unlike_labels_are_refused_or_named_alike(files: dict[str, str], tmp_path: Path) -> None:
    other = [{**r, "emotion": {"happiness": "delight"}.get(r["emotion"], r["emotion"])}
             for r in rows("Well: ")]  # fmt: skip
    path = save_rows(tmp_path / "other.jsonl", other)
    two = (choice(files["plain"]), replace(choice(path), labels="fear,delight,anger"))
    with pytest.raises(DataError, match=r"unlike labels of emotion .delight, happiness.*--map"):
        run_sweeps(request(files, tmp_path / "out", corpora=two, transfer=True))
    assert not (tmp_path / "out" / "report.html").exists()
    found = run_sweeps(
        request(files, tmp_path / "out", corpora=two, transfer=True,
                names={"delight": "happiness"})
    )  # fmt: skip
    first, second = (cell.sweep.classes for cell in found.cells)
    assert set(first) == set(second) == {"anger", "fear", "happiness"} and first != second
    crossed = [r["value"] for r in found.transfer if r["trained_on"] != r["tested_on"]]
    assert np.mean(crossed) > 0.6  # columns are matched by name, not by place


def test_labels_that_are_left_out_play_no_part(whole: Any) -> None:
    setting = whole[2][0]
    target = setting.texts.target("emotion", names={"fear": ""})
    assert target.classes == ("anger", "happiness") and None in target.values
    fewer = replace(setting, target=target)
    with pytest.raises(DataError, match="fear"):
        check_labels(setting, fewer)


def test_learning_curves_are_fits_on_some_of_the_groups(whole: Any) -> None:
    _, found, (setting, *_) = whole
    rows_ = [r for r in found.curves if r["corpus"] == "plain"]
    groups = [r["groups"] for r in rows_]
    assert groups == sorted(set(groups)) and groups[-1] == len(
        {g for g, f in zip(setting.design.groups, setting.design.fit, strict=True) if f}
    )
    assert rows_[-1]["rows"] == float(setting.design.fit.sum())
    assert rows_[-1]["value"] == pytest.approx(
        float(found.cells[0].sweep.accuracy[found.cells[0].best])
    )
    # The smallest by hand: the same random order of groups.
    design, cell = setting.design, found.cells[0]
    names = list(dict.fromkeys(
        g for g, f in zip(design.groups, design.fit, strict=True) if f
    ))  # fmt: skip
    random = np.random.default_rng(0)
    x = setting.rows.read([cell.sweep.best], design)
    penalty = cell.sweep.penalty[cell.best]
    values = []
    for _ in range(3):
        chosen = {names[i] for i in random.permutation(len(names))[: groups[0]]}
        mask = torch.tensor([g in chosen for g in design.groups]) & design.fit
        fit = fit_probes(x, design, (penalty,), mask[None].float(), setting.probe)
        said = fit.logits(x)[0, 0, 0][~design.fit].argmax(-1)
        values.append(float((said == design.y[~design.fit]).float().mean()))
    assert rows_[0]["value"] == pytest.approx(np.mean(values))
