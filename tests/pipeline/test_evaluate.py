"""``al.evaluate`` measures what the stages of a run would."""

from __future__ import annotations

from pathlib import Path

import pytest

import affectlens as al
from affectlens.core import DataError, UnknownNameError
from affectlens.datasets import load
from affectlens.evaluation import arm_requests, generate_replies, measure
from affectlens.evaluation.judges import encoder, load_judge
from affectlens.evaluation.topic import Embedder
from affectlens.models.generation.decoding import GenerationSettings
from tests.steering.oracle import random_pack
from tests.tiny_run import save_encoder, save_judge, save_model

SHORT = GenerationSettings(max_new_tokens=4)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> al.LanguageModel:
    """A tiny model, with a tiny judge and encoder in the place of the real ones."""
    from affectlens.models.registry import list_models

    save_model(tmp_path)
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))
    place = next(info.path for info in list_models() if info.name == "minilm")
    save_encoder(place)
    save_judge(tmp_path / "judge.safetensors", place)
    monkeypatch.setattr(encoder, "ADAPTER_FILE", str(tmp_path / "judge.safetensors"))
    encoder.shipped_adapter.cache_clear()
    yield al.load_model(str(tmp_path / "model"), device="cpu", dtype="float32")
    encoder.shipped_adapter.cache_clear()


def test_arms_are_measured_against_the_unsteered_one(model: al.LanguageModel) -> None:
    pack = random_pack(model, size=4)
    found = al.evaluate(model, pack, arms=["circuit"], n_events=1, generation=SHORT)
    assert list(found) == ["unsteered", "circuit"]
    event = load("events").filter(split="test").records[0]
    said = {
        arm: generate_replies(
            model, arm, arm_requests(arm, [event], pack.emotions), SHORT, pack=pack
        )
        for arm in found
    }
    judge, lexicon, embed = load_judge("encoder"), load_judge("lexicon"), Embedder()
    expected = measure(
        said["circuit"],
        said["unsteered"],
        judge=judge,
        lexicon=lexicon,
        embed=embed,
        emotions=pack.emotions,
    )
    assert found["circuit"].per_emotion == expected.per_emotion
    assert found["circuit"].perplexity_ratio == pytest.approx(expected.perplexity_ratio)
    assert found["circuit"].n == len(pack.emotions)
    assert list(al.plot(found).data[0].y) == ["unsteered", "circuit"]


def test_modes_that_a_pack_lacks_are_left_out_and_unknown_arms_refused(
    model: al.LanguageModel,
) -> None:
    pack = random_pack(model)
    with pytest.raises(UnknownNameError, match="circuit"):
        al.evaluate(model, pack, arms=["circuits"], n_events=1, generation=SHORT)


@pytest.mark.parametrize("arm", ["random_units_analytic", "analytic_circuit", "random"])
def test_controls_are_not_measured_with_the_pack_they_control(
    arm: str, model: al.LanguageModel
) -> None:
    """Its replies would be those of the circuit itself, under the name of the control."""
    with pytest.raises(DataError, match=f"{arm}: a control steers with a pack of its own"):
        al.evaluate(model, random_pack(model), arms=[arm], n_events=1, generation=SHORT)
