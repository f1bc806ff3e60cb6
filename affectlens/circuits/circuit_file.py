"""The file of a circuit: safetensors with a JSON header."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from affectlens.circuits.influence import InfluenceProfile
from affectlens.circuits.units import KINDS, read_units
from affectlens.circuits.verdict import Evidence
from affectlens.core.artefact import read_tensors, write_tensors

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit

_TENSORS = (
    "neuron_scores",
    "head_scores",
    "delta_neurons",
    "delta_heads",
    "allocation",
    "sizes",
    "routed",
)
_FACTS = ("emotions", "delta_source", "position")


def write_circuit(circuit: Circuit, path: Path) -> None:
    """Write all of it.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    tensors: dict[str, Tensor] = {name: getattr(circuit, name) for name in _TENSORS}
    for kind in KINDS:
        for emotion in circuit.emotions:
            rows = [[u.layer, u.index] for u in circuit.units(emotion, kind)]
            tensors[f"{kind}.{emotion}"] = torch.tensor(rows, dtype=torch.int32).reshape(-1, 2)
    facts: dict[str, Any] = {name: getattr(circuit, name) for name in _FACTS}
    if circuit.influence is not None:
        more, facts["influence"] = circuit.influence.to_tensors()
        tensors |= more
    if circuit.evidence is not None:
        facts["evidence"] = circuit.evidence.to_dict()
    facts["overlap"] = {kind: circuit.overlap(kind).to_dict() for kind in KINDS}
    write_tensors(path, tensors, circuit.provenance, facts)


def read_circuit(path: Path) -> dict[str, Any]:
    """Every field of the circuit in a file.

    Raises:
        ArtefactError: If the file is missing, cut short, or holds NaN.
        MismatchError: If it is another kind of artefact, or its evidence is of other units.
        KeyError, IndexError, TypeError, ValueError, DataError: If something in it is missing or of
            another form, for the caller to say so.
    """
    file = read_tensors(path, "circuit")
    scores = {"heads": file.tensors["head_scores"], "neurons": file.tensors["neuron_scores"]}
    emotions = tuple(str(e) for e in file.extra["emotions"])
    units = {
        kind: {
            emotion: read_units(file.tensors[f"{kind}.{emotion}"], scores[kind][e], sizes)
            for e, emotion in enumerate(emotions)
        }
        for kind, sizes in zip(KINDS, file.tensors["sizes"].T, strict=True)
    }
    profile, evidence = file.extra.get("influence"), file.extra.get("evidence")
    return {
        "emotions": emotions,
        "neurons": units["neurons"],
        "heads": units["heads"],
        **{name: file.tensors[name] for name in _TENSORS},
        "influence": profile and InfluenceProfile.from_tensors(file.tensors, profile),
        "delta_source": str(file.extra["delta_source"]),
        "position": str(file.extra["position"]),
        "provenance": file.provenance,
        "evidence": evidence and Evidence.from_dict(evidence),
    }
