"""A circuit's own ranking made anew on parts of the texts, for those that are means over texts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.gradients import gradient_scores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.evidence.stability import fold_scores
from affectlens.circuits.ranking import STRATEGIES
from affectlens.circuits.ranking.by_validation import folds
from affectlens.circuits.tasks import TASKS
from affectlens.circuits.tasks.base import TextTask
from affectlens.core.errors import DataError
from affectlens.core.progress import progress

if TYPE_CHECKING:
    from affectlens.circuits.attribution.gradients import GradientSettings
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel

CONTRIBUTIONS = "direct contributions"


def require_again(circuit: Circuit, directions: Directions | None) -> GradientSettings | None:
    """What to rank by again, before anything is run.

    Returns:
        The slopes; None for direct contributions.

    Raises:
        DataError: If the ranking cannot be made of parts of the texts, or needs directions that
            are missing.
    """
    made = circuit.provenance.parameters
    name, other = made.get("strategy"), made.get("ranking")
    row = None if name is None else STRATEGIES[name]
    if (row is None and other is not None) or (row and row.reads_task and row.slopes is None):
        raise DataError(
            f"How stable units are that were chosen by {name or other} cannot be told from parts "
            "of the texts; leave stability out (--parts), or find the circuit by a strategy that "
            "averages over texts: attribution_patching, eap_ig, direct or published."
        )
    if row is not None and row.slopes is not None:
        return row.slopes
    if directions is None:
        raise DataError(
            "Stability needs the directions that the circuit was found with; name them, or "
            "leave this part out."
        )
    return None


def ranked_by(circuit: Circuit) -> str:
    """What the units were ranked by, in words."""
    name = circuit.provenance.parameters.get("strategy")
    slopes = None if name is None else STRATEGIES[name].slopes
    return CONTRIBUTIONS if slopes is None else slopes.method


def scores_of_parts(
    model: LanguageModel,
    circuit: Circuit,
    corpus: Corpus,
    means: UnitMeans,
    directions: Directions | None,
    count: int,
) -> dict[str, Float[Tensor, "fold emotion layer unit"]]:
    """Scores of every unit on each of several parts of the scenarios, as the circuit was ranked.

    Args:
        model: The model.
        circuit: Its provenance says by what.
        corpus: Texts that it was found on, or others of their kind.
        means: What takes a unit's place, where slopes are asked for.
        directions: It was found with, where contributions are.
        count: How many parts.

    Raises:
        DataError: As `require_again`; also if there are fewer scenarios than parts, or a part lacks
            an emotion.
    """
    slopes = require_again(circuit, directions)
    made = circuit.provenance.parameters
    if slopes is None:
        assert directions is not None  # or it was refused
        return fold_scores(
            model,
            corpus,
            directions,
            folds=count,
            position=circuit.position,
            score=str(made.get("score", "contrast")),
        )
    task = TASKS[str(made["task"])].make(model, corpus, circuit.emotions)
    names = set(task.scenarios)
    if len(names) < count or not isinstance(task, TextTask):
        raise DataError(
            f"{len(names)} scenarios of the task {task.name} do not make {count} parts; ask for "
            "fewer, or give more texts."
        )
    each = list[tuple[Tensor, Tensor]]()
    with progress("scoring parts", count) as advance:
        for part in folds(task, count, 0):
            found = gradient_scores(model, part, Against(means), circuit.emotions, slopes)
            each.append((found.heads, found.neurons))
            advance(1)
    heads, neurons = (torch.stack(kind) for kind in zip(*each, strict=True))
    return {"heads": heads, "neurons": neurons}


def in_other_words(corpus: Corpus, paraphrases: Corpus) -> list[Corpus]:
    """Both corpora as far as they tell the same: scenarios of one name, in the emotions of both.

    Raises:
        DataError: If they share no scenario, or a text of one is a text of the other.
    """
    common = set(corpus.scenarios()) & set(paraphrases.scenarios())
    if not common:
        raise DataError(
            f"The paraphrases ({paraphrases.name}) have no scenario of {corpus.name}, so they are "
            "other contents and not other words; name their scenarios as there."
        )
    found = [
        replace(one, records=tuple(r for r in one if r.scenario in common))
        for one in (corpus, paraphrases)
    ]
    same = {r.text for r in found[0]} & {r.text for r in found[1]}
    if same:
        raise DataError(
            f"{len(same)} texts of {paraphrases.name} are those of {corpus.name}, word by word; "
            "paraphrase them, or leave their scenarios out."
        )
    return found
