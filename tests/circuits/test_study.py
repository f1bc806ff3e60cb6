"""All parts of the evidence on a tiny model: kept, resumed, traced; bad input in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectlens.circuits.attribution.contributions import contributions
from affectlens.circuits.attribution.gradients import gradient_scores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.evidence import (
    AblationSettings,
    EnhancementSettings,
    FaithfulnessSettings,
    IdentitySettings,
    MinimalitySettings,
    StabilitySettings,
    stability,
)
from affectlens.circuits.evidence.parts import PARTS, gather, load_parts
from affectlens.circuits.evidence.ranked_anew import scores_of_parts
from affectlens.circuits.evidence.study import Study, StudySettings
from affectlens.circuits.ranking import Search, find_by
from affectlens.circuits.ranking.by_validation import folds
from affectlens.circuits.tasks import CarryOver
from affectlens.circuits.verdict import WORDS, Evidence
from affectlens.core.artefact import canonical_json
from affectlens.core.errors import ArtefactError, DataError, UnknownNameError
from affectlens.datasets.schema import Message
from tests.circuits.helpers import random_directions
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit

SETTINGS = StudySettings(
    AblationSettings(counts=(1, 2), draws=2),
    EnhancementSettings(counts=(2,), draws=2),
    FaithfulnessSettings(shares=(10, 100), draws=2),
    IdentitySettings(draws=2),
    StabilitySettings(folds=4, splits=2, draws=4),
    MinimalitySettings(units=2, draws=2),
)


def written(evidence: Evidence) -> str:
    return canonical_json(evidence.to_dict())


@pytest.fixture(scope="module")
def study(tiny_model: Any) -> Study:
    model = tiny_model("llama")

    def made(of: Any) -> CarryOver:
        return CarryOver.of(of, corpus(), EMOTIONS, named=True)

    texts = corpus(5)
    return Study(
        model,
        random_circuit(model),
        made(model),
        texts,
        SETTINGS,
        random_directions(model),
        small=made(model).first(2),
        again=made,
    )


def test_all_parts_then_none_again(study: Study, tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []
    found = gather(study, tmp_path, list(PARTS), lambda *what: said.append(what))
    assert {name for name, what in said if what == "done"} == set(PARTS)
    assert written(Evidence.load(tmp_path / "evidence.json")) == written(found)
    for emotion in EMOTIONS:
        for word in WORDS:
            one = found.finding(emotion, word)
            assert one.number is not None and one.outcome != "passed"  # three texts show nothing
            assert (tmp_path / one.file).is_file() and one.what and one.draws >= 2
    assert study.circuit.with_evidence(found).evidence is found
    parts = load_parts(tmp_path, found)
    assert list(parts) == list(PARTS)
    ablation = parts["ablation"].findings()["fear"]["necessary"].number  # pyright: ignore
    assert found.finding("fear", "necessary").number == pytest.approx(ablation)
    assert [len(parts[name].scenarios) for name in ("ablation", "identity")] == [3, 2]  # pyright: ignore
    assert parts["heads"].provenance.parameters["kind"] == "heads"
    assert parts["resampling"].provenance.parameters["by"] == "resample"
    assert np.nanmax(np.abs(parts["untrained"].changes)) < 0.01  # pyright: ignore

    said.clear()
    (tmp_path / PARTS["identity"].file).write_bytes(b"cut short")
    again = gather(study, tmp_path, list(PARTS), lambda *what: said.append(what))
    assert {name for name, what in said if what == "done"} == {"identity"}
    assert written(again) == written(found)
    said.clear()
    gather(study, tmp_path, ["ablation"], lambda *what: said.append(what), anew=True)
    assert said[-1] == ("ablation", "done")


def test_words_of_parts_left_out_are_untested(study: Study, tmp_path: Path) -> None:
    found = gather(study, tmp_path, ["identity"])
    assert found.said() == ", ".join(f"{word} untested" for word in WORDS)


def test_bad_input(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="part of the evidence"):
        gather(study, tmp_path, ["proof"])
    bare = Study(study.model, study.circuit, study.task, study.corpus, SETTINGS)
    with pytest.raises(DataError, match="Stability needs the directions"):
        gather(bare, tmp_path, ["stability"])
    with pytest.raises(DataError, match="task made anew"):
        gather(bare, tmp_path, ["untrained"])
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_verdict_shows_its_own_parts_alone(study: Study, tmp_path: Path) -> None:
    first = gather(study, tmp_path, ["ablation", "identity"])
    assert list(load_parts(tmp_path, first)) == ["ablation", "identity"]
    nothing = gather(study, tmp_path, [])
    assert load_parts(tmp_path, nothing) == {}  # though files of another study lie there
    assert "untested" in nothing.said() and "passed" not in written(nothing)
    other = Study(study.model, study.circuit, study.task, study.corpus,
                  StudySettings(AblationSettings(counts=(1,), draws=2)))  # fmt: skip
    gather(other, tmp_path, ["ablation"])
    with pytest.raises(ArtefactError, match="gather the evidence again"):
        load_parts(tmp_path, first)


def test_stability_ranks_as_the_circuit_was_ranked(study: Study, tmp_path: Path) -> None:
    """By slopes on parts of the texts, which are those on texts of each part; or it is refused."""
    model, texts = study.model, corpus(12)
    ranking = CarryOver.of(model, texts, EMOTIONS)
    asked = Search(model, study.circuit, ranking, study.means, neurons=6, heads=2)
    slopes = find_by("attribution_patching", asked)
    parts = scores_of_parts(model, slopes, texts, study.means, None, 4)
    for scores, part in zip(parts["neurons"], folds(ranking, 4, 0), strict=True):
        records = tuple(r for r in texts if r.scenario in part.scenarios)
        alone = CarryOver.of(model, replace(texts, records=records), EMOTIONS)
        wanted = gradient_scores(model, alone, Against(study.means), EMOTIONS).neurons
        np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-6)

    by_slopes = replace(study, circuit=slopes, directions=None, corpus=texts)
    found = gather(by_slopes, tmp_path, ["stability"])
    assert found.finding("fear", "stable").task == "attribution patching"
    made = slopes.provenance
    greedy = replace(made, parameters={**made.parameters, "strategy": "greedy"})
    with pytest.raises(DataError, match="chosen by greedy cannot be told from parts"):
        other = replace(study, circuit=replace(slopes, provenance=greedy))
        gather(other, tmp_path / "g", ["ablation", "stability"])
    assert not (tmp_path / "g").exists()  # nothing was measured before that was said


def test_stability_reads_where_and_as_the_circuit_was_read(study: Study) -> None:
    made = study.circuit.provenance
    other = replace(
        study.circuit,
        position="last",
        provenance=replace(made, parameters={**made.parameters, "score": "mean"}),
    )
    given = (study.model, other, study.corpus, study.means, study.directions, 5)
    found = scores_of_parts(*given)
    assert study.directions is not None
    by_hand = contributions(
        study.model, study.corpus, study.directions, position="last", score="mean"
    )
    np.testing.assert_allclose(found["neurons"].mean(0), by_hand.neurons, rtol=1e-3, atol=1e-5)


def test_paraphrases_are_ranked_on_as_the_texts_are(study: Study, tmp_path: Path) -> None:
    shorter = corpus(5).records
    other = replace(
        corpus(5),
        name="other",
        records=tuple(
            replace(r, messages=(r.messages[0], Message("assistant", f"Well. {r.text}")))
            for r in shorter
        ),
    )
    asked = replace(study, paraphrases=other)
    found = asked.chosen_anew
    given = (study.means, study.directions, 4)
    scores = [
        scores_of_parts(study.model, study.circuit, one, *given) for one in (study.corpus, other)
    ]
    by_hand = stability(study.circuit, scores[0], SETTINGS.stability, paraphrased=scores[1])
    np.testing.assert_allclose(found.paraphrased, by_hand.paraphrased)
    assert asked.key != study.key and np.isnan(study.chosen_anew.paraphrased).all()
    for wrong, said in (
        (study.corpus, "word by word"),
        (replace(other, records=tuple(replace(r, group=f"x{r.group}") for r in other)), "scenario"),
    ):
        with pytest.raises(DataError, match=said):
            gather(replace(study, paraphrases=wrong), tmp_path, ["ablation", "stability"])
    assert not list(tmp_path.iterdir())
