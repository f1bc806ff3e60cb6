"""A whole run on texts and labels of a user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import group_name
from affectlens.pipeline import RunConfig, run
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.pipeline.corpus_files import load_corpus
from affectlens.pipeline.fingerprints import SOURCES
from affectlens.pipeline.line import STAGES
from affectlens.pipeline.own import OwnCorpus
from affectlens.pipeline.own.groups import INSTRUCTION
from affectlens.pipeline.own.texts import OwnTexts
from affectlens.pipeline.run import depends
from affectlens.pipeline.settings import Settings
from affectlens.steering import SteeringPack
from tests.pipeline.own_texts import PLUTCHIK, write_nested, write_politeness, write_replies
from tests.pipeline.test_settings import following
from tests.tiny_run import done, options, run_small, save_encoder, save_model, small

NAMES = list(STAGES)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny model, and a tiny sentence encoder where the real one would lie."""
    from affectlens.models.registry import list_models

    folder = tmp_path_factory.mktemp("parts")
    save_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTLENS_CACHE", str(folder / "cache"))
        save_encoder(next(info.path for info in list_models() if info.name == "minilm"))
        yield folder


@pytest.fixture(scope="module")
def eight(parts: Path) -> OwnCorpus:
    """Plutchik's eight, as replies in groups, with openers."""
    openers = parts / "openers.csv"
    rows = "".join(f"I feel {label}.,{label}\n" for label in PLUTCHIK)
    openers.write_text(f"text,emotion\n{rows}")
    file = write_replies(parts / "mine.jsonl")
    return OwnCorpus(CorpusChoice(str(file), labels=",".join(PLUTCHIK)), openers=str(openers))


@pytest.fixture(scope="module")
def finished(parts: Path, eight: OwnCorpus) -> Path:
    """Stopped when it was about to fit the probes, and gone on with."""
    config = RunConfig.checked(**options(parts, own=eight))

    def stop(stage: Any, what: str, _seconds: float) -> None:
        if (stage.name, what) == ("probe", "started"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, settings=small(Settings.of(config)), on_stage=stop)
    before = set(NAMES[: NAMES.index("probe")])
    assert done(run_small(parts, own=eight)) == set(NAMES) - before
    return parts / "run"


def test_eight_labels_of_ones_own_end_in_a_pack_and_a_report(finished: Path) -> None:
    pack = SteeringPack.load(finished / "pack.safetensors")
    assert pack.emotions == PLUTCHIK and set(pack.modes) == {"residual", "circuit"}
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["labels"] == list(PLUTCHIK) and metrics["corpus"] == "mine"
    assert set(metrics["arms"]["circuit"]["per_emotion"]) == set(PLUTCHIK)
    assert set(metrics["strengths"]["circuit"]) == set(PLUTCHIK)
    assert set(metrics["probe"]["classes"]) == set(PLUTCHIK)
    judged = json.loads((finished / "judge.json").read_text())
    test = {r.id for r in OwnTexts.of(_asked(finished)).replies if r.split == "test"}
    assert judged["judge"]["corpora"]["replies"]["n"] == len(test) > 0
    assert judged["judge"]["corpora"]["replies"]["labels"] == [*PLUTCHIK, "garbled"]
    assert list(judged["judges"]) == ["encoder", "words"]
    page = (finished / "report.html").read_text()
    assert all(label in page for label in PLUTCHIK)
    assert "No label stands for no tone" in page and "stays ranked and untested" in page


def _asked(folder: Path) -> OwnCorpus:
    return OwnCorpus(CorpusChoice(str(folder.parent / "mine.jsonl"), labels=",".join(PLUTCHIK)))


def test_what_was_expressed_answers_the_users_prompts(finished: Path) -> None:
    made = load_corpus(finished / "expression.jsonl")
    own = [r for r in made if r.group.startswith("own:")]
    assert {r.emotion for r in own} == set(PLUTCHIK) == set(made.label_set)
    assert all(r.reply is not None and r.reply.startswith(r.meta["opener"]) for r in own)
    prompts = {r.messages[0].content for r in own}
    assert prompts <= {r.text for r in OwnTexts.of(_asked(finished)).events}


