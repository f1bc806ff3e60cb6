"""Caps on attention scores, which some attention functions leave out without a word."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

logger = logging.getLogger(__name__)

KNOWING = ("eager", "flash", "flex")
"""Beginnings of the names of attention functions that apply a cap."""


def keep_soft_cap(hf: Any) -> None:
    """Let a model with a cap on its attention scores (Gemma 2) use a function that applies it.

    Transformers' sdpa does not. Whether there is a cap is read off the config and off the attention
    modules themselves.
    """
    now = str(getattr(hf.config, "_attn_implementation", None) or "eager")
    if any(name in now for name in KNOWING):
        return
    modules = (vars(module) for module in hf.modules())
    if _has_cap(hf.config.to_dict()) or any(_has_cap(attributes) for attributes in modules):
        logger.warning(
            "%s caps its attention scores, which %s leaves out; it runs with eager attention now.",
            type(hf).__name__,
            now,
        )
        hf.set_attn_implementation("eager")


def _has_cap(values: Mapping[Any, Any]) -> bool:
    for key, value in values.items():
        name = str(key)
        if isinstance(value, Mapping):
            if not name.startswith("_") and _has_cap(cast("Mapping[Any, Any]", value)):
                return True
        elif "attn" in name and "softcap" in name.replace("_", "") and value:
            return True
    return False
