"""Calibrating a pack and searching a way to steer, on a tiny model whose vectors are planted.

Anger's vector at the last block points at one token, so a stronger dose writes it more often, and
the judge hears anger by how often it stands in a text.
"""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import EMOTIONS, ArtefactError, DataError, Provenance, UnknownNameError
from affectlens.evaluation.intensity import dose_point
from affectlens.evaluation.judges.base import Verdicts
from affectlens.evaluation.replies import Request, generate_replies
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.pipeline import intensity, tuning_search
from affectlens.pipeline.intensity import IntensitySettings
from affectlens.pipeline.tuning_candidates import SearchSettings, candidates_of
from affectlens.pipeline.tuning_commands import PackChoice, calibrate, search_tuning
from affectlens.steering import SteeringPack, SteeringSpec

N = 12
GENERATION = GenerationSettings(max_new_tokens=N, min_new_tokens=N, repetition_penalty=1.0)
TOKEN = 77


class Planted:
    """Hears anger as the share of a text that is the planted token's, else neutral."""

    name, fingerprint = "planted", "planted"
    labels = (*EMOTIONS, "neutral")

    def __init__(self, piece: str) -> None:
        self.piece = piece

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        share = np.array([min(1.0, text.count(self.piece) / N) for text in texts])
        table = np.zeros((len(texts), len(self.labels)))
        table[:, 0], table[:, -1] = share, 1 - share
        return Verdicts.likeliest(self.labels, table)


