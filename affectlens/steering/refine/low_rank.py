"""Training low-rank maps by likelihood (LoReFT: Wu et al., arXiv 2404.03592).

``h + Rᵀ (W h + b − R h)`` for each emotion at each steered block, the rows of ``R`` orthonormal.
Free are ``R`` (as the orthonormal rows that Gram and Schmidt make of free ones, in their order),
``b``, and ``W − R``, which begins at zero: so the map begins as the addition that directions are,
and learns to read from there. What it reads are components of the hidden state from their mean on,
in units of their RMS, since a few of them are a hundred times as large as the others; that is
multiplied out at the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, Site, WritePoint
from affectlens.steering.building import pack_provenance
from affectlens.steering.low_rank import LOW_RANK, LowRank
from affectlens.steering.refine.descent import Advance, descend, rms_per_layer
from affectlens.steering.refine.log_probabilities import mapped, reply_log_probabilities
from affectlens.steering.refine.objectives.likelihood import unlikelihood
from affectlens.steering.refine.replies import Group, complete_groups, fingerprints, listed
from affectlens.steering.refine.settings import RESIDUAL, RefineSettings

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack

_SEEN = 4
"""Groups of each corpus by whose replies hidden states are measured."""
_READ = 0.3
"""How fast maps learn to read, beside what they add whatever they read."""


def refine_low_rank(
    model: LanguageModel,
    directions: Directions,
    corpora: Corpus | Sequence[Corpus],
    *,
    layers: Sequence[int],
    rank: int = 4,
    settings: RefineSettings = RESIDUAL,
    advance: Advance = lambda _n: None,
) -> SteeringPack:
    """Train a map of each emotion at a few blocks together.

    Args:
        model: The model, weights untouched.
        directions: At ``resid_post`` of all ``layers``, where maps begin.
        corpora: Replies in groups that have every emotion, as for `refine_directions`.
        layers: Blocks whose output is changed.
        rank: Rows of each map.
        settings: Of the descent; its objective must be likelihood.
        advance: Told about every step.

    Returns:
        A pack with the mode ``low_rank``, strength 1 for the maps as they were trained.

    Raises:
        DataError: If no group has every emotion, the rank is none the model can have, or another
            objective is asked for.
        ModelError: If the loss is not finite.
    """
    from affectlens.models.generation.listeners import refuse_listeners
    from affectlens.steering.pack import SteeringPack

    refuse_listeners(model.hf, "Refinement")
    directions.provenance.require_model(model.fingerprint, model.name)
    if not 1 <= rank <= model.d_model:
        raise DataError(f"The rank of a map must be 1 to {model.d_model}, not {rank!r}.")
    if settings.objective != "likelihood":
        raise DataError(
            f"Maps are trained by likelihood; the objective {settings.objective} compares what is "
            "added and taken out, and a map cannot be taken out."
        )
    index = [directions.site_index(Site(layer, "resid_post")) for layer in layers]
    start = directions.centroid()[index].transpose(0, 1).contiguous()  # [emotion, layer, d]
    scale = rms_per_layer(start, torch.ones_like(start, dtype=torch.bool))
    seen = _hidden_states(model, directions.emotions, corpora, layers, settings)
    parts = _Parts(scale.to(model.device), *(x.to(model.device) for x in seen))

    def lowered(
        groups: Sequence[Group], free: Sequence[Tensor], _rng: random.Random
    ) -> Float[Tensor, ""]:
        made = parts.of(free)
        changes = {
            WritePoint(n, "resid_post"): mapped(*(x[:, i] for x in made))
            for i, n in enumerate(layers)
        }
        return unlikelihood(model, groups, changes, settings)

    begin = _begin(start / scale, rank, settings)
    free = descend(model, corpora, directions.emotions, begin, lowered, settings, advance)
    constants, reads, writes = parts.to("cpu").of(free)
    name, emotions = f"{LOW_RANK}.resid_post", tuple(directions.emotions)
    return SteeringPack(
        emotions=emotions,
        vectors={name: constants},
        low_rank={name: LowRank(reads, writes)},
        layers={name: tuple(layers)},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={LOW_RANK: dict.fromkeys(emotions, 1.0)},
        positions={LOW_RANK: "last_prompt+generated"},
        provenance=pack_provenance(
            model,
            directions.provenance,
            refined=asdict(settings),
            refined_on=fingerprints(corpora),
            low_rank={"rank": rank, "layers": list(layers)},
        ),
    )


class _Parts:
    """What free parameters mean.

    Args:
        scale: RMS of a component of the starting vectors.
        mean: Of each component of the hidden states.
        rms: The same.
    """

    def __init__(
        self,
        scale: Float[Tensor, "1 layer 1"],
        mean: Float[Tensor, "layer d"],
        rms: Float[Tensor, "layer d"],
    ) -> None:
        self.scale, self.mean, self.rms = scale, mean, rms

    def to(self, device: str) -> _Parts:
        """The same on another device."""
        return _Parts(*(x.to(device) for x in (self.scale, self.mean, self.rms)))

    def of(
        self, free: Sequence[Tensor]
    ) -> tuple[
        Float[Tensor, "emotion layer d"],
        Float[Tensor, "emotion layer rank d"],
        Float[Tensor, "emotion layer rank d"],
    ]:
        """Constants, reads and writes of free rows, biases and slopes."""
        rows, bias, slopes = free
        writes = orthonormal(rows)
        reads = slopes * _READ * self.scale[..., None] / self.rms[:, None]
        shift = bias * self.scale * rows.shape[-1] ** 0.5
        shift = shift - torch.einsum("elrd,ld->elr", reads, self.mean)
        return torch.einsum("elr,elrd->eld", shift, writes), reads, writes


def orthonormal(rows: Float[Tensor, "*place rank d"]) -> Float[Tensor, "*place rank d"]:
    """Gram and Schmidt: the first row keeps its direction, each later one what is left of its."""
    q, r = torch.linalg.qr(rows.transpose(-1, -2))
    # Without the signs a small step of the rows could turn one of them round.
    signs = r.diagonal(dim1=-2, dim2=-1).sign()
    return (q * signs[..., None, :]).transpose(-1, -2)


def _begin(
    start: Float[Tensor, "emotion layer d"], rank: int, settings: RefineSettings
) -> list[Tensor]:
    """Free parameters that make the map add the starting vector and read nothing."""
    emotions, layers, width = start.shape
    generator = torch.Generator().manual_seed(settings.seed)
    others = torch.randn(emotions, layers, rank - 1, width, generator=generator)
    bias = torch.zeros(emotions, layers, rank)
    bias[..., 0] = start.norm(dim=-1) / width**0.5
    rows = torch.cat([start[:, :, None], others], 2)
    return [rows, bias, torch.zeros_like(rows)]


def _hidden_states(
    model: LanguageModel,
    emotions: Sequence[str],
    corpora: Corpus | Sequence[Corpus],
    layers: Sequence[int],
    settings: RefineSettings,
) -> tuple[Float[Tensor, "layer d"], Float[Tensor, "layer d"]]:
    """Mean and RMS of each component over tokens that will be steered."""
    sums = torch.zeros(2, len(layers), model.d_model, dtype=torch.float64)
    count = 0

    def watch(i: int) -> Callable[[Tensor, Tensor], Tensor]:
        def change(hidden: Tensor, _member: Tensor) -> Tensor:
            nonlocal count
            rows = hidden.detach().flatten(0, 1).double().cpu()
            sums[0, i] += rows.sum(0)
            sums[1, i] += rows.square().sum(0)
            count += len(rows) if i == 0 else 0
            return hidden

        return change

    changes = {WritePoint(n, "resid_post"): watch(i) for i, n in enumerate(layers)}
    with torch.no_grad():
        for corpus in listed(corpora):
            for group in complete_groups(corpus, emotions)[:_SEEN]:
                for record in group:  # one row at a time has no padding
                    reply_log_probabilities(model, [(record,)], changes, settings.max_reply_tokens)
    mean, squares = (sums / count).float()
    return mean, squares.sqrt().clamp_min(1e-6)