def test_the_judge_has_not_seen_what_gives_directions(finished: Path) -> None:
    made = load_corpus(finished / "expression.jsonl")
    giving = {r.scenario for r in made if not r.group.startswith("own:")}
    texts = OwnTexts.of(_asked(finished)).replies
    learned = {r.scenario for r in texts.filter(role=("judge", "tune"))}
    tested = {r.scenario for r in texts.filter(role="test")}
    assert giving and learned and tested
    assert not giving & learned and not giving & tested and not learned & tested


def test_the_pack_steers_by_the_users_names(finished: Path, parts: Path) -> None:
    from affectlens.pipeline.steer import SteerRequest, steer_beside

    asked = SteerRequest(
        "The bus came.", "Trust=2", finished / "pack.safetensors", str(parts / "model"),
        max_new_tokens=4, device="cpu", dtype="float32",
    )  # fmt: skip
    assert "trust" in steer_beside(asked).spec


def test_a_second_run_does_nothing_and_another_wording_redoes_what_asks(
    finished: Path, parts: Path, eight: OwnCorpus
) -> None:
    assert done(run_small(parts, own=eight, until="tune")) == set()
    context = RunContext(RunConfig.checked(**options(parts, own=eight)))
    other = RunContext(RunConfig.checked(**options(parts, own=replace(eight, ask="Be {label}."))))
    changed = {n for n in NAMES if depends(context.stage(n)) != depends(other.stage(n))}
    assert changed == {"evaluate"}


def variants(eight: OwnCorpus, folder: Path) -> dict[str, tuple[OwnCorpus, set[str]]]:
    """Everything that can be asked, changed, and the first stages that have to notice."""
    prompts = folder / "prompts.csv"
    prompts.write_text("text\n" + "".join(f"Question {i}?\n" for i in range(20)))
    fewer = ",".join(PLUTCHIK[:-1])
    made = {"fit_judge", "express", "activations"}
    return {
        "corpus": (replace(eight, corpus=replace(eight.corpus, labels=fewer)), made),
        "neutral": (replace(eight, neutral="trust"), made),
        "prompts": (replace(eight, prompts=str(prompts)), {"express", "tune", "evaluate"}),
        "openers": (replace(eight, openers=None), {"express", "directions", "circuit"}),
        "judge": (replace(eight, judge="http://127.0.0.1:9"), {"fit_judge", "judge", "report"}),
        "ask": (replace(eight, ask="Be {label}."), {"evaluate"}),
        "per_label": (replace(eight, per_label=12), made),
    }


@pytest.mark.parametrize("name", [field.name for field in fields(OwnCorpus)])
def test_everything_asked_is_part_of_keys(
    parts: Path, eight: OwnCorpus, tmp_path: Path, name: str
) -> None:
    def keys(own: OwnCorpus) -> dict[str, Any]:
        context = RunContext(RunConfig.checked(**options(parts, own=own)))
        context._sources.update(model="m", text="t")
        return {stage: depends(context.stage(stage)) for stage in NAMES}

    asked, least = variants(eight, tmp_path)[name]
    before, after = keys(eight), keys(asked)
    changed = {stage for stage in NAMES if before[stage] != after[stage]}
    assert least <= changed <= set().union(*(following(stage) for stage in least)), changed
    assert set(SOURCES) >= {"corpora", "events", "openers", "prompts", "judge"}


def test_politeness_from_a_csv(parts: Path, tmp_path: Path) -> None:
    """Two labels, no groups, no prompts, no openers."""
    file = write_politeness(tmp_path / "politeness.csv")
    own = OwnCorpus(CorpusChoice(str(file), columns=("text=body", "emotion=politeness")))
    out = tmp_path / "run"
    for last in ("judge", "pack"):
        run_small(parts, out=out, own=own, until=last)
    assert SteeringPack.load(out / "pack_untuned.safetensors").emotions == ("polite", "rude")
    said = OwnTexts.of(own)
    assert not said.evidence
    assert any("content does not cancel" in notice for notice in said.notices)
    judged = json.loads((out / "judge.json").read_text())
    assert judged["second"]["corpora"]["replies"]["accuracy"] > 0.9  # words tell them apart


