"""What takes the place of units' values: nothing, a mean, or values at tokens of other tones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.unit_maps import head_map
from affectlens.circuits.evidence.conditions import POINTS, Replacement
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import WritePoint
from affectlens.models.chat.chats import encode
from affectlens.models.hooking.hooks import writing

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel

BY: tuple[str, ...] = ("mean", "zero", "resample")
"""What takes the place of a unit's values in an ablation: its mean over all tones, nothing, or its
values at tokens of other tones."""


def mean(means: UnitMeans, emotion: str | None = None) -> Replacement:
    """The mean over all tones, or that of one.

    Raises:
        UnknownNameError: If the means lack the emotion.
    """
    if emotion is not None and emotion not in means.emotions:
        raise unknown("emotion of the means", emotion, means.emotions)
    rows = slice(None) if emotion is None else [means.emotions.index(emotion)]
    return Replacement({kind: means.mean(kind)[rows].mean(0)[None] for kind in POINTS})


def zero(means: UnitMeans) -> Replacement:
    """Nothing."""
    return Replacement({kind: torch.zeros_like(means.mean(kind)[:1]) for kind in POINTS})


@torch.inference_mode()
def tone_samples(
    model: LanguageModel, corpus: Corpus, emotions: Sequence[str], *, each: int = 32, seed: int = 0
) -> dict[str, dict[str, Float[Tensor, "sample layer width"]]]:
    """Values of all units at tokens of replies, drawn from the texts of each emotion.

    Args:
        model: The model, unchanged.
        corpus: Of replies.
        emotions: Each needs a text.
        each: Tokens of each emotion.
        seed: Of the draw.

    Returns:
        Emotion → kind of unit → values, all units of a sample at the same token.

    Raises:
        DataError: If an emotion has no reply.
    """
    generator = torch.Generator().manual_seed(seed)
    found = dict[str, dict[str, Tensor]]()
    for emotion in emotions:
        records = [r for r in corpus if r.emotion == emotion and r.reply]
        if not records:
            raise DataError(f"There is no reply in {emotion} to take values from; add some.")
        chosen = torch.randperm(len(records), generator=generator).tolist()
        texts, rest = min(len(records), max(1, each // 4)), each
        parts: dict[str, list[Tensor]] = {kind: [] for kind in POINTS}
        for n, index in enumerate(chosen[:texts]):
            messages = [{"role": m.role, "content": m.content} for m in records[index].messages]
            row = encode(
                model.tokenizer,
                messages,
                add_generation_prompt=False,
                variables=model.template_variables,
            )
            places = torch.arange(*row.spans["reply"])
            take = min(len(places), -(-rest // (texts - n)))
            at = places[torch.randperm(len(places), generator=generator)[:take]]
            rest -= take
            for kind, values in _values(model, list(row.ids), at).items():
                parts[kind].append(values)
        found[emotion] = {kind: torch.cat(values) for kind, values in parts.items()}
    return found


def of_tone(
    samples: Mapping[str, Mapping[str, Float[Tensor, "sample layer width"]]],
    emotion: str,
    seed: int = 0,
) -> Replacement:
    """The values at tokens of one tone.

    Raises:
        DataError: If there are none.
    """
    if emotion not in samples:
        raise DataError(f"There are no values at tokens of {emotion}; make samples that have it.")
    return Replacement(samples[emotion], seed)


def resample(
    samples: Mapping[str, Mapping[str, Float[Tensor, "sample layer width"]]],
    emotion: str,
    seed: int = 0,
) -> Replacement:
    """The values at tokens of all other emotions.

    Raises:
        DataError: If there is no other emotion.
    """
    rest = [values for name, values in samples.items() if name != emotion]
    if not rest:
        raise DataError("Resampling from another emotion needs values of two emotions or more.")
    return Replacement({kind: torch.cat([v[kind] for v in rest]) for kind in POINTS}, seed)


def _values(
    model: LanguageModel, ids: list[int], at: Tensor
) -> dict[str, Float[Tensor, "sample layer width"]]:
    seen: dict[tuple[str, int], Tensor] = {}
    anatomy = model.anatomy

    def note(place: tuple[str, int], value: Tensor) -> None:
        kind, layer = place
        rows = value[0, at].float().cpu()
        if kind == "heads":
            spread = head_map(anatomy.blocks[layer], anatomy.n_heads, anatomy.d_head)
            assert spread is not None
            rows = spread.spread(rows)
        seen[kind, layer] = rows

    places = {
        WritePoint(part.layer, point): lambda value, place=(kind, part.layer): note(place, value)
        for kind, point in POINTS.items()
        for part in anatomy.blocks
        if (part.n_heads if kind == "heads" else part.d_mlp)
    }
    with writing(anatomy, places):
        anatomy.base(input_ids=model.encode_batch([ids])[0])
    found = dict[str, Tensor]()
    for kind in POINTS:
        width = max(rows.shape[1] for (of, _), rows in seen.items() if of == kind)
        layers = list[Tensor]()
        for layer in range(model.n_layers):
            rows = seen.get((kind, layer), torch.zeros(len(at), 0))
            layers.append(torch.nn.functional.pad(rows, (0, width - rows.shape[1])))
        found[kind] = torch.stack(layers, dim=1)
    return found