def embed(texts: Sequence[str]) -> np.ndarray:
    rows = np.array([[1.0 + len(t) % 5, 1.0 + t.count("e")] for t in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def judge(model: Any) -> Planted:
    return Planted(str(model.tokenizer.decode([TOKEN])).strip())


@pytest.fixture(scope="module")
def pack(model: Any) -> SteeringPack:
    """Block 0 holds a random vector, block 2 the planted one; the others' vectors are random."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, 2, model.d_model, generator=generator) * 0.01
    row = model.hf.get_output_embeddings().weight[TOKEN].detach().float()
    vectors[0, 1] = 6 * row / row.norm()
    return SteeringPack(
        emotions=EMOTIONS,
        vectors={"residual.resid_post": vectors},
        layers={"residual.resid_post": (0, 2)},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"residual": dict.fromkeys(EMOTIONS, 1.0)},
        positions={"residual": "last_prompt+generated"},
        rms=torch.ones(model.n_layers),
        provenance=Provenance("pack", model=model.fingerprint, model_name="tiny"),
    )


def choice(folder: Path, pack: SteeringPack, model: Any, judge: Any) -> PackChoice:
    folder.mkdir(exist_ok=True)
    pack.save(folder / "pack.safetensors")
    found = PackChoice(folder, None)
    found.context.__dict__.update(model=model, judge=judge, lexicon=judge, embed=embed)
    return found


def settings(**changes: Any) -> IntensitySettings:
    given = {"emotions": ("anger",), "doses": (0.5, 1.0, 2.0, 3.0), "events": 4, "test_events": 3,
             "kl_events": 2, "extensions": 0, "max_perplexity_ratio": 1e9,
             "generation": GENERATION}  # fmt: skip
    return IntensitySettings(**{**given, **changes})


def test_a_pack_is_calibrated(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted, monkeypatch: Any
) -> None:
    found, file = calibrate(choice(tmp_path / "a", pack, model, judge), settings())
    assert file == tmp_path / "a" / "pack_calibrated.safetensors"
    again = SteeringPack.load(file, model)
    line = again.responses["heard"]["residual"]["anger"]
    assert again.responses == found.pack.responses
    assert again.provenance.parameters["intensity"]["judge"] == "planted"
    assert line.range[1] - line.range[0] > 0.3
    assert again.responses["kl"]["residual"]["anger"].values[0] == 0

    # Each point is what its replies are, generated alone.
    events = choice(tmp_path / "b", pack, model, judge).events("tune", 4)
    plain = generate_replies(model, "x", [Request(e, "") for e in events], GENERATION)
    for point in found.points:
        spec = SteeringSpec({"anger": point.dose}, unit="natural", mode="residual")
        asked = [Request(e, "anger", spec) for e in events]
        replies = generate_replies(model, "x", asked, GENERATION, pack=pack)
        alone = dose_point("anger", point.dose, replies, plain, judge)
        assert (point.heard, point.share) == (alone.heard, alone.share)
        assert point.perplexity_ratio == pytest.approx(alone.perplexity_ratio, rel=1e-3)
    assert [p.dose for p in found.points] == [0, 0.5, 1, 2, 3]

    # What was asked for on other events is heard, as near as steps of one token in twelve allow.
    (check,) = found.checks
    assert check.slope > 0 and check.r2 > 0.6
    assert check.heard[1.0] > check.heard[0.25]

    # Nothing is generated twice, also of a pack that is calibrated already.
    def never(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("generated again")

    monkeypatch.setattr(intensity, "generate_replies", never)
    same, _ = calibrate(choice(tmp_path / "a", again, model, judge), settings())
    assert same.pack.responses == found.pack.responses and same.checks == found.checks
    with pytest.raises(AssertionError, match="again"):
        calibrate(choice(tmp_path / "a", pack, model, judge), settings(events=3))


def test_what_cannot_be_calibrated(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted
) -> None:
    with pytest.raises(DataError, match="No emotion can be calibrated in mode residual; fear"):
        calibrate(choice(tmp_path, pack, model, judge), settings(emotions=("fear",)))
    found, _ = calibrate(
        choice(tmp_path, pack, model, judge),
        settings(emotions=("anger", "fear"), test_events=0, kl_events=0),
    )
    assert (
        set(found.silent) == {"fear"}
        and not found.checks
        and set(found.pack.responses) == {"heard"}
    )
    with pytest.raises(UnknownNameError, match="emotion"):
        calibrate(choice(tmp_path, pack, model, judge), settings(emotions=("x",)))
    with pytest.raises(UnknownNameError, match="mode"):
        calibrate(choice(tmp_path, pack, model, judge), settings(mode="circuit"))
    with pytest.raises(DataError, match="not 9999; ask for fewer"):
        calibrate(choice(tmp_path, pack, model, judge), settings(events=9999))
    with pytest.raises(ArtefactError, match="no steering pack"):
        calibrate(PackChoice(tmp_path / "none"), settings())
    for wrong in (
        {"doses": ()}, {"doses": (1, 0.5)}, {"doses": (0, 1)}, {"events": 0}, {"test_events": -1},
        {"max_perplexity_ratio": 1.0},
    ):  # fmt: skip
        with pytest.raises(DataError):
            settings(**wrong)


def test_doses_go_on_while_more_can_be_heard(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted
) -> None:
    """Doses rise by the last step until the planted token is heard, or they are too dear."""
    weak = replace(pack, recommended={"residual": dict.fromkeys(EMOTIONS, 0.01)})
    few = {"doses": (1.0, 10.0), "test_events": 0, "kl_events": 0}
    found, _ = calibrate(choice(tmp_path, weak, model, judge), settings(extensions=9, **few))
    doses = [point.dose for point in found.points]
    assert doses[:4] == pytest.approx([0, 0.01, 0.1, 1.0]) and len(doses) <= 5
    assert all(point.heard < intensity.PLENTY for point in found.points[:-1])
    assert found.points[-1].heard >= intensity.PLENTY
    low = min(p.perplexity_ratio for p in found.points[1:]) * 0.999
    with pytest.raises(DataError, match="No emotion can be calibrated"):
        calibrate(
            choice(tmp_path, weak, model, judge),
            settings(extensions=9, max_perplexity_ratio=max(low, 1.0001), **few),
        )


def searching(**changes: Any) -> SearchSettings:
    given = {"emotion": "anger", "bands": ("all", "0", "2"), "strengths": (0.02, 1.0, 3.0),
             "budget": 12 * N * 9, "max_perplexity_ratio": 1e9, "kl_events": 2,
             "generation": GENERATION}  # fmt: skip
    return SearchSettings(**{**given, **changes})


def test_candidates_of_bands_are_equally_long(pack: SteeringPack) -> None:
    found = candidates_of(pack, searching())
    whole = float(pack.vectors["residual.resid_post"][0].norm(dim=-1).sum())
    assert len(found) == 8  # of the first block two are at the largest strength
    parts = {"0": (0,), "2": (1,), "all": (0, 1)}
    wanted: set[tuple[str, float]] = set()
    for band, places in parts.items():
        part = sum(float(pack.vectors["residual.resid_post"][0, i].norm()) for i in places)
        wanted |= {(band, round(min(share * whole / part, 20.0), 4)) for share in (0.02, 1.0, 3.0)}
    assert {(one.band, round(one.strength, 4)) for one in found} == wanted
    with pytest.raises(UnknownNameError):
        candidates_of(pack, searching(emotion="x"))


def test_a_search_finds_the_planted_layer(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted, monkeypatch: Any
) -> None:
    picked = choice(tmp_path, pack, model, judge)
    found, file = search_tuning(picked, searching(), events=6)
    assert found.best is not None and 2 in found.best.candidate.layers
    assert found.reason.name == "it works" and file == tmp_path / "pack_anger.safetensors"
    assert found.tokens <= searching().budget
    again = SteeringPack.load(tmp_path / "pack_anger.safetensors", model)
    assert again.recommended["residual"]["anger"] == found.best.candidate.strength
    wanted = again.table(["anger=1"])
    spec = SteeringSpec({"anger": found.best.candidate.strength}, unit="natural")
    assert list(wanted.sites) == list(again.table([spec]).sites)
    told = json.loads((tmp_path / "pack_anger.json").read_text())
    assert told["spec"] == found.spec and len(told["tried"]) == len(found.tried)
    with (tmp_path / "pack_anger.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["strength"]) for row in rows] == [t.candidate.strength for t in found.tried]
    assert any(row["front"] == "True" for row in rows)

    # A search that goes on has every reply already; one that was stopped generates the rest.
    def never(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("generated again")

    with monkeypatch.context() as patched:
        patched.setattr(tuning_search, "generate_replies", never)
        same, _ = search_tuning(choice(tmp_path, pack, model, judge), searching(), events=6)
    assert [t.row() for t in same.tried] == [t.row() for t in found.tried]
    for kept in sorted((tmp_path / "search").rglob("*.json"))[:3]:
        kept.unlink()
    same, _ = search_tuning(choice(tmp_path, pack, model, judge), searching(), events=6)
    assert [t.row() for t in same.tried] == [t.row() for t in found.tried]


def test_a_judge_that_never_says_the_label_is_refused(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted
) -> None:
    labels = ("polite", *pack.emotions[1:])
    doses = {"residual": dict.fromkeys(labels, 1.0)}
    own = replace(pack, emotions=labels, recommended=doses)
    with pytest.raises(DataError, match="never says polite; name a judge"):
        search_tuning(choice(tmp_path, own, model, judge), searching(emotion="polite"), events=4)
    assert not list(tmp_path.glob("pack_*"))


@pytest.mark.parametrize("what", ["search", "intensity"])
def test_another_template_is_another_measurement(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted, what: str
) -> None:
    other = copy.deepcopy(model)
    template = "{% for m in messages %}{{ m['content'] }} and now {% endfor %}"
    other.tokenizer.chat_template = template
    assert other.fingerprint == model.fingerprint
    for one in (model, other):
        picked = choice(tmp_path, pack, one, judge)
        if what == "search":
            search_tuning(picked, searching(), events=4)
        else:
            calibrate(picked, settings(test_events=0, kl_events=0))
    folder = "search" if what == "search" else "intensity"
    assert len([f for f in (tmp_path / folder).iterdir() if f.is_dir()]) == 2


def test_it_says_why_nothing_happens(
    tmp_path: Path, pack: SteeringPack, model: Any, judge: Planted
) -> None:
    weak = replace(pack, vectors={n: v * 1e-4 for n, v in pack.vectors.items()})
    found, _ = search_tuning(choice(tmp_path / "w", weak, model, judge), searching(), events=4)
    assert found.reason.name == "too weak" and found.effect.size is not None
    assert found.effect.kl < 1e-3
    deaf = Planted("\x00")
    found, _ = search_tuning(choice(tmp_path / "d", pack, model, deaf), searching(), events=4)
    assert found.reason.name == "wrong site" and found.effect.kl > 0.02
    cheap = searching(max_perplexity_ratio=1.0000001, strengths=(3.0,), bands=("2",))
    found, file = search_tuning(choice(tmp_path / "c", pack, model, judge), cheap, events=4)
    assert found.reason.name == "text breaks" and file is None and found.best is None
    assert found.breaks and found.breaks[0]["layers"] == "2-2"
    with pytest.raises(DataError, match="budget"):
        search_tuning(choice(tmp_path / "w", pack, model, judge), searching(budget=50), events=4)
    for wrong in (
        {"operators": ("clamp",)}, {"strengths": ()}, {"keep": 1}, {"kl_events": 0},
    ):  # fmt: skip
        with pytest.raises(DataError):
            searching(**wrong)
    with pytest.raises(UnknownNameError):
        searching(positions=("everywhere",))


OPTIONS: dict[str, list[tuple[str, list[str]]]] = {
    "intensity": [
        ("out", ["--out", "x"]), ("file", ["--pack", "p"]), ("mode", ["--mode", "circuit"]),
        ("emotions", ["--emotions", "fear"]), ("doses", ["--doses", "1,2"]),
        ("extensions", ["--extensions", "0"]),
        ("events", ["--events", "3"]), ("test_events", ["--test-events", "0"]),
        ("kl_events", ["--kl-events", "0"]), ("max_perplexity_ratio", ["--max-ratio", "3"]),
        ("masked", ["--masked"]), ("model", ["--model", "m"]), ("device", ["--device", "cpu"]),
        ("dtype", ["--dtype", "float32"]), ("save", ["--save", "s"]),
    ],
    "search": [
        ("emotion", []), ("out", ["--out", "x"]), ("file", ["--pack", "p"]),
        ("modes", ["--modes", "circuit"]), ("bands", ["--layers", "late,3"]),
        ("strengths", ["--strengths", "1"]), ("operators", ["--operators", "add_keep_norm"]),
        ("positions", ["--positions", "all"]), ("gate", ["--gate", "fear>0.5"]),
        ("budget", ["--budget", "9"]), ("keep", ["--keep", "2"]), ("events", ["--events", "3"]),
        ("max_perplexity_ratio", ["--max-ratio", "3"]), ("kl_events", ["--kl-events", "1"]),
        ("model", ["--model", "m"]), ("device", ["--device", "cpu"]),
        ("dtype", ["--dtype", "float32"]), ("save", ["--save", "s"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_changes_what_is_asked(command: str, monkeypatch: Any) -> None:
    from affectlens.pipeline import tuning_commands

    seen: list[dict[str, Any]] = []

    def record(choice: PackChoice, settings: Any, *rest: Any) -> Any:
        *events, save = rest
        seen.append(
            {**vars(choice), **vars(settings), **({"events": events[0]} if events else {}),
             "save": save}
        )  # fmt: skip
        raise DataError("That is enough.")

    monkeypatch.setattr(tuning_commands, "calibrate", record)
    monkeypatch.setattr(tuning_commands, "search_tuning", record)
    word = ["tune", command, *(["anger"] if command == "search" else [])]
    for _, given in [("", list[str]()), *OPTIONS[command]]:
        done = CliRunner().invoke(app, [*word, *given])
        assert done.exit_code == 1 and "That is enough." in done.output, done.output
    plain, *changed = seen
    for (name, given), found in zip(OPTIONS[command], changed, strict=True):
        differ = {key for key in plain if plain[key] != found[key]}
        assert differ == ({name} if given else set()), (name, differ)
