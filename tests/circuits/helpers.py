"""Small corpora and directions, and plain hooks that share no code with the package."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from affectlens.core import Provenance, Site
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.geometry.directions import Directions
from affectlens.models.chat.chats import encode

EMOTIONS = ("anger", "fear", "happiness")
WORDS = {"anger": ("angry",), "fear": ("dark",), "happiness": ("happy", "lovely")}


def small_corpus(design: str = "replies", *, emotions: tuple[str, ...] = EMOTIONS) -> Corpus:
    """Two scenarios with two valences each *under one group name*, every emotion."""
    texts = ("I am so angry.", "She is afraid of it.", "What a lovely day, I feel happy today")
    records: list[Record] = []
    for s in range(2):
        for valence in ("positive", "negative"):
            user = Message("user", f"The train was {'late' if s else 'cancelled'}, {valence}.")
            for i, emotion in enumerate((*emotions, "neutral")):
                reply = Message("assistant", f"{valence[: 2 + s]} {texts[(i + s) % 3]} {emotion}")
                system = Message("system", f"You feel {emotion}")
                records.append(
                    Record(
                        id=f"{s}:{valence}:{emotion}",
                        messages=(user, reply) if design == "replies" else (system, user),
                        emotion=emotion,
                        valence=valence,
                        group=f"s{s}",
                        theme="t",
                        split="fit",
                    )
                )
    return Corpus("small", design, tuple(records))


def random_directions(
    model: Any, emotions: tuple[str, ...] = EMOTIONS, *, mid: bool = True, seed: int = 5
) -> Directions:
    """Unit directions at resid_post, and at resid_mid where the family has one."""
    kinds = ["resid_mid"] if mid and model.anatomy.has_resid_mid else []
    sites = tuple(Site(i, kind) for i in range(model.n_layers) for kind in (*kinds, "resid_post"))
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(sites), len(emotions), model.d_model, generator=generator)
    norms = vectors.norm(dim=-1)
    return Directions(
        emotions=emotions,
        sites=sites,
        vectors=vectors / norms[..., None],
        norms=norms,
        estimator="group_centred",
        split_half=torch.ones_like(norms),
        provenance=Provenance("directions", model=model.fingerprint, model_name=model.name),
    )


def direction(directions: Any, layer: int, kind: str) -> Tensor:
    """``[emotion, d_model]`` at a site, or at resid_post where there is no such site."""
    site = Site(layer, kind)
    if site not in directions.sites:
        site = Site(layer, "resid_post")
    return directions.vectors[directions.sites.index(site)]


@contextmanager
def hooks(*pairs: tuple[Any, Callable[..., Any], str]) -> Generator[None]:
    """Plain hooks: (module, function, "in" or "out"); the function gets and may return a tensor.

    For one text at a time: OPT's MLP has no batch axis, so one is put before.
    """

    def call(f: Callable[..., Any], value: Tensor) -> Any:
        if value.ndim == 3:
            return f(value)
        new = f(value[None])
        return None if new is None else new[0]

    handles = []
    for module, function, side in pairs:
        if side == "in":

            def before(_m: Any, args: Any, f: Callable[..., Any] = function) -> Any:
                new = call(f, args[0])
                return None if new is None else (new, *args[1:])

            handles.append(module.register_forward_pre_hook(before))
        else:

            def after(_m: Any, _a: Any, out: Any, f: Callable[..., Any] = function) -> Any:
                new = call(f, out[0] if isinstance(out, tuple) else out)
                if new is None:
                    return None
                return (new, *out[1:]) if isinstance(out, tuple) else new

            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sublayer_out(part: Any, kind: str) -> Any:
    """The module whose output is added to the residual."""
    if kind == "attn":
        return part.o_proj if part.attn_post_norm is None else part.attn_post_norm
    return part.down_proj if part.mlp_post_norm is None else part.mlp_post_norm


def record_of(corpus: Corpus, emotion: str) -> list[Record]:
    return [r for r in corpus if r.emotion == emotion]


def run(model: Any, record: Any, *extra: Any) -> tuple[dict[Any, Tensor], range]:
    """One plain pass over one record: every sublayer's input, raw output and added output."""
    row = encode(model.tokenizer, record.chat, add_generation_prompt=record.reply is None)
    seen: dict[Any, Tensor] = {}

    def keep(name: str, layer: int) -> Any:
        return lambda value: seen.__setitem__((name, layer), value[0].detach().clone())

    pairs = []
    for part in model.anatomy.blocks:
        for kind, module in (("attn", part.o_proj), ("mlp", part.down_proj)):
            pairs.append((module, keep(f"{kind}_in", part.layer), "in"))
            pairs.append((module, keep(f"{kind}_raw", part.layer), "out"))
            pairs.append((sublayer_out(part, kind), keep(f"{kind}_out", part.layer), "out"))
        pairs.append((part.block, keep("post", part.layer), "out"))
    with torch.no_grad(), hooks(*pairs, *extra):
        model.hf(torch.tensor([row.ids]))
    span = range(*row.spans["reply"]) if record.reply else range(len(row) - 1, len(row))
    return seen, span


def true_norm(norm: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and per-token scale of Gemma's or OLMo's norm, from its definition."""
    weight = 1 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight
    eps = getattr(norm, "eps", None) or norm.variance_epsilon
    return weight.detach(), torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
