"""SAELens's files: ``sae_weights.safetensors`` with a ``cfg.json`` beside it.

``W_dec`` is [d_sae, d_in], of transcoders [d_sae, d_out]. The configuration names place and model,
in files of version 6 under ``metadata``; that of a transcoder names the place it writes to, too.
With ``rescale_acts_by_decoder_norm`` activations are divided by the norms of their rows before they
are decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from affectlens.core import ArtefactError, DataError
from affectlens.core.artefact import read_json
from affectlens.steering.formats.dictionaries.dictionary import (
    OF_NO_MODEL,
    DictionaryFormat,
    Feature,
    block_of,
    require_alive,
    require_feature,
)
from affectlens.steering.formats.vectors.vector_format import damaged, existing, vector_of

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
_OUT = ("hook_name_out", "out_hook_point", "hook_name", "hook_point")
_HEAD = ("hook_head_index", "hook_point_head_index", "hook_head_index_out")
_PLAIN = (None, "none", False)
_RESCALED, _RESHAPED = "rescale_acts_by_decoder_norm", "reshape_activations"


def read(path: Path, index: int) -> Feature:
    """One feature; of a large file nothing but its row is read.

    Args:
        path: The folder, or the safetensors file in it.
        index: Number of the feature, from 0.

    Raises:
        ArtefactError: If a file is missing, damaged, or nothing of the kind.
        DataError: If there is no such feature, packs cannot reach its place, or activations were
            reshaped.
    """
    from safetensors import SafetensorError, safe_open

    path = existing(path / WEIGHTS if path.is_dir() else path)
    if path.suffix != ".safetensors":
        raise ArtefactError(
            f"{path} is no .safetensors file; others may hold pickles, which are not read. Have it "
            "saved by SAELens (save_model)."
        )
    config = path.with_name(CONFIG)
    facts = _facts(config)
    try:
        with safe_open(path, "pt") as file:
            if "W_dec" not in file.keys():  # noqa: SIM118  (no mapping)
                raise ArtefactError(f"{path} holds no W_dec, so it is no dictionary of SAELens.")
            rows = file.get_slice("W_dec")
            shape = tuple(rows.get_shape())
            if len(shape) != 2:
                raise ArtefactError(f"W_dec of {path} has shape {list(shape)}, not two axes.")
            _require_shape(path, shape, facts)
            require_feature(path, index, shape[0])
            vector = vector_of(path, f"feature {index}", rows[index : index + 1][0])
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    require_alive(path, index, vector)
    if facts.get(_RESCALED):
        vector = vector / vector.norm()
    hook = next((str(facts[name]) for name in _OUT if facts.get(name)), "")
    model_name = str(facts.get("model_name") or "")
    return Feature(vector, block_of(path, hook), model_name, _notes(facts), config)


def _facts(path: Path) -> Mapping[str, Any]:
    existing(path)
    try:
        config: Any = read_json(path)
    except RecursionError as error:
        raise damaged(path, error) from error
    if not isinstance(config, dict):
        raise ArtefactError(f"{path} is no configuration of SAELens: it is no mapping.")
    facts = cast("dict[str, Any]", config)
    more = facts.get("metadata")
    found = {**facts, **(cast("dict[str, Any]", more) if isinstance(more, dict) else {})}
    if any(found.get(name) is not None for name in _HEAD):
        raise DataError(f"{path} is of a single head, which is no place that packs add features.")
    if found.get(_RESHAPED) not in _PLAIN:
        raise DataError(
            f"{path} has {_RESHAPED}={found[_RESHAPED]!r}; packs add features as they stand in the "
            "decoder, of activations that were not reshaped."
        )
    return found


def _require_shape(path: Path, shape: tuple[int, ...], facts: Mapping[str, Any]) -> None:
    said = (facts.get("d_sae"), facts.get("d_out") or facts.get("d_in"))
    for name, found, told in zip(("features", "width"), shape, said, strict=True):
        if told is not None and told != found:
            raise ArtefactError(
                f"W_dec of {path} has shape {list(shape)}, but {CONFIG} says {name} {told!r}; the "
                "two are not of one dictionary."
            )


def _notes(facts: Mapping[str, Any]) -> tuple[str, ...]:
    notes = () if facts.get("model_name") else (OF_NO_MODEL,)
    if facts.get(_RESCALED):
        notes = (
            *notes,
            f"Its activations count in norms of the decoder ({_RESCALED}), so an activation of 1 "
            "adds a vector of norm 1.",
        )
    how = facts.get("normalize_activations")
    if how in _PLAIN:
        return notes
    return (
        *notes,
        f"It was trained on normalised activations ({how}), so an activation of 1 is another size "
        "in the residual stream.",
    )


SAELENS = DictionaryFormat(
    "saelens", "SAELens: sae_weights.safetensors, and cfg.json that says place and model", read
)
