"""Checks before a server starts: are these packs for this model, on this configuration?"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from affectlens.core import DataError, MismatchError
from affectlens.serving.settings import Settings
from affectlens.serving.vllm.front_door import FrontDoor
from affectlens.steering.pack import SteeringPack

logger = logging.getLogger(__name__)


def check_start(settings: Settings, config: Any) -> Settings:
    """Refuse to start with packs that do not fit; returns the settings that workers get.

    Raises:
        MismatchError: If a pack is for another model, naming both.
        DataError, UnknownNameError, ArtefactError: If settings or files cannot be used.
    """
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise DataError(
            "Steering is understood in vLLM's Python front end, and VLLM_USE_RUST_FRONTEND asks "
            "for the other; unset it."
        )
    if settings.pack_folder is not None and not Path(settings.pack_folder).is_dir():
        raise DataError(f"pack_folder {settings.pack_folder} is not a folder.")
    _require_whole_steps(config.parallel_config)
    packs = settings.load()
    model = config.model_config
    check_packs(packs, model, force=settings.force)
    if settings.read and config.parallel_config.pipeline_parallel_size > 1:
        # A probe's stage would have to tell the others, and the last one what clients get.
        logger.warning("The model is split into stages: no readings, no gates.")
        settings = replace(settings, read=False)
    FrontDoor(settings)
    if getattr(config, "speculative_config", None) is not None:
        logger.warning("The draft model is not steered; its drafts will be accepted less often.")
    return settings.with_fingerprints(packs)


def _require_whole_steps(parallel: Any) -> None:
    """Refuse a server that splits the tokens of a step: which is whose is known for all of them.

    Raises:
        DataError: Naming the option.
    """
    split = {
        "ubatch_size (enable_dbo)": getattr(parallel, "use_ubatching", False),
        "prefill_context_parallel_size": getattr(parallel, "prefill_context_parallel_size", 1) > 1,
    }
    for name, asked in split.items():
        if asked:
            raise DataError(
                f"Steering needs the tokens of a step together, and {name} splits them; leave it "
                "out."
            )


def check_packs(packs: dict[str, SteeringPack], model: Any, *, force: bool) -> None:
    """Compare packs with the model that is going to be served."""
    width = int(model.get_hidden_size())
    n_layers = int(getattr(model.hf_text_config, "num_hidden_layers", 0))
    served: str | None = None
    for name, pack in packs.items():
        if (pack.d_model, pack.n_layers) != (width, n_layers):
            raise MismatchError(
                f"Pack {name} is for {pack.provenance.model_name or 'a model'} of "
                f"{pack.n_layers} layers and width {pack.d_model}; {model.model} has {n_layers} "
                f"and {width}. Make a pack for it."
            )
        if force:
            continue
        if served is None:
            served = served_fingerprint(str(model.model))
        pack.provenance.require_model(served, str(model.model))


def served_fingerprint(model: str) -> str:
    """Fingerprint of the weights that a folder or a cached hub model holds.

    Raises:
        DataError: If they cannot be found or understood without loading them.
    """
    from affectlens.models.identity import checkpoint_identity

    try:
        return checkpoint_identity(_folder(model))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"Cannot tell whether the pack was made for {model}: its checkpoint cannot be compared "
            f"({error}). If you know it was (a quantised copy, say), set force to true."
        ) from error


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, local_files_only=True))