def test_a_nested_file_and_its_neutral_texts(parts: Path, tmp_path: Path) -> None:
    file = write_nested(tmp_path / "nested.json")
    choice = CorpusChoice(str(file), columns=("text=event.*", "group=id"))
    own = OwnTexts.of(OwnCorpus(choice, neutral="plain"))
    assert own.labels == ("cold", "warm", "neutral") and own.emotions == ("cold", "warm")
    for record in own.grouped:  # the plain text of the scenario is what both answer
        assert record.messages[0].content.startswith("There is a ")
        assert record.messages[0].content.split("number")[1].rstrip(".") in record.text
    assert {r.messages[0].content for r in own.replies} == {INSTRUCTION}
    run_small(parts, out=tmp_path / "run", own=OwnCorpus(choice, neutral="plain"), until="express")
    made = load_corpus(tmp_path / "run" / "expression.jsonl")
    assert made.label_set == ("cold", "warm")


def test_circuits_of_ones_own_labels_are_put_to_the_test(parts: Path, tmp_path: Path) -> None:
    from affectlens.circuits.verdict import Evidence

    labels = ("joy", "trust", "disgust")
    file = write_replies(tmp_path / "long.jsonl", labels=labels, long=True)
    own = OwnCorpus(CorpusChoice(str(file), labels=",".join(labels)))
    config = RunConfig.checked(**options(parts, out=tmp_path / "run", own=own))
    settings = small(Settings.of(config))
    less = replace(settings.evidence, parts=("ablation",), draws=2)
    run(config, settings=replace(settings, evidence=less), until="evidence")
    found = Evidence.load(tmp_path / "run" / "evidence" / "evidence.json")
    assert tuple(found.findings) == labels
    assert any(found.finding(e, "necessary").outcome != "untested" for e in labels)


def test_groups_are_made_only_where_there_are_none(tmp_path: Path) -> None:
    labels = ("joy", "trust", "fear")
    file = write_replies(tmp_path / "a.jsonl", labels=labels)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    whole = OwnTexts.of(OwnCorpus(CorpusChoice(str(file))))
    groups = {r.group: 0 for r in whole.grouped}
    assert all(name.startswith("tones:g") for name in groups)
    assert len(whole.grouped) == 3 * len(groups)
    some = [row for row in rows if not (row["emotion"] == "Fear" and row["group"] in ("g1", "g2"))]
    file.write_text("".join(json.dumps(row) + "\n" for row in some))
    fewer = OwnTexts.of(OwnCorpus(CorpusChoice(str(file))))
    left = {group_name(r.group_key) for r in fewer.grouped}
    assert "tones:g1" not in left and "tones:g2" not in left
    for row in rows:
        del row["group"]
        row["prompt"] += row["emotion"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    apart = OwnTexts.of(OwnCorpus(CorpusChoice(str(file))))
    assert {r.group.startswith("tones:made_") for r in apart.grouped} == {True}
    for group in {r.group for r in apart.grouped}:
        members = [r for r in apart.grouped if r.group == group]
        assert sorted(str(r.emotion) for r in members) == ["Fear", "Joy", "Trust"]
        assert len({r.messages[0] for r in members}) == 1


def test_as_many_texts_of_each_label_as_are_asked_for(tmp_path: Path) -> None:
    file = write_politeness(tmp_path / "p.csv", texts=60)
    choice = CorpusChoice(str(file), columns=("text=body", "emotion=politeness"))
    for count in (30, None):
        own = OwnTexts.of(OwnCorpus(choice, per_label=count))
        for label in ("polite", "rude"):
            mine = [r for r in own.replies if r.emotion == label]
            assert len(mine) == (count or 60)
            assert {r.role for r in mine} == {"direction", "judge", "tune", "test"}
    replies = write_replies(tmp_path / "r.jsonl", labels=("joy", "fear"), groups=40)
    kept = OwnTexts.of(OwnCorpus(CorpusChoice(str(replies)), per_label=20)).replies
    assert len(kept.groups()) == 20 and len(kept) == 40  # whole groups
