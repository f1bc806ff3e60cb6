"""What is added to a circuit's units: differences between groups, or where a tone is carried on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.unit_means import difference
from affectlens.core.errors import DataError, unknown

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.circuits.tasks import Task
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel

DELTAS: tuple[str, ...] = ("group", "carried")
"""``group``: the circuit's own. ``carried``: from replies whose scenario's margin is positive."""


def with_delta_by(
    delta: str, circuit: Circuit, model: LanguageModel, corpus: Corpus, task: Task
) -> Circuit:
    """A circuit with its differences taken another way.

    Args:
        delta: One of :data:`DELTAS`.
        circuit: Whose units stay.
        model: The model.
        corpus: Replies that differences are of.
        task: Made of the same replies.

    Raises:
        UnknownNameError: If there is no such way.
        DataError: If an emotion is carried on in no scenario, or task and replies share none.
    """
    if delta not in DELTAS:
        raise unknown("difference", delta, DELTAS)
    if delta == "group":
        return circuit
    margins = torch.from_numpy(task.margins(model))
    kept = set[tuple[str, str]]()
    for emotion in circuit.emotions:
        column = margins[:, task.emotions.index(emotion)]
        kept |= {(task.scenarios[i], emotion) for i, m in enumerate(column.tolist()) if m > 0}
    records = tuple(r for r in corpus if (r.scenario, r.emotion) in kept)
    missing = set(circuit.emotions) - {r.emotion for r in records}
    if missing:
        raise DataError(
            f"In none of the scenarios that the task and these replies share is "
            f"{sorted(missing)[0]} carried on; give more replies, or take delta='group'."
        )
    means = unit_means(
        model,
        replace(corpus, records=records),
        circuit.emotions,
        position=circuit.position,
        grouped=False,
    )
    return circuit.with_delta(
        difference(means.mean("neurons")),
        difference(means.mean("heads")),
        how="mean where the tone is carried on",
    )
