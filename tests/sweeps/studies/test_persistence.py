"""An emotion that fades at a known token is read until there and no further; controls at chance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from affectlens.activations import ActivationStore
from affectlens.cli import app
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.probes import PROBES, Labels, Numbers
from affectlens.probes.design import make_design
from affectlens.sweeps.request import Fitting
from affectlens.sweeps.studies.base import Row
from affectlens.sweeps.studies.persistence import LENGTH, OWN, PERMUTED, SHARED, WORD, Offsets
from affectlens.sweeps.studies.reply_tokens import POSITION, ReplyTokens
from tests.sweeps.conftest import EMOTIONS
from tests.sweeps.studies.conftest import hidden

SITES = (Site(0, "resid_pre"), Site(1, "resid_post"))
CLASSES = ("anger", "fear", "joy")
OFFSETS = (0, 2, 6, 9)
FADES = 4
FITTING = Fitting(penalties=(0.01, 1.0), folds=3, draws=100, permutations=9)


def replies(
    *, seed: int = 0, signal: float = 3.0, told_by_length: bool = False, shift: float = 30.0
) -> ActivationStore:
    """24 scenarios × 3 classes; a class's direction is there until token `FADES`, at one site."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.standard_normal((12, 3)))[0].T
    place = random.standard_normal((40, 12)) * shift  # what every reply has at an offset
    rows: dict[str, list[Any]] = {n: [] for n in ("id", "emotion", "scenario", "split", "token")}
    x: dict[Site, list[Any]] = {site: [] for site in SITES}
    for scenario in range(24):
        for c, name in enumerate(CLASSES):
            length = 11 + (5 * c if told_by_length else int(random.integers(0, 6)))
            for k in range(length):
                noise = random.standard_normal((2, 12))
                x[SITES[0]].append(place[k] + noise[0])
                x[SITES[1]].append(place[k] + signal * axes[c] * (k < FADES) + noise[1])
                values = (f"{scenario}-{c}", name, f"s{scenario}",
                          "test" if scenario >= 16 else "fit", 7 + k)  # fmt: skip
                for column, value in zip(rows, values, strict=True):
                    rows[column].append(value)
    arrays = {site: torch.tensor(np.array(x[site])).float() for site in SITES}
    return ActivationStore.of(arrays, rows, position=POSITION, design="replies")


def offsets(store: ActivationStore, asked: tuple[int, ...] = OFFSETS, **changes: Any) -> Offsets:
    tokens = ReplyTokens.of(store)
    emotions, scenarios = (store.column(name, POSITION) for name in ("emotion", "scenario"))
    first = tokens.first.tolist()
    target = changes.pop("target", None) or Labels("emotion", [emotions[i] for i in first], CLASSES)
    design = make_design(target, tokens.splits(), [scenarios[i] for i in first], 3, 0)
    kind = PROBES["logistic" if isinstance(target, Labels) else "ridge"]
    made = Offsets("emotion", design, tokens.expanded(design, asked), kind, (0.01, 1.0), FITTING)
    return replace(made, **changes)


def values(rows: list[Row], series: str, column: str = "value", site: int = 1) -> list[float]:
    name = SITES[site].hook_name
    return [r[column] for r in rows if r["series"] == series and r["site"] == name]


@pytest.fixture(scope="module")
def store() -> ActivationStore:
    return replies()


@pytest.fixture(scope="module")
def found(store: ActivationStore) -> list[Row]:
    return offsets(store).rows(SITES)


def test_a_planted_emotion_is_read_until_it_fades(found: list[Row]) -> None:
    for series in (SHARED, OWN):
        read = dict(zip(OFFSETS, values(found, series), strict=True))
        low = dict(zip(OFFSETS, values(found, series, "low"), strict=True))
        high = dict(zip(OFFSETS, values(found, series, "high"), strict=True))
        assert min(read[0], read[2]) > 0.85 and min(low[0], low[2]) > 0.75, series
        for late in (6, 9):
            assert low[late] <= 1 / 3 <= high[late], series
    p = dict(zip(OFFSETS, values(found, PERMUTED, "p"), strict=True))
    assert p[0] == p[2] == pytest.approx(1 / 10) and min(p[6], p[9]) > 0.1
    corrected = values(found, PERMUTED, "p_over_offsets")
    assert corrected[:2] == pytest.approx([0.1, 0.1]) and min(corrected[2:]) > 0.1


def test_controls_are_at_chance(found: list[Row]) -> None:
    for series in (PERMUTED, WORD):
        assert np.mean(values(found, series)) == pytest.approx(1 / 3, abs=0.08), series
    for series in (WORD, LENGTH):
        ends = zip(values(found, series, "low"), values(found, series, "high"), strict=True)
        assert all(low <= 1 / 3 <= high for low, high in ends), series
    assert values(found, SHARED, "beside") == pytest.approx([1 / 3] * 4)
    gain = [r["probe_minus_low"] for r in found if r["series"] == LENGTH]
    assert gain[0] > 0.3 > gain[-1]


def test_what_all_replies_have_at_an_offset_changes_nothing(store: ActivationStore) -> None:
    """As a learned embedding of the offset, which could cancel it."""
    far, near = offsets(store).tokens, offsets(replies(shift=0.0)).tokens
    assert store.to_torch(SITES[1], POSITION).abs().max() > 50
    assert torch.allclose(far.read(SITES), near.read(SITES), atol=1e-4)


def test_a_reply_told_by_its_length_is_told_by_length_alone() -> None:
    few = replace(FITTING, permutations=1)
    rows = offsets(replies(signal=0.0, told_by_length=True), (0, 4), fitting=few).rows(SITES[1:])
    assert min(values(rows, LENGTH)) == 1.0
    assert np.mean(values(rows, SHARED)) < 0.5


