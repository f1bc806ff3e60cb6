"""What the file of a steering pack holds; its fingerprint covers the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from affectlens.core.artefact import TensorFile
from affectlens.core.places import WritePoint
from affectlens.steering.classifier import CLASSIFIER, Classifier
from affectlens.steering.gates import Readout
from affectlens.steering.intensity import facts, from_facts
from affectlens.steering.low_rank import LowRank

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def facts_of(pack: SteeringPack) -> dict[str, Any]:
    """What the file says besides the tensors."""
    return {
        "emotions": list(pack.emotions),
        "layers": {name: list(numbers) for name, numbers in pack.layers.items()},
        "hooks": {
            name: [WritePoint(layer, name.partition(".")[2]).hook_name for layer in numbers]
            for name, numbers in pack.layers.items()
        },
        "n_layers": pack.n_layers,
        "d_model": pack.d_model,
        "recommended": {mode: dict(values) for mode, values in pack.recommended.items()},
        "positions": dict(pack.positions),
        **{name: probes.facts() for name, probes in _probes(pack).items()},
        **({"enough": {e: dict(of) for e, of in pack.enough.items()}} if pack.enough else {}),
        **({"responses": facts(pack.responses)} if pack.responses else {}),
        **({"first": pack.first} if pack.first else {}),
    }


def tensors_of(pack: SteeringPack) -> dict[str, Tensor]:
    """The tensors, by their names in the file."""
    tensors = dict(pack.vectors)
    if pack.rms is not None:
        tensors["rms"] = pack.rms
    for name, maps in pack.low_rank.items():
        tensors |= {f"{name}.reads": maps.reads, f"{name}.writes": maps.writes}
    if pack.classifier is not None:
        parts = pack.classifier.parts()
        tensors |= {f"{CLASSIFIER}.{part}": tensor for part, tensor in parts.items()}
    for name, probes in _probes(pack).items():
        tensors |= {f"{name}.weights": probes.weights, f"{name}.bias": probes.bias}
    return tensors


def fields_of(file: TensorFile) -> dict[str, Any]:
    """Inverse of both: the fields of a pack.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: If the file lacks something.
    """
    said, tensors = file.extra, dict(file.tensors)
    rms = tensors.pop("rms", None)
    probes = {
        name: {part: tensors.pop(f"{name}.{part}") for part in ("weights", "bias")}
        for name in ("readout", "gates")
        if {f"{name}.weights", f"{name}.bias"} <= tensors.keys()
    }
    mapped = [name.removesuffix(".reads") for name in tensors if name.endswith(".reads")]
    classifier = {
        name.removeprefix(f"{CLASSIFIER}."): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(f"{CLASSIFIER}.")
    }
    return {
        "emotions": tuple(said["emotions"]),
        "low_rank": {
            name: LowRank(tensors.pop(f"{name}.reads"), tensors.pop(f"{name}.writes"))
            for name in mapped
        },
        "classifier": Classifier(**classifier) if classifier else None,
        "vectors": tensors,
        "layers": {name: tuple(numbers) for name, numbers in said["layers"].items()},
        "n_layers": said["n_layers"],
        "d_model": said["d_model"],
        "recommended": said["recommended"],
        "positions": said["positions"],
        "rms": rms,
        "enough": said.get("enough", {}),
        "responses": from_facts(said.get("responses", {})),
        "first": said.get("first"),
        "provenance": file.provenance,
        **{name: Readout.from_file(said[name], parts) for name, parts in probes.items()},
    }


def _probes(pack: SteeringPack) -> dict[str, Readout]:
    both = {"readout": pack.readout, "gates": pack.gates}
    return {name: probes for name, probes in both.items() if probes is not None}
