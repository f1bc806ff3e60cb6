"""Replies of the default model that the encoder judge learns from, and how to make them again.

``python -m affectlens.evaluation.judges.model_texts --out model_texts.jsonl``

A small model's plain replies are polite filler ("I'm sorry for any confusion"), which a judge that
has read people only takes for sadness. So it learns from such replies too: to events of the roles
``judge`` and ``tune`` alone, unsteered and asked for an emotion by system prompt. Each line says
what was asked and how, so that anyone can make it again and read the label against the text.

Labels were given by an AI assistant that read the texts one by one, in random order, without the
prompts and targets: what the reply itself expresses, neutral for filler, apologies by routine and
reports of other people's feelings, garbled for text that no longer makes sentences, and none where
it could not decide (such lines are not learned from).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

from affectlens.core import EMOTIONS
from affectlens.core.artefact import write_text
from affectlens.core.jsonl import parse_jsonl
from affectlens.models.generation.decoding import GenerationSettings

FILE = "model_texts.jsonl"
MODEL = "smollm2-135m-instruct"
HOW = "by an AI assistant, text alone"
ROLES = ("judge", "tune")


@dataclass(frozen=True)
class ModelText:
    """One reply, how it came about, and what it shows.

    Attributes:
        id: Unique name.
        event: Id of the event.
        role: Of the event's group: ``"judge"`` or ``"tune"``.
        prompt: What the user says.
        mode: ``"unsteered"`` or ``"prompted"``.
        emotion: The target, or "".
        strength: Of steering; 0 as nothing here is steered.
        seed: Of sampling; greedy decoding ignores it.
        text: The reply.
        label: One of `JUDGED`, or None: undecided.
        how_labelled: Who read it, and knowing what.
    """

    id: str
    event: str
    role: str
    prompt: str
    mode: str
    emotion: str
    strength: float
    seed: int
    text: str
    label: str | None = None
    how_labelled: str = ""


def model_texts() -> list[ModelText]:
    """The texts that come with the package."""
    source = files("affectlens.evaluation.judges").joinpath(FILE)
    return [ModelText(**row) for row in parse_jsonl(source.read_text(encoding="utf-8"))]


def requests() -> list[ModelText]:
    """What to generate, without replies: every event unsteered, every tune event also prompted."""
    from affectlens.datasets import load

    events = load("events").filter(role=ROLES)
    asked = [("unsteered", "", event) for event in events]
    tune = [event for event in events if event.role == "tune"]
    asked += [
        ("prompted", EMOTIONS[index % len(EMOTIONS)], event) for index, event in enumerate(tune)
    ]
    return [
        ModelText(
            id=f"{mode}/{event.id}",
            event=event.id,
            role=str(event.role),
            prompt=event.text,
            mode=mode,
            emotion=emotion,
            strength=0.0,
            seed=0,
            text="",
        )
        for mode, emotion, event in asked
    ]


def generated(settings: GenerationSettings | None = None) -> list[ModelText]:
    """Let the default model reply to all `requests`, greedily, in fp32 on the CPU."""
    from affectlens.datasets import elicitation_prompt
    from affectlens.models import load_model
    from affectlens.models.generation.generation import generate

    model = load_model(MODEL, dtype="float32", device="cpu")
    settings = settings or GenerationSettings(max_new_tokens=40)
    out: list[ModelText] = []
    asked = requests()
    for system in ("", *EMOTIONS):
        rows = [row for row in asked if row.emotion == system]
        texts = generate(
            model,
            [row.prompt for row in rows],
            settings,
            system=elicitation_prompt(system) if system else None,
        )
        out += [replace(row, text=text) for row, text in zip(rows, texts, strict=True)]
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, and keep the labels of texts that have not changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    known = {(row.id, row.text): row for row in model_texts()}
    rows = [known.get((row.id, row.text), row) for row in generated()]
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows]
    write_text(given.out, "\n".join(lines) + "\n")
    unlabelled = sum(not row.how_labelled for row in rows)
    logging.getLogger(__name__).info("%d texts, %d of them unlabelled", len(rows), unlabelled)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
