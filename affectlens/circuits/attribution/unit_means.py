"""Means of neurons and heads per emotion and valence: all that contributions need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.unit_maps import head_map, stacked
from affectlens.core.errors import DataError
from affectlens.core.groups import Groups, group_key
from affectlens.core.places import Site

if TYPE_CHECKING:
    from affectlens.activations.store.store import ActivationStore
    from affectlens.models.anatomy.anatomy import Anatomy


@dataclass(frozen=True, eq=False)
class UnitMeans:
    """Mean activations at the inputs of ``W_down`` and ``W_O``, per emotion and valence.

    Contributions and emotion differences are linear in the activations, so these means are all
    that both need. Neurons of a mixture are times their gates, 0 for tokens that were sent
    elsewhere. Layers that have fewer than the widest are filled up with zeros, see
    :mod:`affectlens.circuits.attribution.unit_maps`.

    Attributes:
        emotions: Order of the first axis.
        valences: Order of the second axis; ``""`` where a corpus gives none.
        weights: Weight of each cell: its number of groups (of records if ungrouped).
        neurons: Input of ``W_down``.
        heads: Input of ``W_O``.
        gates: What the router gave each expert of a mixture.
        scaled_neurons, scaled_heads, scaled_gates: The same, every token times the scale of the
            norm after the sublayer, if there is one.
        scale: Mean of that scale, (attention, MLP) on the last axis; 1 where there is no norm.
        out: What the sublayers added to the residual, (attention, MLP) on the third axis.
        position: Where it was read.
        n_groups: Complete groups, or 0 if the records are not grouped.
        n_dropped: Records left out because their group lacks an emotion.
    """

    emotions: tuple[str, ...]
    valences: tuple[str, ...]
    weights: Float[Tensor, "emotion valence"]
    neurons: Float[Tensor, "emotion valence layer d_mlp"]
    heads: Float[Tensor, "emotion valence layer width"]
    gates: Float[Tensor, "emotion valence layer expert"]
    scaled_neurons: Float[Tensor, "emotion valence layer d_mlp"]
    scaled_heads: Float[Tensor, "emotion valence layer width"]
    scaled_gates: Float[Tensor, "emotion valence layer expert"]
    scale: Float[Tensor, "emotion valence layer 2"]
    out: Float[Tensor, "emotion valence layer 2 d_model"]
    position: str
    n_groups: int
    n_dropped: int

    def mean(self, name: str, valence: str | None = None) -> Float[Tensor, "emotion ..."]:
        """One of the tensors for one valence, or averaged over all by weight.

        Raises:
            DataError: If an emotion has no records (of that valence).
        """
        values: Tensor = getattr(self, name)
        if valence is not None:
            index = self.valences.index(valence)
            weights, values = self.weights[:, index : index + 1], values[:, index : index + 1]
        else:
            weights = self.weights
        total = weights.sum(1)
        if not bool((total > 0).all()):
            missing = self.emotions[int(torch.argmin(total))]
            raise DataError(f"There are no records for {missing} {valence or ''}".strip() + ".")
        share = weights / total[:, None]
        return (values * share.reshape(*share.shape, *[1] * (values.ndim - 2))).sum(1)


def cell_weights(
    emotion: Sequence[str | None],
    group: Sequence[str],
    valence: Sequence[str | None],
    emotions: Sequence[str],
    *,
    grouped: bool | None = None,
) -> tuple[Float[Tensor, " row"], int]:
    """Which rows count, and with what weight.

    A group is a scenario under one valence seen under every emotion; several rows of one emotion
    in a group share its weight.

    Args:
        emotion, group, valence: Labels, one per row.
        emotions: What a complete group must have.
        grouped: Use complete groups only (True), all rows alike (False), or whichever the labels
            allow (None).

    Returns:
        Weight of each row (0: left out), and the number of complete groups (0 if ungrouped).

    Raises:
        DataError: If an emotion has no rows, or there is no complete group where one is wanted.
    """
    for name in emotions:
        if name not in emotion:
            raise DataError(f"The corpus has no records for {name}; give it some or drop it.")
    keys = [group_key(*pair) for pair in zip(group, valence, strict=True)]
    complete = Groups.find(emotion, keys, emotions).complete()
    if grouped is None:
        grouped = bool(complete.cells)
    if not grouped:
        return torch.tensor([float(name in emotions) for name in emotion]), 0
    if not complete.cells:
        raise DataError(
            f"No group has all of {', '.join(emotions)}; use a corpus that shows the same content "
            "under every emotion, or grouped=False."
        )
    return torch.tensor(complete.shares(len(emotion))), len(complete)


def difference(
    mean: Float[Tensor, "emotion layer width"],
) -> Float[Tensor, "emotion layer width"]:
    """``Δμ[e] = mean_g(x[g,e] - mean_e' x[g,e'])``, not normalised, from means per emotion.

    Over complete groups the mean of differences is the difference of means.

    Source: arXiv 2510.11328 §5, script 05 (whose group key lacks the valence).
    """
    return mean - mean.mean(0, keepdim=True)


def store_means(
    store: ActivationStore,
    emotions: Sequence[str],
    anatomy: Anatomy,
    *,
    position: str | None = None,
    grouped: bool | None = None,
) -> tuple[Float[Tensor, "emotion layer d_mlp"], Float[Tensor, "emotion layer width"]]:
    """Means of neurons and heads from rows captured before, for `difference`.

    Args:
        store: With ``mlp_post`` and ``z`` of all layers that have them.
        emotions: Which emotions, and their order.
        anatomy: Of the model.
        position: Where they were read, if the store has several.
        grouped: See `cell_weights`.

    Raises:
        DataError, UnknownNameError: If sites, position or emotions are missing.
    """
    position = store.default_position(position)
    labels = (store.column(name, position) for name in ("emotion", "group", "valence"))
    emotion, group, valence = labels
    weights, _ = cell_weights(emotion, group, valence, emotions, grouped=grouped)
    rows = torch.stack([weights * torch.tensor([e == name for e in emotion]) for name in emotions])
    rows = rows / rows.sum(1, keepdim=True)
    none = torch.zeros(len(emotions), 0)
    neurons, heads = list[Tensor](), list[Tensor]()
    for part in anatomy.blocks:
        spread = head_map(part, anatomy.n_heads, anatomy.d_head)
        z, mlp_post = Site(part.layer, "z"), Site(part.layer, "mlp_post")
        heads.append(none if spread is None else spread.spread(rows @ store.to_torch(z, position)))
        neurons.append(rows @ store.to_torch(mlp_post, position) if part.n_neurons else none)
    return stacked(neurons), stacked(heads)
