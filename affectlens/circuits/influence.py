"""Sublayer influence: how far a push at one sublayer's output carries to the end of the model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.last_token_replay import LastToken, in_float, last_token
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError, ModelError, unknown
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.linear_map import linear_map, shape_in_out

if TYPE_CHECKING:
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)

ALPHAS: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
"""Sizes of the push, in units of the residual's RMS at that sublayer."""

REFERENCES: tuple[str, ...] = ("late", "middle", "logit")
"""What the push is measured on; ``late`` is the published one, and partly circular."""

TARGET_WORDS: Mapping[str, tuple[str, ...]] = {
    "anger": ("angry", "anger", "furious"),
    "disgust": ("disgusting", "disgust", "gross"),
    "fear": ("afraid", "fear", "scared"),
    "happiness": ("happy", "joy", "glad"),
    "sadness": ("sad", "sadness", "sorry"),
    "surprise": ("surprised", "surprise", "wow"),
}
"""Words whose first tokens stand for an emotion in the logit reference."""


@dataclass(frozen=True, eq=False)
class InfluenceProfile:
    """Influence of every sublayer under three references.

    Attributes:
        emotions: Order of the first axis.
        values: Per reference ``[emotion, layer, 2]``, (attention, MLP) on the last axis: gain of
            the reference per unit of residual added. ``late`` and ``middle`` are projections of
            the last block's output on the sign-aligned mean direction of a band of layers; a
            sublayer inside or next to the band is favoured by construction. ``logit`` is the mean
            logit of the emotion's words against that of the other emotions' words.
        error: Standard error of each value over the prompts (0 for one prompt).
        sigma: RMS of the residual at each sublayer, mean over the prompts, ``[layer, 2]``.
        bands: First and last layer of the two bands.
        used: The reference that allocation uses.
        made_by: All that decided the values: fingerprints of model, directions and prompts, the
            sizes of the push, and the words whose tokens stand for each emotion.
    """

    emotions: tuple[str, ...]
    values: Mapping[str, Float[Tensor, "emotion layer 2"]]
    error: Mapping[str, Float[Tensor, "emotion layer 2"]]
    sigma: Float[Tensor, "layer 2"]
    bands: Mapping[str, tuple[int, int]]
    used: str = "late"
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> Float[Tensor, "emotion layer 2"]:
        """The values that allocation uses."""
        return self.values[self.used]

    def agreement(self) -> dict[str, float]:
        """Correlation of the other references with the one used, over sublayers, mean of emotions.

        Low values say that the profile depends on the reference, so on where one looked.
        """
        ours = self.chosen.flatten(1)
        result: dict[str, float] = {}
        for name, other in self.values.items():
            if name != self.used:
                rows = zip(ours, other.flatten(1), strict=True)
                each = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in rows]
                result[name] = float(torch.stack(each).nan_to_num().mean())
        return result

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts, for a file."""
        tensors = {f"influence.{name}": value for name, value in self.values.items()}
        tensors |= {f"influence_error.{name}": value for name, value in self.error.items()}
        tensors["influence_sigma"] = self.sigma
        bands = {name: list(layers) for name, layers in self.bands.items()}
        return tensors, {
            "emotions": list(self.emotions),
            "bands": bands,
            "used": self.used,
            "made_by": dict(self.made_by),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> InfluenceProfile:
        """Inverse of `to_tensors`."""
        return cls(
            emotions=tuple(facts["emotions"]),
            values={
                name: tensors[f"influence.{name}"]
                for name in REFERENCES
                if f"influence.{name}" in tensors
            },
            error={
                name: tensors[f"influence_error.{name}"]
                for name in REFERENCES
                if f"influence_error.{name}" in tensors
            },
            sigma=tensors["influence_sigma"],
            bands={str(k): (int(v[0]), int(v[1])) for k, v in facts["bands"].items()},
            used=str(facts["used"]),
            made_by=dict(facts["made_by"]),
        )


def band(n_layers: int, name: str) -> tuple[int, int]:
    """First and last layer of the ``late`` (L21-25 of 28, as published) or ``middle`` band."""
    low, high = {"late": (0.75, 0.90), "middle": (0.40, 0.55)}[name]
    first = min(math.floor(low * n_layers), n_layers - 1)
    return first, max(first, min(math.ceil(high * n_layers), n_layers) - 1)


def reference_direction(
    vectors: Float[Tensor, "emotion layer 2 d_model"], layers: tuple[int, int]
) -> Float[Tensor, "emotion d_model"]:
    """Unit mean of a band's directions, each turned to the side of the band's first one."""
    inside = vectors[:, layers[0] : layers[1] + 1].flatten(1, 2)
    signs = torch.sign((inside * inside[:, :1]).sum(-1, keepdim=True))
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    return torch.nn.functional.normalize((inside * signs).mean(1), dim=-1)


def target_tokens(
    tokenizer: Any, emotions: Sequence[str], words: Mapping[str, Sequence[str]] = TARGET_WORDS
) -> dict[str, tuple[int, ...]]:
    """First tokens of each emotion's words, with and without a space or a capital.

    A token that two emotions share tells neither, and is left out.

    Raises:
        DataError: If an emotion is left with no token; give it other words.
    """
    found: dict[str, set[int]] = {}
    for emotion in emotions:
        spellings = [
            space + cased
            for word in words.get(emotion, (emotion,))
            for cased in (word, word.capitalize())
            for space in ("", " ")
        ]
        ids = [tokenizer.encode(s, add_special_tokens=False) for s in spellings]
        # A first token shared with every other word (a lone space, say) is filtered below.
        found[emotion] = {i[0] for i in ids if i}
    tokens: dict[str, tuple[int, ...]] = {}
    for emotion in emotions:
        others = set[int]().union(*(found[o] for o in emotions if o != emotion))
        tokens[emotion] = tuple(sorted(found[emotion] - others))
        if not tokens[emotion]:
            raise DataError(f"No token tells {emotion} from the other emotions; give other words.")
    return tokens


@torch.no_grad()
def influence(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    directions: Directions,
    *,
    alphas: Sequence[float] = ALPHAS,
    words: Mapping[str, Sequence[str]] = TARGET_WORDS,
    used: str = "late",
    max_rows: int = 256,
) -> InfluenceProfile:
    """Push every sublayer's output along its own direction and see how far it carries.

    ``I[l,p] = (M(h + α σ[l,p] v[l,p]) - M(h)) / (α σ[l,p])`` at the last token, averaged over
    ``alphas`` and prompts; ``σ`` is the RMS of the residual there, in that prompt. The result is
    that of one full pass per push, at the price of replaying one token.

    Args:
        model: The model.
        prompts: Token ids of neutral prompts, generation prompt included.
        directions: Unit directions at ``resid_post`` of all layers (and ``resid_mid`` if there).
        alphas: Sizes of the push, in units of σ.
        words: Words for the logit reference.
        used: The reference that allocation shall use, one of :data:`REFERENCES`.
        max_rows: Rows per replayed block; bounds the memory of the copied cache.

    Raises:
        DataError: If there is no prompt, the directions do not cover the model, or the logit
            reference is used and no token tells an emotion from the others (where it is not used,
            it is left out then).
        UnknownNameError: If ``used`` is no reference.

    Source: arXiv 2510.11328 §6. Its code runs one pass per push, reads after the final norm and
        turns every direction to the side of the reference; here both ends are in the raw residual
        stream and directions keep their sign, because a circuit adds along it.
    """
    refuse_listeners(model.hf, "Influence")
    if used not in REFERENCES:
        raise unknown("reference", used, REFERENCES)
    if not prompts:
        raise DataError("Influence needs at least one neutral prompt.")
    if not alphas or min(alphas) <= 0:
        raise DataError("The sizes of the push (alphas) must be positive.")
    found = sublayer_directions(directions, model.anatomy)
    vectors = found.vectors.to(model.device)
    bands = {name: band(model.n_layers, name) for name in ("late", "middle")}
    references = {name: reference_direction(vectors, bands[name]) for name in bands}
    logit = _logit(model, found.emotions, words, wanted=used == "logit")

    measured = [name for name in REFERENCES if name != "logit" or logit is not None]
    singles: dict[str, list[Tensor]] = {name: [] for name in measured}
    sigmas: list[Tensor] = []
    with progress("influence", len(prompts)) as advance:
        for ids in prompts:
            token = last_token(model, ids)
            sigma = torch.stack([token.resid_mid, token.resid_post], dim=1).square().mean(-1).sqrt()
            sigmas.append(sigma)
            sizes = torch.tensor(list(alphas), device=sigma.device)[:, None, None] * sigma
            base, rows = push_all(token, vectors, sizes, max_rows)
            change = (rows - base) / sizes[..., None, None]
            for name, reference in references.items():
                singles[name].append(torch.einsum("alped,ed->elp", change, reference) / len(alphas))
            if logit is not None:
                normed, unpushed = (in_float(model.anatomy.final_norm, x) for x in (rows, base))
                moved = (normed - unpushed) / sizes[..., None, None]
                singles["logit"].append(torch.einsum("alped,ed->elp", moved, logit) / len(alphas))
            advance(1)

    stacked = {name: torch.stack(rows).cpu() for name, rows in singles.items()}
    n = len(prompts)
    return InfluenceProfile(
        emotions=found.emotions,
        values={name: x.mean(0) for name, x in stacked.items()},
        error={
            name: x.std(0) / math.sqrt(n) if n > 1 else torch.zeros_like(x[0])
            for name, x in stacked.items()
        },
        sigma=torch.stack(sigmas).mean(0).cpu(),
        bands=bands,
        used=used,
        made_by={
            "model": model.fingerprint,
            "directions": directions.provenance.fingerprint,
            "prompts": fingerprint([list(ids) for ids in prompts]),
            "alphas": list(alphas),
            "words": {e: list(words.get(e, (e,))) for e in found.emotions},
        },
    )


def _logit(
    model: LanguageModel,
    emotions: Sequence[str],
    words: Mapping[str, Sequence[str]],
    *,
    wanted: bool,
) -> Float[Tensor, "emotion d_model"] | None:
    """What reads the logits of the emotions' words; None where no token tells one from the others.

    That is often so with dozens of labels, and then only matters if the reference is wanted.
    """
    try:
        tokens = target_tokens(model.tokenizer, emotions, words)
    except DataError as error:
        if wanted:
            raise
        logger.info("No logit reference: %s", error)
        return None
    return logit_direction(model, [tokens[e] for e in emotions])


def push_all(
    token: LastToken,
    vectors: Float[Tensor, "emotion layer 2 d_model"],
    sizes: Float[Tensor, "alpha layer 2"],
    max_rows: int,
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, "alpha layer 2 emotion d_model"]]:
    """The last block's output without a push, and under every push.

    Args:
        token: The prompt.
        vectors: What is added to each sublayer's output, times
        sizes: how much of it.
        max_rows: Rows per replayed block.
    """
    n_emotions, n_layers, _, width = vectors.shape
    n_alphas = len(sizes)
    new = n_alphas * n_emotions
    rows = token.resid_pre[:1]  # the unedited token goes along, in the same precision
    for layer in range(n_layers):
        push = sizes[:, layer, :, None, None] * vectors[:, layer].transpose(0, 1)  # [a, 2, e, d]
        attn, mlp = push[:, 0].reshape(new, width), push[:, 1].reshape(new, width)
        edit = torch.cat([torch.zeros_like(rows), attn])
        rows = torch.cat([rows, rows[:1].expand(new, -1)])
        rows = token.run_block(layer, rows, edit, max_rows=max_rows)
        rows = torch.cat([rows, rows[:1] + mlp])
    ordered = rows[1:].reshape(n_layers, 2, n_alphas, n_emotions, width)
    return rows[0], ordered.permute(2, 0, 1, 3, 4)


def logit_direction(
    model: LanguageModel, tokens: Sequence[Sequence[int]]
) -> Float[Tensor, "emotion d_model"]:
    """What to project the normed final state on, to read each emotion's logit against the others'.

    Mean unembedding of its tokens minus that of the other emotions'. A cap on the logits (Gemma 2)
    is not applied.

    Raises:
        ModelError: If the model has no unembedding, or one of another width.
    """
    if model.anatomy.unembed is None:
        raise ModelError(f"{model.name} has no unembedding, so no logit can be read.")
    width, _ = shape_in_out(model.anatomy.unembed) or (0, 0)
    if width != model.d_model:
        raise ModelError(
            f"{model.name} maps its last state of {model.d_model} values to {width} "
            "before the unembedding, so no logit can be read off the residual stream; this variant "
            "of the architecture has no influence profile."
        )
    every = sorted({token for ids in tokens for token in ids})
    weight = linear_map(model.anatomy.unembed, only=every).to(model.device)  # [d_model, token]
    of = {token: i for i, token in enumerate(every)}
    means = torch.stack([weight[:, [of[token] for token in ids]].mean(1) for ids in tokens])
    n = len(tokens)
    return means - (means.sum(0) - means) / max(n - 1, 1)
