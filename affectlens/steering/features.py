"""Features of sparse autoencoders and transcoders as a pack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError, MismatchError
from affectlens.core.artefact import file_fingerprint
from affectlens.steering.building import Layers, layer_numbers
from affectlens.steering.formats.dictionaries import DICTIONARIES, Feature
from affectlens.steering.formats.dictionaries.saelens import WEIGHTS
from affectlens.steering.importing import Imported, pack_of_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from affectlens.models.loading import LanguageModel

_FEATURE = re.compile(r"(?P<label>[^=]+)=(?P<file>.+):(?P<index>\d{1,9})")
_FORCED = "It is of the model {}; that it fits this one was forced, not checked."


def import_features(
    features: Mapping[str, tuple[str | Path, int]],
    model: LanguageModel,
    format: str,
    *,
    layers: Layers | None = None,
    positions: str = "all",
    force: bool = False,
) -> Imported:
    """A pack of features that a user chose.

    Strength 1 adds what the feature adds at an activation of 1, which is little beside the residual
    stream: ask for more, with ``unit=raw`` for up to 10,000 times a vector of norm 1.

    Args:
        features: Label to file and number of the feature, such as ``{"anger": ("sae", 1234)}``.
        model: What the dictionary was trained on.
        format: One of `DICTIONARIES`.
        layers: The block to add after, where the file does not say.
        positions: Which tokens to steer by default.
        force: Accept a dictionary that names another model, if the width fits.

    Raises:
        UnknownNameError: If the format or a layer does not exist.
        ArtefactError: If a file is missing or damaged, or none of the format.
        MismatchError: If it does not fit the model.
        DataError: If there is no such feature, or packs cannot reach its place.
    """
    if not features:
        raise DataError("There is no feature to import; name one, for example anger=FOLDER:1234.")
    row = DICTIONARIES[format]
    chosen = None if layers is None else layer_numbers(layers, model.n_layers)
    read: dict[str, dict[int, Tensor]] = {}
    notes: dict[str, None] = {}
    made_by: dict[str, Any] = {}
    for label, (file, index) in features.items():
        path = Path(file)
        found = row.read(path, index)
        forced = _require_fit(path, found, model, force=force)
        block = _block(path, found, chosen, model)
        read[label] = {block: found.vector}
        said = (*found.notes, _FORCED.format(found.model_name)) if forced else found.notes
        notes |= dict.fromkeys(f"{path.name}: {note}" for note in said)
        weights = path / WEIGHTS if path.is_dir() else path
        made_by[label] = {
            "format": format,
            "file": path.name,
            "feature": index,
            "sha256": file_fingerprint(weights),
            "config_sha256": None if found.config is None else file_fingerprint(found.config),
            "block": block,
            "model_name": found.model_name,
            "forced": forced,
        }
    return Imported(pack_of_blocks(read, model, positions, made_by), tuple(notes))


def labelled_features(arguments: Sequence[str]) -> dict[str, tuple[Path, int]]:
    """Read ``LABEL=FILE:FEATURE``.

    Raises:
        DataError: If one is nothing of the kind, or a label is there twice.
    """
    found: dict[str, tuple[Path, int]] = {}
    for argument in arguments:
        match = _FEATURE.fullmatch(argument)
        if match is None:
            raise DataError(
                f"{argument!r} is no LABEL=FILE:FEATURE; write for example anger=FOLDER:1234."
            )
        if match["label"] in found:
            raise DataError(f"There are two features for {match['label']}; keep one.")
        found[match["label"]] = Path(match["file"]), int(match["index"])
    return found


def _require_fit(path: Path, found: Feature, model: LanguageModel, *, force: bool) -> bool:
    """Whether it fits by force alone: it names another model."""
    if len(found.vector) != model.d_model:
        raise MismatchError(
            f"{path} holds features of width {len(found.vector)}; {model.name} has {model.d_model}."
        )
    known = {_short(model.name), _short(str(getattr(model.hf.config, "_name_or_path", "")))}
    other = bool(found.model_name) and _short(found.model_name) not in known
    if other and not force:
        raise MismatchError(
            f"{path} is of the model {found.model_name}, not of {model.name}; use one of this "
            "model, or force it if both are the same."
        )
    return other


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _block(path: Path, found: Feature, chosen: Sequence[int] | None, model: LanguageModel) -> int:
    block = found.block
    if block is None:
        if chosen is None or len(chosen) != 1:
            raise DataError(
                f"{path} does not say which block it is of; say it with --layers (blocks count "
                "from 0)."
            )
        return chosen[0]
    if chosen is not None and tuple(chosen) != (block,):
        raise DataError(f"{path} is of block {block}; leave --layers out, or give {block}.")
    if block >= model.n_layers:
        raise MismatchError(
            f"{path} is of block {block}; {model.name} has {model.n_layers}, counted from 0."
        )
    return block
