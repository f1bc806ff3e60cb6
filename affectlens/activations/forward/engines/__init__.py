"""Engines: ways to run a model and read its sites, behind one call; a file and a row for each."""

from __future__ import annotations

from typing import Any

from affectlens.activations.forward.engines.base import Capabilities, Engine, EngineRow, Reader
from affectlens.activations.forward.engines.nnsight import NnsightEngine
from affectlens.activations.forward.engines.transformer_lens import TransformerLensEngine
from affectlens.activations.forward.engines.transformers import TransformersEngine
from affectlens.core.errors import unknown
from affectlens.core.places import EXTRA_KINDS, KINDS
from affectlens.core.registry import Registry
from affectlens.models.loading import LanguageModel

ENGINES: Registry[EngineRow] = Registry(
    "engine",
    EngineRow(TransformersEngine),
    EngineRow(TransformerLensEngine),
    EngineRow(NnsightEngine),
)

__all__ = [
    "ENGINES",
    "Capabilities",
    "Engine",
    "EngineRow",
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
    engine = ENGINES[name].engine
    fields = engine.__dataclass_fields__.keys() - {"model"}
    for option in options:
        if option not in fields:
            raise unknown(f"option of the {name} engine", option, sorted(fields))
    return engine(model, **options)


def capabilities() -> tuple[Capabilities, ...]:
    """What each engine can and cannot do."""
    return tuple(row.engine.capabilities for row in ENGINES.values())


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
    lines.append(["", *(each.help for each in capabilities())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mark(can: bool) -> str:
    return "yes" if can else "no"