def test_tokens_are_those_of_the_texts_that_are_so_long(store: ActivationStore) -> None:
    made = offsets(store)
    ids, token = store.column("id", POSITION), store.column("token", POSITION)
    emotions, splits = store.column("emotion", POSITION), store.column("split", POSITION)
    names = list(dict.fromkeys(ids))
    wanted = [
        (row, k, names.index(id_))
        for k in OFFSETS
        for row, id_ in enumerate(ids)
        if token[row] == 7 + k
    ]
    tokens, design = made.tokens, made.tokens.design
    pairs = zip(design.rows, tokens.offset, tokens.text, strict=True)
    assert [tuple(map(int, one)) for one in pairs] == wanted
    assert [CLASSES[c] for c in design.y] == [emotions[row] for row, _, _ in wanted]
    assert design.fit.tolist() == [splits[row] == "fit" for row, _, _ in wanted]
    x = store.to_torch(SITES[1], POSITION)
    for k in OFFSETS:
        mine = [row for row, at, _ in wanted if at == k]
        mean = x[[row for row in mine if splits[row] == "fit"]].mean(0)
        read = tokens.read([SITES[1]])[0][tokens.offset == k]
        assert torch.allclose(read, x[mine] - mean, atol=1e-4)
    long = tokens.tokens.length[tokens.text]
    left = torch.stack([long.float().log(), (long - tokens.offset).float().log()], 1)
    assert torch.allclose(tokens.lengths(), tokens.centred(left[None]))


def test_permuted_labels_are_those_of_whole_texts(store: ActivationStore) -> None:
    made = offsets(store)
    y = torch.randperm(len(made.texts.y), generator=torch.Generator().manual_seed(1)) % 3
    design = made.tokens.with_targets(y)
    assert design.y.tolist() == [int(y[i]) for i in made.tokens.text]


def test_numbers_are_read_by_offset_too(store: ActivationStore) -> None:
    tokens = ReplyTokens.of(store)
    emotions: list[Any] = store.column("emotion", POSITION)
    worth = [float(CLASSES.index(emotions[i])) for i in tokens.first.tolist()]
    rows = offsets(store, target=Numbers("worth", worth)).rows(SITES)
    read = values(rows, SHARED)
    assert rows[0]["measure"] == "pearson" and min(read[:2]) > 0.7 > 0.5 > abs(read[-1])


def test_by_default_offsets_double_while_half_of_the_replies_reach_them(store: Any) -> None:
    tokens = ReplyTokens.of(store)
    assert tokens.chosen_offsets(()) == (0, 1, 2, 4, 8)
    for wrong in ((0, 99), (-1,)):
        with pytest.raises(DataError, match=f"No reply has a token at offset {wrong[-1]}"):
            tokens.chosen_offsets(wrong)
    held = (tokens.length > 14) & torch.tensor([s == "test" for s in tokens.splits()])
    short = replace(tokens, length=torch.where(held, 14, tokens.length))
    made = offsets(store)
    with pytest.raises(DataError, match="No reply that is held out has a token at offset 14"):
        short.expanded(made.texts, (0, 14))


def invoke(files: dict[str, str], out: Path, *more: str) -> Any:
    small = ["--folds", "3", "--draws", "20", "--permutations", "2", "--labels", ",".join(EMOTIONS)]
    where = ["--model", files["model"], "--dtype", "float32", "--sites", "resid_post@1"]
    return CliRunner().invoke(
        app,
        ["probe", "study", "persistence", "--out", str(out), *small, *where, *more],
        env={"COLUMNS": "250"},
    )


def test_the_command_reads_replies_of_a_corpus(
    files: dict[str, str], known: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = invoke(files, out, "--corpus", known.name, "--offsets", "0,3", "--json")
    assert done.exit_code == 0, done.output
    rows = [json.loads(row) for row in done.stdout.splitlines() if row.startswith("{")]
    said = json.loads((out / "persistence.json").read_text())
    assert said["facts"]["replies"] == "of the corpus" and said["facts"]["offsets"] == [0, 3]
    assert len(rows) == len(said["rows"]) == pq.read_table(out / "persistence.parquet").num_rows
    assert {row["series"] for row in rows} == {SHARED, OWN, PERMUTED, WORD, LENGTH}
    assert {row["x"] for row in rows} == {0, 3}
    assert "How long it stays readable" in (out / "report.html").read_text()
    # The rows of the store are those of a plain forward pass over the chat.
    (folder,) = (out / "stores").iterdir()
    store = ActivationStore.open(folder)
    tokens = ReplyTokens.of(store)
    record = known.load().records[0]
    assert tokens.ids[0] == record.id
    chat = [dict(turn) for turn in record.chat]
    first = slice(int(tokens.first[0]), int(tokens.first[0] + tokens.length[0]))
    mine = store.to_torch("blocks.1.hook_resid_post", POSITION)[first].mean(0)
    assert torch.allclose(mine, hidden(files["model"], chat)(record.text), atol=1e-4)


def test_texts_without_replies_are_answered_first(files: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke(files, out, "--corpus", files["plain"], "--offsets", "0,1", "--tokens", "4")
    assert done.exit_code == 0, done.output
    said = json.loads((out / "persistence.json").read_text())
    assert said["facts"]["replies"] == "generated" and said["facts"]["median reply"] <= 6
    for wrong, sentence in (
        (("--target", "colour"), "column in"),
        (("--offsets", "a"), "--offsets takes"),
    ):
        refused = invoke({"model": "no/such"}, tmp_path / "x", "--corpus", files["plain"], *wrong)
        assert refused.exit_code == 1 and sentence in refused.output, refused.output
        assert not (tmp_path / "x" / "persistence.json").exists()
