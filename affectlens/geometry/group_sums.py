"""Adding up the rows of groups: what each text counts in every sum, and the sink that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from affectlens.activations.forward.tokenised import Ints
from affectlens.activations.streaming.accumulators import ClassMoments, Members
from affectlens.activations.streaming.sum_sinks import Key, RowIndex, SumSink
from affectlens.geometry.displacements import leading
from affectlens.geometry.estimators import Sums
from affectlens.geometry.grouping import Grouping


@dataclass(frozen=True, eq=False)
class GroupWeights:
    """How much each text counts in each sum.

    Attributes:
        draw: How often each group counts, int16.
        group: Group of each text.
        tone: Emotion of each text, E for the neutral one of its group, -1 for texts that are
            left out.
        n_tones: E, or E + 1 if every group has a neutral text.
        count: Weighted number of texts of each emotion.
    """

    draw: Int[Tensor, "resample group"]
    group: Ints
    tone: Ints
    n_tones: int
    count: Float[Tensor, "resample emotion"]

    @classmethod
    def of(
        cls, found: Grouping, n_texts: int, n_emotions: int, draw: Float[Tensor, "resample group"]
    ) -> GroupWeights:
        """Of texts in groups.

        Args:
            found: The groups; its rows are texts.
            n_texts: How many texts there are.
            n_emotions: How many emotions.
            draw: How often each group counts in each resampling.
        """
        group, tone = np.zeros(n_texts, np.int64), np.full(n_texts, -1)
        group[found.rows.numpy()], tone[found.rows.numpy()] = found.group, found.emotion
        n_tones = n_emotions
        if found.neutral is not None:
            group[found.neutral.numpy()] = np.arange(len(found.neutral))
            tone[found.neutral.numpy()] = n_emotions
            n_tones += 1
        member = one_hot(found.emotion, n_emotions).double()
        per_group = torch.zeros(len(found.keys), n_emotions, dtype=torch.float64)
        per_group.index_add_(0, found.group, member)
        count = draw.double() @ per_group
        return cls(draw.to(torch.int16), group, tone, n_tones, count)

    def __call__(self, texts: Ints) -> Float[Tensor, "resample_tone n"]:
        """Weights of some texts in the sum of each tone in each resampling."""
        tone = torch.from_numpy(self.tone[texts])
        own = (tone == torch.arange(self.n_tones)[:, None]).double()
        drawn = self.draw[:, torch.from_numpy(self.group[texts])].double()
        return (drawn[:, None] * own).flatten(0, 1)

    def sums(self, total: Float[Tensor, "resample_tone d"]) -> Sums:
        """What was summed up with these weights, by tone."""
        n = self.count.shape[1]
        tones = total.cpu().unflatten(0, (len(self.draw), self.n_tones))
        return Sums(
            total=tones[:, :n],
            neutral=tones[:, n] if self.n_tones > n else None,
            count=self.count,
            groups=self.draw.double().sum(1),
        )


class GroupSink(SumSink):
    """Weighted sums, and the covariance of neutral rows.

    Args:
        index: Of the position.
        weights: Of the texts.
        neutral: Whether each text is neutral; None if their covariance is not needed.
    """

    def __init__(
        self,
        index: Mapping[str, RowIndex],
        weights: GroupWeights,
        neutral: np.ndarray[Any, np.dtype[np.bool_]] | None,
    ) -> None:
        super().__init__(index, weights)
        self._neutral = neutral
        self.spread: dict[Key, ClassMoments] = {}

    def take(self, key: Key, start: int, x: Tensor, mean_square: Tensor) -> None:
        """See `RowSink.take`."""
        super().take(key, start, x, mean_square)
        if self._neutral is None:
            return
        texts, _ = self.index[key[1]].of_rows(start, len(x))
        chosen = torch.from_numpy(np.flatnonzero(self._neutral[texts])).to(x.device)
        if key not in self.spread:
            self.spread[key] = ClassMoments(1, x.shape[1], x.device, "within")
        if len(chosen):
            who = Members.of(np.zeros(len(chosen), np.int64), x.device)
            self.spread[key].add(x[chosen], mean_square[chosen], who)

    def basis(self, key: Key) -> Float[Tensor, "d k"]:
        """The leading principal axes of the neutral rows; see `neutral_basis`."""
        scatter = self.spread[key].scatter
        assert scatter is not None
        variance, axes = torch.linalg.eigh(scatter.cpu())
        return leading(variance.flip(0).clamp_min(0), axes.flip(1))
