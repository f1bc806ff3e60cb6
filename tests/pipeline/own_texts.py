"""Texts of a user's own, written for the tests: eight labels, politeness, and a nested file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

PLUTCHIK = ("joy", "trust", "fear", "surprise", "sadness", "disgust", "anger", "anticipation")

_SAID = {
    "joy": ("This is wonderful!", "We danced all the way home."),
    "trust": ("I know you will do it well.", "You have never let me down."),
    "fear": ("Something is behind the door.", "My hands shake and I cannot move."),
    "surprise": ("Wait, that cannot be true!", "Nobody told me about it at all."),
    "sadness": ("It is over now.", "I sat in the empty room and wept."),
    "disgust": ("That smells of rot.", "I had to wash my hands twice."),
    "anger": ("How dare they do this!", "I slammed the door on them."),
    "anticipation": ("Only two days left.", "I have packed the bags already."),
}
_THINGS = ("bus", "letter", "soup", "garden", "phone", "ticket", "window", "parcel")


def write_replies(
    path: Path, groups: int = 24, labels: tuple[str, ...] = PLUTCHIK, *, long: bool = False
) -> Path:
    """One prompt answered in every label, group by group; long ones in two sentences."""
    rows = [
        {
            "id": f"{label}_{g}",
            "prompt": f"The {_THINGS[g % 8]} number {g} came today.",
            "reply": f"{_SAID[label][0]} {_SAID[label][1]}"
            if long
            else f"{_THINGS[g % 8]}: {_SAID[label][0]}",
            "emotion": label.capitalize(),
            "group": f"g{g}",
        }
        for g in range(groups)
        for label in labels
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_politeness(path: Path, texts: int = 20) -> Path:
    """Two labels, plain texts that answer nothing and share no content."""
    polite = ("Could you please send the {}?", "Thank you so much for the {}, if you would.")
    rude = ("Send the {} now.", "Where is my {}, you fool?")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("body", "politeness"))
        for i in range(texts):
            for label, forms in (("polite", polite), ("rude", rude)):
                writer.writerow((f"{forms[i % 2].format(_THINGS[i % 8])} {i}", label))
    return path


def write_nested(path: Path, groups: int = 16) -> Path:
    """A scenario a row, with a text below each label, and a plain one."""
    rows = [
        {
            "id": f"s{g}",
            "event": {
                "warm": f"What a lovely {_THINGS[g % 8]}, number {g}!",
                "cold": f"A {_THINGS[g % 8]}, number {g}. So what.",
                "plain": f"There is a {_THINGS[g % 8]}, number {g}.",
            },
        }
        for g in range(groups)
    ]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path
