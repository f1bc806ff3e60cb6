"""Head scores as arXiv 2510.11328 publishes them: read behind the norm that the MLP reads through.

The directions lie before that norm, so these scores mix what a head writes with how it changes the
scale of everything else. They are here to reproduce the study; `contributions` reads the residual
stream itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.activations.capture import capture
from affectlens.activations.settings import MAX_TOKENS_PER_BATCH
from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.last_token_replay import in_float
from affectlens.core.errors import DataError, ModelError
from affectlens.core.places import Site
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.placement import device_of

if TYPE_CHECKING:
    from affectlens.activations.store.store import ActivationStore
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel

_RECORDS = 256
"""Read at once: bounds the memory of their residual streams."""
_ROWS = 32
"""Taken apart into heads at once."""


@torch.no_grad()
def heads_after_norm(
    model: LanguageModel,
    corpus: Corpus,
    directions: Directions,
    *,
    position: str = "last",
    max_tokens_per_batch: int = MAX_TOKENS_PER_BATCH,
) -> Float[Tensor, "emotion layer n_heads"]:
    """Mean fall of ``⟨norm(resid_mid), v[e]⟩`` when one head's slice before ``W_O`` is zero.

    Exactly what one forward pass per head and text gives: within a layer, zeroing a head at all
    positions changes the read position by what the head wrote there. Where an MLP reads the
    residual without a norm of its own (OLMo 2), the residual is read.

    Args:
        model: The model.
        corpus: Every record is scored along the direction of its own emotion, and counts once.
        directions: At ``resid_mid`` and ``resid_post`` of all layers.
        position: Where to read.
        max_tokens_per_batch: Padded tokens per forward pass.

    Raises:
        ModelError: If the model has no residual between attention and MLP, or no heads.
        DataError: If an emotion of the directions has no records.

    Source: arXiv 2510.11328, script 04/2.
    """
    refuse_listeners(model.hf, "Head scores")
    anatomy = model.anatomy
    if not (anatomy.has_resid_mid and anatomy.n_heads):
        raise ModelError(
            f"{model.name} has no residual between attention and MLP, or no heads, so nothing can "
            "be read between them; use contributions."
        )
    found = sublayer_directions(directions, anatomy)
    if found.attn_site != "resid_mid":
        raise DataError("The directions lack resid_mid; capture it as well.")
    corpus.require_emotions(found.emotions)
    total = torch.zeros(len(found.emotions), anatomy.n_layers, anatomy.n_heads, dtype=torch.float64)
    count = torch.zeros(len(found.emotions), dtype=torch.float64)
    layers = [part.layer for part in anatomy.blocks if part.n_heads]
    sites = [Site(layer, kind) for layer in layers for kind in ("resid_mid", "z")]
    for store in _stores(model, corpus, found.emotions, sites, position, max_tokens_per_batch):
        emotion = torch.tensor([found.emotions.index(e) for e in store.column("emotion", position)])
        count.index_add_(0, emotion, torch.ones(len(emotion), dtype=torch.float64))
        for layer in layers:
            part = anatomy.blocks[layer]
            v = found.vectors[emotion, layer, 0]
            x, z = (store.to_torch(Site(layer, kind), position) for kind in ("resid_mid", "z"))
            falls = torch.cat(
                [
                    _falls(part, x[i : i + _ROWS], z[i : i + _ROWS], v[i : i + _ROWS])
                    for i in range(0, len(x), _ROWS)
                ]
            )
            total[:, layer, : part.n_heads].index_add_(0, emotion, falls.double())
    return (total / count[:, None, None]).float()


def _stores(
    model: LanguageModel,
    corpus: Corpus,
    emotions: tuple[str, ...],
    sites: list[Site],
    position: str,
    max_tokens_per_batch: int,
) -> Iterator[ActivationStore]:
    """Activations of the records that have an emotion, some at a time."""
    records = [record for record in corpus if record.emotion in emotions]
    for start in range(0, len(records), _RECORDS):
        some = replace(corpus, records=tuple(records[start : start + _RECORDS]))
        yield capture(
            model,
            some,
            sites=sites,
            positions=position,
            dtype="float32",
            max_tokens_per_batch=max_tokens_per_batch,
        )


def _falls(
    part: BlockParts,
    x: Float[Tensor, "row d_model"],
    z: Float[Tensor, "row width"],
    v: Float[Tensor, "row d_model"],
) -> Float[Tensor, "row n_heads"]:
    """Of every head of a layer, for every text."""
    device = device_of(part.block)
    x, v = x.to(device), v.to(device)
    heads = z.to(device).unflatten(-1, (part.n_heads, -1))
    written = torch.einsum("nhk,hkd->nhd", heads, part.W_O().to(device))
    if part.attn_post_norm is not None:
        bias = part.b_O()
        raw = written.sum(1) if bias is None else written.sum(1) + bias.to(device)
        whole = in_float(part.attn_post_norm, raw)[:, None]
        written = whole - in_float(part.attn_post_norm, raw[:, None] - written)
    norm = None if part.mid_reader is part.mlp else part.mid_reader
    without = _read(norm, x[:, None] - part.attn_scale * written)
    return ((_read(norm, x)[:, None] - without) * v[:, None]).sum(-1).cpu()


def _read(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else in_float(norm, x)
