"""The packs that come with the package, on the model they are for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import affectlens as al
from affectlens.core import EMOTIONS
from affectlens.models import LanguageModel
from affectlens.steering.packs import packs_in, verify

NAMES = [name for name, _ in packs_in("box:")]


@pytest.fixture(scope="module")
def model() -> Iterator[LanguageModel]:
    yield al.load_model("smollm2-135m-instruct", dtype="float32")


def test_there_is_one_of_each_style() -> None:
    assert NAMES == ["box:smollm2-135m-instruct", "box:smollm2-135m-instruct-implicit"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_its_card_says_and_of_the_default_model(name: str, model: LanguageModel) -> None:
    pack, card = verify(name)
    pack.require_model(model)
    assert card.model_fingerprint == model.fingerprint
    assert pack.emotions == EMOTIONS and card.told.licence == "Apache-2.0"
    assert pack.rms is not None and pack.readout is not None
    scores = card.told.scores["circuit"]
    assert 0 < scores["masked_accuracy"] <= 1 and scores["perplexity_ratio"] > 1


@pytest.mark.parametrize("name", NAMES)
def test_each_emotion_says_something_else_and_nothing_changes_nothing(
    name: str, model: LanguageModel
) -> None:
    pack = al.SteeringPack.load(name, model)
    prompt = "My train was cancelled."
    plain = model.generate(prompt, max_new_tokens=16)
    with pack.steer(model, ["none", *(f"{emotion}=1" for emotion in EMOTIONS)]):
        replies = model.generate([prompt] * (1 + len(EMOTIONS)), max_new_tokens=16)
    assert replies[0] == plain
    assert len(set(replies)) == len(replies)
