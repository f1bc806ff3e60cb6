"""Language models: fetching, loading, and what is where inside them.

Names are looked up on first use, so that listing models does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectlens.models.anatomy import Anatomy, BlockParts, find_anatomy
    from affectlens.models.description import describe
    from affectlens.models.fingerprint import model_fingerprint
    from affectlens.models.hooks import StopForward, WritePoint, reading, writing
    from affectlens.models.loading import LanguageModel, load_model
    from affectlens.models.registry import ModelInfo, list_models, pull

_HOMES = {
    "Anatomy": "anatomy",
    "BlockParts": "anatomy",
    "find_anatomy": "anatomy",
    "describe": "description",
    "StopForward": "hooks",
    "WritePoint": "hooks",
    "reading": "hooks",
    "writing": "hooks",
    "LanguageModel": "loading",
    "load_model": "loading",
    "model_fingerprint": "fingerprint",
    "ModelInfo": "registry",
    "list_models": "registry",
    "pull": "registry",
}

__all__ = [
    "Anatomy",
    "BlockParts",
    "LanguageModel",
    "ModelInfo",
    "StopForward",
    "WritePoint",
    "describe",
    "find_anatomy",
    "list_models",
    "load_model",
    "model_fingerprint",
    "pull",
    "reading",
    "writing",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
