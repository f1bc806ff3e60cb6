"""How scores of units are spread, and what the highest of them do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits.allocation import highest
from affectlens.circuits.overlap import Overlap, overlap
from affectlens.circuits.units import choose, there_only


def half_mass(
    scores: Float[Tensor, "emotion layer unit"], sizes: Int[Tensor, " layer"]
) -> list[int]:
    """How few of the highest scores hold half of all positive score, per emotion."""
    found: list[int] = []
    for each in there_only(scores, sizes):
        positive = each[each > 0].sort(descending=True).values.double()
        if not len(positive):
            found.append(0)
            continue
        reached = positive.cumsum(0) >= positive.sum() / 2
        found.append(int(reached.nonzero()[0]) + 1)
    return found


def negative_share(
    scores: Float[Tensor, "emotion layer unit"], sizes: Int[Tensor, " layer"]
) -> Float[Tensor, " emotion"]:
    """Share of units that write against the direction."""
    there = there_only(scores, sizes).isfinite()
    return ((scores < 0) & there).sum((1, 2)) / there.sum((1, 2))


def top_overlap(
    scores: Float[Tensor, "emotion layer unit"],
    sizes: Int[Tensor, " layer"],
    count: int,
    emotions: Sequence[str],
) -> Overlap:
    """Overlap between the emotions' highest units of the whole model, with its null."""
    ranking = there_only(scores, sizes)
    units = choose(ranking, highest(ranking, count), emotions)
    sets = {e: [(u.layer, u.index) for u in found] for e, found in units.items()}
    return overlap(sets, sizes=sizes.tolist())


@dataclass(frozen=True)
class Curves:
    """What units add within their layers, mean over emotions and layers, by how many.

    Attributes:
        counts: How many units of a layer.
        top: The highest by the ranking.
        low: As many from the middle of the ranking on.
        random: As many at random, mean over draws.
        random_sd: Standard deviation over the draws.
    """

    counts: tuple[int, ...]
    top: Float[Tensor, " count"]
    low: Float[Tensor, " count"]
    random: Float[Tensor, " count"]
    random_sd: Float[Tensor, " count"]

    def share(self, count: int) -> float:
        """What so many of the highest add, relative to the most that any count adds."""
        return float(self.top[self.counts.index(count)] / self.top.max().clamp_min(1e-12))


def curves(
    ranking: Float[Tensor, "emotion layer unit"],
    added: Float[Tensor, "emotion layer unit"],
    counts: Sequence[int],
    *,
    draws: int,
    seed: int,
) -> Curves:
    """Sums over ranked units of what each adds to the projection in its own layer.

    Units of one layer add up: taking the k highest out lowers the projection of that layer's
    residual by the sum of what they add, and adding a difference to them raises it by the sum of
    what that adds. So one table of what units add gives every curve exactly.

    Args:
        ranking: Scores that rank units.
        added: What each adds, measured on other texts.
        counts: How many units; those beyond the layer's size are left out.
        draws: Random orders of units, of each emotion and layer.
        seed: Of the draws.
    """
    n = ranking.shape[-1]
    kept = tuple(count for count in counts if count <= n)
    index = torch.tensor(kept) - 1

    def summed(order: Int[Tensor, "emotion layer unit"]) -> Float[Tensor, " count"]:
        return added.gather(-1, order).double().cumsum(-1)[..., index].mean((0, 1)).float()

    order = ranking.sort(dim=-1, descending=True, stable=True).indices
    generator = torch.Generator().manual_seed(seed)
    chance = torch.stack(
        [summed(torch.rand(ranking.shape, generator=generator).argsort(-1)) for _ in range(draws)]
    )
    return Curves(
        kept,
        summed(order),
        summed(order.roll(-(n // 2), dims=-1)),
        chance.mean(0),
        chance.std(0),
    )
