"""Engines: ways to run a model and read its sites, behind one call."""

from __future__ import annotations

from typing import Any

from affectlens.activations.forward.engines.base import Capabilities, Engine, Reader
from affectlens.activations.forward.engines.nnsight import NnsightEngine
from affectlens.activations.forward.engines.transformer_lens import TransformerLensEngine
from affectlens.activations.forward.engines.transformers import TransformersEngine
from affectlens.core.errors import unknown
from affectlens.core.places import EXTRA_KINDS, KINDS
from affectlens.models.loading import LanguageModel

_CLASSES: dict[str, type[Engine]] = {
    engine.capabilities.name: engine
    for engine in (TransformersEngine, TransformerLensEngine, NnsightEngine)
}

ENGINES: tuple[str, ...] = tuple(_CLASSES)

__all__ = [
    "ENGINES",
    "Capabilities",
    "Engine",
    "Reader",
    "capabilities",
    "capability_table",
    "open_engine",
]


def open_engine(name: str, model: LanguageModel, **options: Any) -> Engine:
    """An engine over a loaded model.

    Args:
        name: One of `ENGINES`.
        model: The model; it is left as it is.
        options: ``key_length``, the length of the longest text, which attention patterns need; and
            ``remote`` for nnsight (False, True, or ``"local"``).

    Raises:
        UnknownNameError: If there is no such engine, or it has no such option.
    """
    if name not in _CLASSES:
        raise unknown("engine", name, ENGINES)
    fields = _CLASSES[name].__dataclass_fields__.keys() - {"model"}
    for option in options:
        if option not in fields:
            raise unknown(f"option of the {name} engine", option, sorted(fields))
    return _CLASSES[name](model, **options)


def capabilities() -> tuple[Capabilities, ...]:
    """What each engine can and cannot do."""
    return tuple(engine.capabilities for engine in _CLASSES.values())


def capability_table() -> str:
    """`capabilities` as a Markdown table."""
    rows = {
        "stops after the deepest site": "stops_early",
        "computes no logits": "logits_skipped",
        "left padding": "left_padding",
        "keeps fused attention": "keeps_fused_attention",
        "other machines": "remote",
    }
    lines = [["", *(f"`{name}`" for name in ENGINES)], ["---"] * (len(ENGINES) + 1)]
    for kind in (*KINDS, *EXTRA_KINDS):
        lines.append([f"`{kind}`", *(_mark(kind in each.kinds) for each in capabilities())])
    for label, field in rows.items():
        lines.append([label, *(_mark(getattr(each, field)) for each in capabilities())])
    lines.append(["", *(each.note for each in capabilities())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mark(can: bool) -> str:
    return "yes" if can else "no"
