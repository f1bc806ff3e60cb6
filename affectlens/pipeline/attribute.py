"""What units and edges are worth on a task, from files and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.pipeline.circuit_task import TaskRequest, read

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.circuits.attribution.edge_scores import EdgeScores
    from affectlens.circuits.attribution.scores import UnitScores


def patch_maps(
    request: TaskRequest, emotions: Sequence[str] | None = None
) -> tuple[UnitScores, Circuit]:
    """Exact total effects of all heads and sublayers; neurons by attribution patching.

    Returns:
        The effects, and the circuit, whose scores are direct contributions.

    Raises:
        ArtefactError, MismatchError, UnknownNameError, DataError: As `read` and `Asked.ready`; also
            if an emotion is none of the circuit's.
    """
    from affectlens.circuits.attribution.gradients import gradient_scores
    from affectlens.circuits.attribution.scores import UnitScores
    from affectlens.circuits.attribution.slopes import Against
    from affectlens.circuits.attribution.total_effect import total_effects
    from affectlens.core.artefact import Provenance

    asked = read(request)
    names = _emotions(asked.circuit, emotions)
    given = asked.ready()
    whole = (given.model, given.task, given.means, names)
    scores = UnitScores(
        method="exact total effect (neurons: attribution patching)",
        emotions=tuple(names),
        heads=total_effects(*whole),
        neurons=gradient_scores(given.model, given.task, Against(given.means), names).neurons,
        sublayers=total_effects(*whole, kind="sublayers"),
        provenance=Provenance(
            kind="unit_scores",
            model=given.model.fingerprint,
            model_name=given.model.name,
            corpus=given.task.fingerprint,
            parameters={"task": given.task.name, "method": "exact", "against": "means"},
        ),
    )
    return scores, given.circuit


def edges_of(
    request: TaskRequest,
    emotions: Sequence[str] | None = None,
    *,
    steps: int = 1,
    corrected: bool = False,
    into: str = "attention",
) -> tuple[EdgeScores, dict[str, str]]:
    """Scores of all edges, and what each sender writes, in tokens.

    With more than one step, texts are held against their like in another tone, of equal length.

    Raises:
        ArtefactError, MismatchError, UnknownNameError, DataError: As `read` and `Asked.ready`; also
            if no two texts are of equal length where steps ask for that.
    """
    from affectlens.circuits.attribution.edges import EdgeSettings, edge_scores
    from affectlens.circuits.attribution.slopes import Against
    from affectlens.circuits.tasks import pairs
    from affectlens.circuits.written_tokens import written_tokens

    settings = EdgeSettings(steps=steps, corrected=corrected, into=into)
    asked = read(request)
    names = _emotions(asked.circuit, emotions)
    given = asked.ready()
    against = Against(given.means)
    if steps > 1:
        against = Against(pairs={name: pairs(given.task, name) for name in names})
    scores = edge_scores(given.model, given.task, against, names, settings)
    return scores, written_tokens(given.model, given.means, scores.senders)


def rows_of(scores: UnitScores, direct: Circuit) -> list[dict[str, Any]]:
    """A row per emotion and head: direct contribution and total effect."""
    found = list[dict[str, Any]]()
    for e, emotion in enumerate(scores.emotions):
        own = direct.emotions.index(emotion)
        for layer in range(scores.heads.shape[1]):
            for head in range(int(direct.sizes[layer, 0])):
                found.append(
                    {
                        "emotion": emotion,
                        "layer": layer,
                        "head": head,
                        "direct": float(direct.head_scores[own, layer, head]),
                        "total": float(scores.heads[e, layer, head]),
                    }
                )
    return found


def save_patch_figures(scores: UnitScores, direct: Circuit, beside: Path) -> None:
    """Draw a map of each emotion next to a file, as HTML."""
    from affectlens.circuits.attribution.scores import UnitScores
    from affectlens.plotting.effects import effect_map

    own = [direct.emotions.index(emotion) for emotion in scores.emotions]
    written = UnitScores(
        "direct contribution",
        scores.emotions,
        direct.head_scores[own],
        direct.neuron_scores[own],
        scores.sublayers * float("nan"),
        direct.provenance,
    )
    for emotion in scores.emotions:
        figure = effect_map(scores, emotion, direct=written)
        figure.write_html(beside.with_name(f"{beside.stem}_{emotion}.html"))


def save_edge_figures(
    scores: EdgeScores, written: Mapping[str, str], beside: Path, count: int
) -> None:
    """Draw the strongest edges of each emotion next to a file, as HTML."""
    from affectlens.plotting.effects import edge_sankey

    for emotion in scores.emotions:
        figure = edge_sankey(scores, emotion, count=count, written=written)
        figure.write_html(beside.with_name(f"{beside.stem}_{emotion}.html"))


def _emotions(circuit: Circuit, wanted: Sequence[str] | None) -> list[str]:
    from affectlens.core.emotions import emotion_name

    names = [emotion_name(name, circuit.emotions) for name in wanted or circuit.emotions]
    if len(set(names)) < len(names):
        raise DataError(f"An emotion is named twice: {', '.join(names)}.")
    return names
