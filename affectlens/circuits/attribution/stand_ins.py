"""What takes the place of a unit's values: their mean over texts, nothing, or another run's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import unknown
from affectlens.core.places import WritePoint
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.hooks import Writer, writing

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.side_by_side import Runs
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel

UNIT_POINTS: Mapping[str, str] = {"heads": "o_proj_in", "neurons": "down_proj_in"}
"""Where units are changed; neurons of dense MLPs only."""

SUBLAYER_POINTS: tuple[str, str] = ("o_proj_out", "down_proj_out")
"""Where what attention and MLP write is changed, before a norm that may follow."""

EMBEDDING = WritePoint(0, "resid_pre")
"""Where the stream begins."""

BY: tuple[str, ...] = ("mean", "zero")

Values = Mapping[WritePoint, Float[Tensor, "#row #pos width"]]


@dataclass(frozen=True, eq=False)
class StandIns:
    """The mean over all emotions, or zero, of every place; the same in all texts.

    Attributes:
        values: ``[1, 1, width]`` each, where the model computes.
    """

    values: Values

    @classmethod
    @torch.no_grad()
    def of(cls, model: LanguageModel, means: UnitMeans, by: str = "mean") -> StandIns:
        """Of all heads, dense neurons and sublayers.

        A sublayer's mean is what its projection makes of its units' means; of a mixture, which has
        no one projection, what it added on average, where no norm follows.

        Raises:
            UnknownNameError: If ``by`` is none of :data:`BY`.
        """
        if by not in BY:
            raise unknown("replacement", by, BY)
        out = means.mean("out").mean(0)
        units = {kind: means.mean(kind).mean(0) for kind in UNIT_POINTS}
        found: dict[WritePoint, Tensor] = {}
        for part in model.anatomy.blocks:
            wide = _own_places(part, model)
            sizes = {"heads": part.n_heads * part.d_head, "neurons": part.d_mlp}
            for i, (kind, point) in enumerate(UNIT_POINTS.items()):
                projection = part.o_proj if kind == "heads" else part.down_proj
                there = WritePoint(part.layer, SUBLAYER_POINTS[i])
                if sizes[kind] and projection is not None:
                    own = units[kind][part.layer]
                    own = own[wide] if kind == "heads" else own[: sizes[kind]]
                    own = own.to(model.device, model.dtype)[None, None]
                    found[WritePoint(part.layer, point)] = own
                    found[there] = unwrap(projection).forward(own)
                elif kind == "neurons" and part.mlp_adds and part.mlp_post_norm is None:
                    mean = out[part.layer, 1] / part.mlp_scale
                    found[there] = mean.to(model.device, model.dtype)[None, None]
        if by == "zero":
            found = {at: torch.zeros_like(value) for at, value in found.items()}
        return cls({at: value.float() for at, value in found.items()})


@torch.no_grad()
def values_of_run(model: LanguageModel, runs: Runs) -> dict[WritePoint, Tensor]:
    """Values of every place, and of the embedding, in one copy of some rows; float32."""
    found: dict[WritePoint, Tensor] = {}

    def keep(point: WritePoint) -> Writer:
        def look(value: Tensor) -> None:
            found[point] = value.detach().float().clone()

        return look

    with writing(model.anatomy, {point: keep(point) for point in places(model)}):
        runs()
    return found


def places(model: LanguageModel) -> list[WritePoint]:
    """The embedding, and heads, neurons and outputs of all sublayers that there are."""
    found = [EMBEDDING]
    for part in model.anatomy.blocks:
        if part.n_heads:
            found.append(WritePoint(part.layer, "o_proj_in"))
        if part.attn_adds and (part.o_proj or part.attn) is not None:
            found.append(WritePoint(part.layer, "o_proj_out"))
        if part.d_mlp:
            found.append(WritePoint(part.layer, "down_proj_in"))
        if part.mlp_adds and (part.down_proj or part.mlp) is not None:
            found.append(WritePoint(part.layer, "down_proj_out"))
    return found


def _own_places(part: BlockParts, model: LanguageModel) -> Tensor:
    """Where a layer's own head channels lie among those of the widest; see `unit_maps`."""
    wide = model.anatomy.d_head
    heads = torch.arange(part.n_heads)[:, None] * wide
    return (heads + torch.arange(part.d_head)).flatten()
