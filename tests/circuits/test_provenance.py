"""Whatever an artefact was made with is in its provenance: signatures are walked, not listed."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any

from affectlens.activations import capture
from affectlens.circuits import (
    Budget,
    CircuitSearchSettings,
    contributions,
    find_circuit,
    influence,
)
from affectlens.circuits.influence import InfluenceProfile
from tests.circuits.helpers import WORDS, random_directions, small_corpus

CANNOT_CHANGE_THE_RESULT = {"max_tokens_per_batch"}
PROMPTS = [[5, 17, 33], [8, 99, 120, 7]]


def test_every_argument_of_find_circuit_changes_its_fingerprint(tiny_model: Any) -> None:
    model, directions = tiny_model("llama"), random_directions(tiny_model("llama"))
    corpus = small_corpus()
    records = tuple(replace(r, split="test" if r.group == "s1" else "fit") for r in corpus)
    corpus = replace(corpus, records=records)
    base: dict[str, Any] = {
        "model": model,
        "corpus": corpus,
        "directions": directions,
        "budget": Budget(total=40, floor_neurons=1, floor_heads=1),
        "prompts": PROMPTS,
        "words": WORDS,
    }
    other = tiny_model("llama", seed=1)
    made = replace(directions.provenance, parameters={"seed": 6})
    changed: dict[str, dict[str, Any]] = {
        "model": {"model": other, "directions": random_directions(other)},
        "corpus": {"corpus": replace(corpus, records=records[::-1])},
        "directions": {"directions": replace(directions, provenance=made)},
        "budget": {"budget": Budget(total=44, floor_neurons=1, floor_heads=1)},
        "position": {"position": "last:reply"},
        "score": {"score": "contrast"},
        "reference": {"reference": "middle"},
        "split": {"split": None},
        "prompts": {"prompts": PROMPTS[:1]},
        "words": {"words": {**WORDS, "anger": ("angry", "was")}},
        "delta_from": {"delta_from": capture(model, corpus, sites="mlp_post,z")},
        "scored": {"scored": contributions(model, corpus, directions)},
        "profile": {"profile": influence(model, PROMPTS[:1], directions, words=WORDS)},
    }
    options = {one.name for one in fields(CircuitSearchSettings)}
    parameters = set(inspect.signature(find_circuit).parameters) - {"options"} | options
    assert set(changed) | CANNOT_CHANGE_THE_RESULT == parameters
    before = find_circuit(**base).provenance.fingerprint
    for name, change in changed.items():
        assert find_circuit(**{**base, **change}).provenance.fingerprint != before, name
    assert find_circuit(**base, max_tokens_per_batch=64).provenance.fingerprint == before


def test_a_supplied_profile_says_what_it_was_made_with(tiny_model: Any) -> None:
    model, corpus = tiny_model("llama"), small_corpus()
    directions = random_directions(model)
    profile = influence(model, PROMPTS, directions, alphas=(0.2,), words=WORDS)
    again = InfluenceProfile.from_tensors(*profile.to_tensors())
    assert again.made_by == profile.made_by
    found = find_circuit(
        model, corpus, directions, budget=Budget(total=40, floor_neurons=1, floor_heads=1),
        profile=again,
    )  # fmt: skip
    said = found.provenance.parameters["influence"]
    assert said["alphas"] == [0.2]
    assert said["words"] == {emotion: list(words) for emotion, words in WORDS.items()}
    others = (
        influence(model, PROMPTS[:1], directions, alphas=(0.2,), words=WORDS),
        influence(model, PROMPTS, directions, alphas=(0.3,), words=WORDS),
        influence(model, PROMPTS, directions, alphas=(0.2,), words={**WORDS, "fear": ("was",)}),
    )
    assert all(other.made_by != profile.made_by for other in others)
