"""What a run says of its pack, for the pack's card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from affectlens.core import ArtefactError
from affectlens.core.artefact import read_json
from affectlens.pipeline.pack_files import tuned_file
from affectlens.steering.packs.card import Told, check_card

SCORES = ("accuracy", "masked_accuracy", "perplexity_ratio", "topic", "n")
"""Of each arm: emotion found, found with feeling words masked, cost, topic kept, replies."""


def told_of(pack_file: Path, **said: str | None) -> Told:
    """What the card of a pack says besides the pack: of its run folder, and in the user's words.

    Args:
        pack_file: If ``metrics.json`` and ``tuning.json`` of a finished run lie beside it, and it
            is the pack that the run chose, they are read.
        said: Fields of `Told`; None leaves what stands in the card already, or the default.

    Raises:
        ArtefactError, MismatchError: If the card, or a file of the run, is damaged.
    """
    card = check_card(pack_file) if pack_file.is_file() else None
    told = card.told if card else Told()
    if pack_file.name == tuned_file("pack"):
        told = replace(told, **_of_run(pack_file.parent))
    return replace(told, **{name: text for name, text in said.items() if text is not None})


def _of_run(folder: Path) -> dict[str, Any]:
    metrics, tuning = folder / "metrics.json", folder / "tuning.json"
    if not (metrics.is_file() and tuning.is_file()):
        return {}
    try:
        measured, tried = read_json(metrics), read_json(tuning)["points"]
        strengths = {
            arm: [float(point["strength"]) for point in tried if point["arm"] == arm]
            for arm in ("residual", "circuit")
        }
        return {
            "corpora": (str(measured["corpus"]),),
            "scores": {
                arm: {name: float(measured["arms"][arm][name]) for name in SCORES}
                for arm in ("unsteered", *strengths)
                if arm in measured["arms"]
            },
            "doses_tried": {arm: (min(some), max(some)) for arm, some in strengths.items() if some},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{metrics} or {tuning} is not of a finished run ({error}); run it again, or copy the "
            "pack elsewhere to publish it without scores."
        ) from error
