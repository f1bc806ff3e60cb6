"""Finding a circuit: contributions, influence, budget, units and emotion differences."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from affectlens.activations.positions import Position
from affectlens.activations.settings import MAX_TOKENS_PER_BATCH
from affectlens.circuits.allocation import Budget, allocate
from affectlens.circuits.attribution.contributions import contributions
from affectlens.circuits.attribution.unit_means import difference, store_means
from affectlens.circuits.circuit import Circuit
from affectlens.circuits.influence import TARGET_WORDS, influence
from affectlens.circuits.texts_seen import with_texts
from affectlens.circuits.units import choose, routed_sizes, there_only, unit_sizes
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.emotions import own_emotions
from affectlens.core.errors import DataError
from affectlens.core.settings import from_options, identity, indifferent
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.activations.store.store import ActivationStore
    from affectlens.circuits.attribution.contributions import Contributions
    from affectlens.circuits.influence import InfluenceProfile
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CircuitSearchSettings:
    """How a circuit is looked for.

    Attributes:
        budget: How many units, and how they may be spread.
        score: ``"mean"`` (published) or ``"contrast"``; see `contributions`. Contributions made
            before have theirs.
        reference: Which influence splits the budget: ``"late"``, ``"middle"`` or ``"logit"``.
        split: Records to use; None takes all of them. The corpus that is left tells results apart.
        prompts: Token ids of neutral prompts; default: `neutral_prompts`. The influence says what
            it was made with, words included.
        words: Per emotion the words of the logit reference; default: `TARGET_WORDS`.
        max_tokens_per_batch: Padded tokens per forward pass.
    """

    budget: Budget = field(default_factory=Budget)
    score: str = "mean"
    reference: str = "late"
    split: str | None = indifferent("fit")
    prompts: Sequence[Sequence[int]] | None = indifferent(None)
    words: Mapping[str, Sequence[str]] | None = indifferent(None)
    max_tokens_per_batch: int = indifferent(MAX_TOKENS_PER_BATCH)


class CircuitSearchOptions(TypedDict, total=False):
    """Keywords for `CircuitSearchSettings`, which says what each does."""

    budget: Budget
    score: str
    reference: str
    split: str | None
    prompts: Sequence[Sequence[int]] | None
    words: Mapping[str, Sequence[str]] | None
    max_tokens_per_batch: int


def find_circuit(
    model: LanguageModel,
    corpus: Corpus,
    directions: Directions | None = None,
    *,
    position: str | None = None,
    delta_from: ActivationStore | None = None,
    scored: Contributions | None = None,
    profile: InfluenceProfile | None = None,
    **options: Unpack[CircuitSearchOptions],
) -> Circuit:
    """Find the neurons and heads that write each emotion, and what to add to them.

    One pass over the corpus scores all units and gives the emotion differences; a replayed token
    per neutral prompt gives the influence that splits the budget over sublayers; within a sublayer
    the units with the highest contribution are taken.

    Args:
        model: The model.
        corpus: Emotion-controlled records (groups that show one content under every emotion).
        directions: At ``resid_post`` of all layers; ``resid_mid`` is used if there. Default:
            group-centred ones of the same records (`circuit_directions`), by one pass more.
        position: Where to read; default: the design's (last prompt token, or mean of the reply).
        delta_from: Rows of ``mlp_post`` and ``z`` to take the differences from instead, with a
            position of their own.
        scored: Contributions made before, with the same model, corpus and directions.
        profile: Influence made before, likewise.
        **options: The fields of `CircuitSearchSettings`: ``budget``, ``score``, ``reference``,
            ``split``, ``prompts``, ``words``, ``max_tokens_per_batch``.

    Raises:
        DataError: If records, groups, layers or emotions are missing.
        UnknownNameError: If a position, score, reference or option does not exist.
        MismatchError: If directions or rows were made for another model.

    Source: arXiv 2510.11328 §5-6.
    """
    settings = from_options(CircuitSearchSettings, options, "find_circuit")
    refuse_listeners(model.hf, "A circuit")
    if directions is not None:
        directions.provenance.require_model(model.fingerprint, model.name)
    if settings.split is not None:
        corpus = corpus.filter(split=settings.split)
    if directions is None:
        directions = circuit_directions(model, corpus, position=position)
    inputs = {"directions": directions.provenance.fingerprint}
    if scored is None:
        scored = contributions(
            model,
            corpus,
            directions,
            position=position,
            score=settings.score,
            max_tokens_per_batch=settings.max_tokens_per_batch,
        )
    else:
        inputs["contributions"] = scored.fingerprint
    if scored.means.n_dropped:
        logger.warning(
            "%d records are in groups that lack an emotion and were left out.",
            scored.means.n_dropped,
        )
    if profile is None:
        prompts = neutral_prompts(model) if settings.prompts is None else settings.prompts
        words = TARGET_WORDS if settings.words is None else settings.words
        profile = influence(model, prompts, directions, words=words, used=settings.reference)
    else:
        profile = replace(profile, used=settings.reference)
        inputs["influence"] = fingerprint(profile.chosen.numpy().tobytes())
    if profile.emotions != scored.emotions:
        raise DataError("Influence and contributions are of different emotions; make both anew.")
    anatomy = model.anatomy
    sizes = unit_sizes(anatomy)
    counts = allocate(profile.chosen, settings.budget, sizes)
    rankings = [
        there_only(x, n) for x, n in zip((scored.heads, scored.neurons), sizes.T, strict=True)
    ]
    if delta_from is None:
        neurons, heads = scored.means.mean("neurons"), scored.means.mean("heads")
        source = "group_mean" if scored.means.n_groups else "class_mean"
    else:
        delta_from.provenance.require_model(model.fingerprint, model.name)
        neurons, heads = store_means(delta_from, scored.emotions, anatomy)
        source, inputs["delta_from"] = "stored", delta_from.fingerprint
    where = Position.parse(scored.means.position)
    parameters: Mapping[str, Any] = {
        **identity(settings),
        "position": scored.means.position,
        **({"sinks": model.sinks.facts()} if where.spares_sinks else {}),
        "score": scored.score,
        "influence": dict(profile.made_by),
        "attn_site": scored.attn_site,
        "groups": scored.means.n_groups,
    }
    made = Circuit(
        emotions=scored.emotions,
        neurons=choose(rankings[1], counts[..., 1], scored.emotions),
        heads=choose(rankings[0], counts[..., 0], scored.emotions),
        neuron_scores=scored.neurons,
        head_scores=scored.heads,
        delta_neurons=difference(neurons),
        delta_heads=difference(heads),
        allocation=counts,
        sizes=sizes,
        routed=routed_sizes(anatomy),
        influence=profile,
        delta_source=source,
        position=scored.means.position,
        provenance=Provenance(
            kind="circuit",
            model=model.fingerprint,
            model_name=model.name,
            corpus=corpus.fingerprint,
            parameters=parameters,
            inputs=inputs,
        ),
    )
    return with_texts(made, corpus)


def circuit_directions(
    model: LanguageModel, corpus: Corpus, *, position: str | None = None
) -> Directions:
    """Directions that a circuit can be found with: after every sublayer, nothing stored.

    Of the emotions that occur, the neutral tone apart.

    Args:
        model: The model.
        corpus: Emotion-controlled records, all of which are used.
        position: Where to read; default: the design's.

    Raises:
        DataError, UnknownNameError: As `affectlens.stream_directions`.
    """
    from affectlens.geometry.streaming import stream_directions

    emotions = own_emotions(corpus.labels())
    sites = "resid_mid,resid_post" if model.anatomy.has_resid_mid else "resid_post"
    return stream_directions(model, corpus, emotions=emotions, position=position, sites=sites)


def neutral_prompts(
    model: LanguageModel, count: int = 8, corpus: Corpus | None = None
) -> list[tuple[int, ...]]:
    """Scenario-events without an emotion, rendered as the model would get them.

    Args:
        model: The model.
        count: How many, spread evenly over the scenarios and over the three valences.
        corpus: Records whose last message is the user's; default: the fitting ``events``.
    """
    from affectlens.datasets import load

    corpus = corpus or load("events").filter(split="fit")
    by_valence: dict[str, list[Any]] = {}
    for record in corpus:
        by_valence.setdefault(record.valence or "", []).append(record)
    lists = list(by_valence.values())
    count = min(count, len(corpus))
    picked: list[Any] = []
    for k in range(count):
        records = lists[k % len(lists)]
        picked.append(records[k * len(records) // count])
    return [model.encode_chat(r.chat, add_generation_prompt=True).ids for r in picked]
