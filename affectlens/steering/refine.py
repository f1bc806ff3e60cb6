"""Refining steering vectors by gradient, so that steered text stays fluent.

An analytic direction says where emotions differ, not what makes the model *write* one. A few dozen
steps of gradient descent on the model's own likelihood of emotional replies close that gap: the
weights stay frozen, only what is added changes, and a circuit is refined inside its own units. No
judge has a part in it. Related: Cao et al., "Personalized steering ... bi-directional preference
optimization" (arXiv 2406.00045) train vectors by preference; here plain likelihood suffices.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from affectlens.core import DataError, GroupKey, ModelError, fingerprint, group_name

if TYPE_CHECKING:
    from collections.abc import Generator

    from affectlens.circuits.circuit import Circuit
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.geometry.directions import Directions
    from affectlens.models.hooking.hooks import WritePoint
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)

Additions = Mapping["WritePoint", Float[Tensor, "emotion d_model"]]
Advance = Callable[[int], object]


@dataclass(frozen=True)
class RefineSettings:
    """How vectors are refined.

    Attributes:
        steps: Gradient steps (Adam), learning rate warmed up over three and then falling to a
            fifth.
        groups_per_step: Groups in a batch; each gives one reply per emotion.
        max_reply_tokens: Replies are cut to so many tokens.
        learning_rate: In units of the starting vector's RMS per component.
        start: The analytic vector is multiplied by this to start from.
        first_weight: Extra weight of a reply's first token; it falls off as ``exp(-t / tau)``,
            because what opens a reply decides its tone.
        tau: In tokens.
        seed: Of the choice of groups.
    """

    steps: int = 32
    groups_per_step: int = 4
    max_reply_tokens: int = 24
    learning_rate: float = 0.4
    start: float = 1.0
    first_weight: float = 3.0
    tau: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "groups_per_step", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        for name in ("learning_rate", "start", "tau"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{name} must be above 0, not {value!r}.")


RESIDUAL = RefineSettings(learning_rate=0.3, start=0.8)
CIRCUIT = RefineSettings(learning_rate=0.5, start=2.0)


def refine_directions(
    model: LanguageModel,
    directions: Directions,
    corpora: Corpus | Sequence[Corpus],
    *,
    layers: Sequence[int],
    settings: RefineSettings = RESIDUAL,
    advance: Advance = lambda _n: None,
) -> Directions:
    """Refine the directions of a few blocks together.

    Args:
        model: The model, weights untouched.
        directions: At ``resid_post`` of all ``layers``.
        corpora: Replies in groups that have every emotion. Several corpora give groups in turn;
            one that is named twice has twice the weight.
        layers: Blocks at whose output vectors will be added.
        settings: Of the descent.
        advance: Told about every step.

    Returns:
        Directions at those sites alone; natural dose = length of the refined vector. They have no
        split-half cosine: that of the start says nothing about what the descent made of it.

    Raises:
        DataError: If no group has every emotion, or one has several prompts.
        ModelError: If the loss is not finite.
    """
    from affectlens.core import Site
    from affectlens.models.generation.listeners import refuse_listeners
    from affectlens.models.hooking.hooks import WritePoint

    refuse_listeners(model.hf, "Refinement")
    directions.provenance.require_model(model.fingerprint, model.name)
    sites = tuple(Site(layer, "resid_post") for layer in layers)
    index = [directions.site_index(site) for site in sites]
    start = directions.centroid()[index].transpose(0, 1).contiguous()  # [emotion, layer, d]
    scale = _rms_per_layer(start, torch.ones_like(start, dtype=torch.bool))

    def additions(free: Sequence[Tensor]) -> Additions:
        vectors = free[0] * scale.to(free[0].device)
        return {WritePoint(n, "resid_post"): vectors[:, i] for i, n in enumerate(layers)}

    (free,) = _descend(
        model, corpora, directions.emotions, [start / scale], additions, settings, advance
    )
    found = (free * scale).transpose(0, 1)
    norms = found.norm(dim=-1)
    parameters = {
        **directions.provenance.parameters,
        "refined": asdict(settings),
        "refined_on": _fingerprints(corpora),
        "refined_layers": list(layers),
    }
    return replace(
        directions,
        sites=sites,
        vectors=found / norms[..., None].clamp_min(1e-12),
        norms=norms,
        estimator=f"{directions.estimator}+refined",
        split_half=None,
        provenance=replace(
            directions.provenance,
            parameters=parameters,
            inputs={"start": directions.provenance.fingerprint},
        ),
    )


def refine_circuit(
    model: LanguageModel,
    circuit: Circuit,
    corpora: Corpus | Sequence[Corpus],
    *,
    settings: RefineSettings = CIRCUIT,
    advance: Advance = lambda _n: None,
) -> Circuit:
    """Refine what is added to a circuit's units; units outside it stay untouched.

    Arguments and errors as `refine_directions`.
    """
    from affectlens.models.generation.listeners import refuse_listeners
    from affectlens.models.hooking.hooks import WritePoint

    refuse_listeners(model.hf, "Refinement")
    circuit.provenance.require_model(model.fingerprint, model.name)
    masks = circuit.masks()
    deltas = [
        d * m for d, m in zip((circuit.delta_neurons, circuit.delta_heads), masks, strict=True)
    ]
    scales = [_rms_per_layer(d, m) for d, m in zip(deltas, masks, strict=True)]
    device = model.device
    weights = {
        "down_proj_out": [part.W_down() for part in model.anatomy.blocks],
        "o_proj_out": [part.W_O().flatten(0, 1) for part in model.anatomy.blocks],
    }
    gates = [(m * s).to(device) for m, s in zip(masks, scales, strict=True)]
    used = [m.any(-1).any(0).nonzero()[:, 0].tolist() for m in masks]

    def additions(free: Sequence[Tensor]) -> Additions:
        made: dict[WritePoint, Tensor] = {}
        for (point, maps), values, gate, layers in zip(
            weights.items(), free, gates, used, strict=True
        ):
            for n in layers:
                made[WritePoint(n, point)] = (values[:, n] * gate[:, n]) @ maps[n]
        return made

    start = [d / s for d, s in zip(deltas, scales, strict=True)]
    free = _descend(model, corpora, circuit.emotions, start, additions, settings, advance)
    neurons, heads = (f * s * m for f, s, m in zip(free, scales, masks, strict=True))
    how = f"refined:{fingerprint(asdict(settings), _fingerprints(corpora))}"
    return circuit.with_delta(neurons, heads, how=how)


def _rms_per_layer(
    values: Float[Tensor, "emotion layer width"], mask: Bool[Tensor, "emotion layer width"]
) -> Float[Tensor, "1 layer 1"]:
    """RMS over emotions and chosen components: one step size then suits every layer."""
    count = mask.sum((0, 2), keepdim=True).clamp_min(1)
    return ((values * mask).square().sum((0, 2), keepdim=True) / count).sqrt().clamp_min(1e-6)


def _descend(
    model: LanguageModel,
    corpora: Corpus | Sequence[Corpus],
    emotions: Sequence[str],
    start: Sequence[Tensor],
    additions: Callable[[Sequence[Tensor]], Additions],
    settings: RefineSettings,
    advance: Advance,
) -> list[Tensor]:
    """Adam on the free parameters; returns them on the CPU, in float32."""
    pools = [_complete_groups(corpus, emotions) for corpus in _listed(corpora)]
    turn = itertools.cycle(pools)
    rng = random.Random(settings.seed)
    free = [
        (settings.start * s).to(model.device, torch.float32).requires_grad_(True) for s in start
    ]
    optimiser = torch.optim.Adam(free, lr=settings.learning_rate, betas=(0.9, 0.95))
    losses: list[float] = []
    with _frozen(model):
        for step in range(settings.steps):
            warm, done = min(1.0, (step + 1) / 3), step / settings.steps
            optimiser.param_groups[0]["lr"] = settings.learning_rate * warm * (1 - 0.8 * done)
            groups = [rng.choice(next(turn)) for _ in range(settings.groups_per_step)]
            loss = _loss(model, groups, emotions, additions(free), settings)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise ModelError(
                    f"Refining diverged at step {step}; lower learning_rate or start, or use "
                    "float32."
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            advance(1)
    logger.info("refined in %d steps: loss %.3f to %.3f", settings.steps, losses[0], losses[-1])
    return [f.detach().cpu() for f in free]


Group = tuple["Record", ...]


def _listed(corpora: Corpus | Sequence[Corpus]) -> list[Corpus]:
    from affectlens.datasets.schema import Corpus

    return [corpora] if isinstance(corpora, Corpus) else list(corpora)


def _fingerprints(corpora: Corpus | Sequence[Corpus]) -> list[str]:
    return [corpus.fingerprint for corpus in _listed(corpora)]


def _complete_groups(corpus: Corpus, emotions: Sequence[str]) -> list[Group]:
    """Groups with a reply in every emotion, members in the order of the emotions.

    A group with several replies in an emotion gives as many groups as its richest emotion has
    replies; those of the others come round again.
    """
    found: defaultdict[GroupKey, defaultdict[str, list[Record]]]
    found = defaultdict(lambda: defaultdict(list))
    for record in corpus:
        if record.emotion in emotions and record.reply is not None:
            found[record.group_key][str(record.emotion)].append(record)
    groups: list[Group] = []
    for key, cell in found.items():
        if len(cell) < len(emotions):
            continue
        prompts = {record.messages[:-1] for records in cell.values() for record in records}
        if len(prompts) > 1:
            raise DataError(
                f"Group {group_name(key)} of corpus {corpus.name} has different prompts, but "
                "refining compares replies to one; give each prompt a group of its own."
            )
        for i in range(max(len(records) for records in cell.values())):
            groups.append(tuple(cell[e][i % len(cell[e])] for e in emotions))
    if not groups:
        raise DataError(
            f"Corpus {corpus.name} has no group with a reply in every one of "
            f"{', '.join(emotions)}; nothing can be refined on it."
        )
    return groups


def _loss(
    model: LanguageModel,
    groups: Sequence[Group],
    emotions: Sequence[str],
    added: Additions,
    settings: RefineSettings,
) -> Float[Tensor, ""]:
    """Weighted negative log-likelihood of each emotion's reply while that emotion is steered.

    Steering acts from the last prompt token on, as in generation, so what lies before it is run
    once per group and shared by the emotions. Prompts of different lengths run together where the
    model bears the padding.

    Raises:
        ModelError: If the model computes something else in several calls with a cache.
    """
    from affectlens.models.chat.chats import encode
    from affectlens.models.generation.step import accepted
    from affectlens.models.hooking.hooks import writing

    rows = [encode(model.tokenizer, r.chat, add_generation_prompt=False) for g in groups for r in g]
    k = len(emotions)
    starts = [row.spans["reply"][0] for row in rows]
    replies = [
        row.ids[row.spans["reply"][0] : row.spans["reply"][1]][: settings.max_reply_tokens]
        for row in rows
    ]
    prompts = [rows[i].ids[: starts[i]] for i in range(0, len(rows), k)]
    alike: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        alike.setdefault(len(prompt), []).append(i)
    padding = model.padding.upto(max(map(len, prompts)) + max(map(len, replies)))
    if not padding.chunks:
        raise ModelError(
            f"{model.name} computes something else in several calls with a cache than in one, so "
            "its vectors cannot be refined; use those of the directions or the circuit."
        )
    if len(alike) > 1 and not padding.left:
        parts = [
            (
                _loss(model, [groups[i] for i in each], emotions, added, settings),
                sum(len(replies[i * k + j]) for i in each for j in range(k)),
            )
            for each in alike.values()
        ]
        return torch.stack([loss * n for loss, n in parts]).sum() / sum(n for _, n in parts)
    base = model.anatomy.base
    ids, mask = model.encode_batch(prompts, side="left")
    with torch.no_grad():
        cache = base(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            use_cache=True,
            **accepted(base, position_ids=model.position_ids(mask[:, :-1])),
        ).past_key_values
        cache.batch_repeat_interleave(k)
    tail, tail_mask = model.encode_batch(replies, side="right")
    full_mask = torch.cat([mask.repeat_interleave(k, 0), tail_mask], dim=1)
    inputs = torch.cat([ids[:, -1:].repeat_interleave(k, 0), tail], dim=1)
    positions = model.position_ids(full_mask)[:, ids.shape[1] - 1 :]
    which = torch.arange(k, device=ids.device).repeat(len(groups))

    def adder(vectors: Float[Tensor, "emotion d_model"]) -> Callable[[Tensor], Tensor]:
        chosen = vectors[which][:, None]
        return lambda hidden: hidden + chosen.to(hidden.dtype)

    with torch.enable_grad(), writing(model.anatomy, {w: adder(v) for w, v in added.items()}):
        hidden = base(
            input_ids=inputs,
            attention_mask=full_mask,
            past_key_values=cache,
            use_cache=True,
            **accepted(base, position_ids=positions),
        ).last_hidden_state
    keep = tail_mask.bool()
    logits = model.logits(hidden[:, :-1][keep]).float()
    return _weighted_nll(logits, tail, keep, settings)


def _weighted_nll(
    logits: Float[Tensor, "token vocab"],
    tail: Int[Tensor, "row pos"],
    keep: Bool[Tensor, "row pos"],
    settings: RefineSettings,
) -> Float[Tensor, ""]:
    when = torch.arange(tail.shape[1], device=tail.device, dtype=torch.float32)
    weight = (1 + settings.first_weight * torch.exp(-when / settings.tau)).expand(keep.shape)[keep]
    return (weight * F.cross_entropy(logits, tail[keep], reduction="none")).mean()


@contextmanager
def _frozen(model: LanguageModel) -> Generator[None, None, None]:
    """No gradients for weights, and the flags as they were afterwards."""
    flags: list[tuple[Any, bool]] = [(p, p.requires_grad) for p in model.hf.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
