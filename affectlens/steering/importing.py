"""Vector files of other tools as a pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from affectlens.core import DataError, MismatchError, Provenance
from affectlens.core.artefact import file_fingerprint
from affectlens.steering.building import Layers, layer_numbers
from affectlens.steering.formats.vectors import VECTOR_FORMATS, VectorFile

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack


@dataclass(frozen=True)
class Imported:
    """What was read.

    Attributes:
        pack: Strength 1 of each label adds what its file would add.
        notes: What a user should know of the files, a sentence each.
    """

    pack: SteeringPack
    notes: tuple[str, ...]


def import_vectors(
    files: Mapping[str, str | Path],
    model: LanguageModel,
    format: str,
    *,
    layers: Layers | None = None,
    positions: str = "all",
) -> Imported:
    """A pack of vector files.

    Args:
        files: Label to file, such as ``{"anger": "anger.gguf"}``.
        model: What the vectors are for; nothing but their width and number can be checked.
        format: One of `VECTOR_FORMATS`.
        layers: Blocks to keep, counted from 0; default: all that the files hold.
        positions: Which tokens to steer by default.

    Raises:
        UnknownNameError: If the format or a layer does not exist.
        ArtefactError: If a file is missing or damaged, or none of the format.
        MismatchError: If its vectors do not fit the model.
        DataError: If there is no file, a label cannot be one, or a format of single layers is read
            without saying which.
    """
    if not files:
        raise DataError("There is no file to import; name one, for example anger=anger.gguf.")
    row = VECTOR_FORMATS[format]
    chosen = None if layers is None else set(layer_numbers(layers, model.n_layers))
    read: dict[str, dict[int, Tensor]] = {}
    notes: list[str] = []
    for label, file in files.items():
        path = Path(file)
        found = row.read(path)
        _require_fit(path, found, model)
        if row.one_at_a_time and chosen is None and len(found.vectors) > 1:
            raise DataError(
                f"{path} holds vectors of {len(found.vectors)} blocks, of which {format} adds one "
                "at a time; choose with --layers (blocks count from 0)."
            )
        kept = {n: v for n, v in found.vectors.items() if chosen is None or n in chosen}
        if not kept:
            raise DataError(f"{path} holds no vector for the blocks {sorted(chosen or ())}.")
        read[label] = kept
        notes += (f"{path.name}: {note}" for note in found.notes)
    made_by: dict[str, Any] = {
        label: {"format": format, "file": Path(file).name, "sha256": file_fingerprint(Path(file))}
        for label, file in files.items()
    }
    return Imported(pack_of_blocks(read, model, positions, made_by), tuple(notes))


def labelled_files(arguments: Sequence[str]) -> dict[str, Path]:
    """Read ``LABEL=FILE``.

    Raises:
        DataError: If one is nothing of the kind, or a label is there twice.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        label, equals, file = argument.partition("=")
        if not (label and equals and file):
            raise DataError(f"{argument!r} is no LABEL=FILE; write for example anger=anger.gguf.")
        if label in found:
            raise DataError(f"There are two files for {label}; keep one.")
        found[label] = Path(file)
    return found


def _require_fit(path: Path, found: VectorFile, model: LanguageModel) -> None:
    width = len(next(iter(found.vectors.values())))
    if width != model.d_model:
        raise MismatchError(
            f"{path} holds vectors of width {width}; {model.name} has {model.d_model}."
        )
    last = max(found.vectors)
    if last >= model.n_layers or found.n_layers not in (None, model.n_layers):
        has = f"{found.n_layers} blocks" if found.n_layers else f"a vector for block {last}"
        raise MismatchError(
            f"{path} holds {has}; {model.name} has {model.n_layers}, counted from 0."
        )


def pack_of_blocks(
    read: Mapping[str, Mapping[int, Tensor]],
    model: LanguageModel,
    positions: str,
    made_by: Mapping[str, Any],
) -> SteeringPack:
    """A pack that adds vectors after blocks.

    Args:
        read: Label to the vectors of its blocks.
        model: What they are for.
        positions: Which tokens to steer by default.
        made_by: Of each label, for the provenance.
    """
    from affectlens.steering.pack import SteeringPack

    blocks = sorted({block for vectors in read.values() for block in vectors})
    zero = torch.zeros(model.d_model)
    stacked = [torch.stack([vectors.get(n, zero) for n in blocks]) for vectors in read.values()]
    return SteeringPack(
        emotions=tuple(read),
        vectors={"residual.resid_post": torch.stack(stacked)},
        layers={"residual.resid_post": tuple(blocks)},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"residual": dict.fromkeys(read, 1.0)},
        positions={"residual": positions},
        provenance=Provenance(
            "pack",
            model=model.fingerprint,
            model_name=model.name,
            parameters={"imported": made_by},
        ),
    )
