"""The corpus that shows how a model itself expresses each emotion.

What makes steered text fluent is a direction measured on the model's own fluent emotional text. So
an unsteered model is made to go on from an explicit opener ("I'm furious about this.") in answer to
neutral scenario-events, and those replies are pooled with the authored texts of the same tones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.core import EMOTIONS, TONES, group_name
from affectlens.datasets import Corpus, Message, Record, load, spread
from affectlens.datasets.authored import openers
from affectlens.pipeline.settings import ExpressSettings

if TYPE_CHECKING:
    from affectlens.models import LanguageModel


def express(
    model: LanguageModel,
    settings: ExpressSettings | None = None,
    *,
    advance: Callable[[int], object] = lambda _n: None,
) -> Corpus:
    """The model's own continuations of openers, and the authored texts as replies.

    Only records whose role is ``direction`` are used, so that no judge has seen their groups.

    Args:
        model: Continues the openers, unsteered.
        settings: Emotions, number of events (spread over scenarios and valences), generation;
            default: `ExpressSettings()`.
        advance: Told how many continuations are done.
    """
    settings = settings or ExpressSettings()
    own = own_replies(model, settings, load("events"), openers(), advance=advance)
    authored = tones_as_replies(None, settings.emotions)
    return pooled(own, authored)


def pooled(own: Corpus | None, texts: Corpus) -> Corpus:
    """What a model wrote itself, if it did, and texts in groups with every emotion, as one.

    Args:
        own: Of `own_replies`.
        texts: Replies in groups whose names begin with ``tones:``.
    """
    records = texts.records if own is None else (*own.records, *texts.records)
    labels = texts.label_set if own is None else own.label_set
    return Corpus(
        "expression",
        "replies",
        records,
        {"source": "continuations of openers by the model itself, and the corpus tones"},
        labels,
    )


def own_replies(
    model: LanguageModel,
    settings: ExpressSettings,
    events: Corpus,
    by_emotion: Mapping[str, Sequence[str]],
    *,
    advance: Callable[[int], object] = lambda _n: None,
) -> Corpus:
    """One reply per scenario-event and emotion: an opener and how the model goes on from it.

    Args:
        model: Continues the openers, unsteered.
        settings: See `express`.
        events: Prompts; those of the role ``direction`` are answered.
        by_emotion: Openers of every emotion.
        advance: Told how many continuations are done.
    """
    from affectlens.models.generation.generation import generate_ids

    prompts_of = spread(events.filter(role="direction"), settings.n_events)
    planned: list[tuple[Record, str, str]] = []
    for i, event in enumerate(prompts_of):
        for emotion in settings.emotions:
            choices = by_emotion[emotion]
            planned.append((event, emotion, choices[i % len(choices)]))
    prompts = [
        (
            *model.encode_chat(event.chat, add_generation_prompt=True).ids,
            *model.tokenizer(opener, add_special_tokens=False)["input_ids"],  # type: ignore[misc]
        )
        for event, _, opener in planned
    ]
    continued = generate_ids(model, prompts, settings.generation, on_progress=advance)
    records: list[Record] = []
    for (event, emotion, opener), ids in zip(planned, continued, strict=True):
        text = opener + str(model.tokenizer.decode(list(ids), skip_special_tokens=True)).rstrip()
        records.append(
            replace(
                event,
                id=f"own:{group_name(event.group_key)}:{emotion}",
                group=f"own:{group_name(event.group_key)}",
                emotion=emotion,
                messages=(*event.messages, Message("assistant", text)),
                meta={**event.meta, "opener": opener},
            )
        )
    return Corpus("own_replies", "replies", tuple(records), {}, _labels(settings.emotions))


def _labels(emotions: Sequence[str]) -> tuple[str, ...]:
    """The label set: ours if they are ours, else just they."""
    return TONES if set(emotions) <= set(TONES) else tuple(emotions)


def tones_as_replies(tones: Corpus | None = None, emotions: Sequence[str] = EMOTIONS) -> Corpus:
    """The texts of the role ``direction`` as replies to the neutral text of their group.

    Args:
        tones: Default: the authored ones. Replies in groups stay as they are.
        emotions: Which.
    """
    corpus = (tones or load("tones")).filter(role="direction")
    if corpus.design == "replies":
        return corpus
    neutral = {record.group_key: record.text for record in corpus if record.emotion == "neutral"}
    records = tuple(
        replace(
            record,
            id=f"tones:{record.id}",
            group=f"tones:{record.group}",
            messages=(
                Message("user", neutral[record.group_key]),
                Message("assistant", record.text),
            ),
        )
        for record in corpus
        if record.emotion in emotions
    )
    return Corpus("tones_as_replies", "replies", records)


def openers_of(corpus: Corpus) -> tuple[str, ...]:
    """The openers that an expression corpus was continued from, each once."""
    return tuple(dict.fromkeys(r.meta["opener"] for r in corpus if "opener" in r.meta))
