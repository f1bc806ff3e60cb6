"""What the parts of a block add along a direction at the last token of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.postnorm import norm_gain, token_scale
from affectlens.circuits.attribution.unit_maps import DenseNeurons, Heads
from affectlens.core import Site, WritePoint
from affectlens.inspection.twin_pass import Said, twin_pass
from affectlens.models.hooking.hooks import Writer, writing

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts

Pair = tuple[float, float]


@dataclass(frozen=True, eq=False)
class StreamReadings:
    """Values of a twin pass at its last token, float32 on the CPU.

    Attributes:
        at: By site.
        before_norm: Outputs of projections that a norm follows, steering included.
        first: The stream before block 0.
        last: The stream after the deepest block.
    """

    at: Mapping[Site, Float[Tensor, "2 width"]]
    before_norm: Mapping[WritePoint, Float[Tensor, "2 d_model"]]
    first: Float[Tensor, "2 d_model"]
    last: Float[Tensor, "2 d_model"]

    @classmethod
    def of(cls, said: Said, deepest: int) -> StreamReadings:
        """Run a text and read all that its blocks up to one add."""
        parts = said.model.anatomy.blocks[: deepest + 1]
        first, last = Site(0, "resid_pre"), Site(deepest, "resid_post")
        sites = dict.fromkeys([first, last, *(site for part in parts for site in _sites(part))])
        found: dict[Site, Tensor] = {}
        before: dict[WritePoint, Tensor] = {}

        def read(site: Site, value: Tensor) -> None:
            found[site] = value[:, -1].float().cpu()

        def look(place: WritePoint) -> Writer:
            def seen(value: Tensor) -> None:
                before[place] = value[:, -1].float().cpu()

            return seen

        with ExitStack() as stack:
            # Opened before the steering, so that it runs after what steering writes there.
            looks = {place: look(place) for part in parts for place in _normed(part)}
            stack.enter_context(writing(said.model.anatomy, looks))
            twin_pass(said, tuple(sites), read)
        return cls(found, before, found[first], found[last])


@dataclass(frozen=True, eq=False)
class SublayerShares:
    """What a block's parts add along a direction, of both rows.

    Attributes:
        layer: Which block.
        heads, neurons: Of each; None where there are none.
        whole: Of sublayers that are not taken apart, by what they are called.
        biases: Of both projections.
    """

    layer: int
    heads: Float[Tensor, "2 n_heads"] | None
    neurons: Float[Tensor, "2 d_mlp"] | None
    whole: Mapping[str, Float[Tensor, 2]]
    biases: Float[Tensor, 2]

    @classmethod
    def of(
        cls,
        found: StreamReadings,
        part: BlockParts,
        w: Float[Tensor, " d_model"],
    ) -> SublayerShares:
        """Split what a block adds.

        Args:
            found: Of a pass.
            part: The block.
            w: What projects the stream.
        """
        biases, whole = torch.zeros(2), dict[str, Tensor]()
        heads = neurons = None
        if _has_heads(part):
            folded, scale = _to_output(found, part, "attn_out", w)
            own = Heads(part, part.n_heads, part.d_head)
            z = found.at[Site(part.layer, "z")]
            each = z * own.weights(folded[None])[0].cpu() * scale[:, None]
            heads = each.unflatten(-1, (part.n_heads, -1)).sum(-1)
            biases = biases + _constant(part.b_O(), folded) * scale
        elif part.attn_adds:
            whole["attention"] = found.at[Site(part.layer, "attn_out")] @ w
        if _has_neurons(part):
            folded, scale = _to_output(found, part, "mlp_out", w)
            a = found.at[Site(part.layer, "mlp_post")]
            neurons = a * DenseNeurons(part).weights(folded[None])[0].cpu() * scale[:, None]
            biases = biases + _constant(part.b_down(), folded) * scale
        elif part.mlp_adds:
            whole["mlp"] = found.at[Site(part.layer, "mlp_out")] @ w
        if part.level == "stream":
            after, before = (Site(part.layer, kind) for kind in ("resid_post", "resid_pre"))
            whole["block"] = (found.at[after] - found.at[before]) @ w
        return cls(part.layer, heads, neurons, whole, biases)

    @property
    def units_sum(self) -> Float[Tensor, 2]:
        """All but the biases."""
        units = [one.sum(-1) for one in (self.heads, self.neurons) if one is not None]
        return torch.stack([torch.zeros(2), *units, *self.whole.values()]).sum(0)

    @property
    def scale(self) -> Float[Tensor, 2]:
        """How large what cancels in the sums is: the measure of rounding."""
        units = [one.abs().sum(-1) for one in (self.heads, self.neurons) if one is not None]
        return torch.stack([self.biases.abs(), *units, *self.whole.values()]).abs().amax(0)

    def each(self) -> Iterator[tuple[str, int | None, Pair]]:
        """Every writer: part, index, and what it adds in both rows."""
        for part, values in (("head", self.heads), ("neuron", self.neurons)):
            pairs = [] if values is None else values.T.tolist()
            for index, (steered, unsteered) in enumerate(pairs):
                yield part, index, (steered, unsteered)
        for part, pair in self.whole.items():
            yield part, None, (float(pair[0]), float(pair[1]))


def _has_heads(part: BlockParts) -> bool:
    return part.o_proj is not None and part.n_heads > 0


def _has_neurons(part: BlockParts) -> bool:
    return part.down_proj is not None and part.d_mlp > 0


def _sites(part: BlockParts) -> list[Site]:
    """All that is read of a block."""
    kinds: list[str] = []
    if part.level == "stream":
        kinds = ["resid_pre", "resid_post"]
    else:
        kinds += ["z"] if _has_heads(part) else []
        kinds += ["mlp_post"] if _has_neurons(part) else []
        if part.attn_adds and (not _has_heads(part) or part.attn_post_norm is not None):
            kinds.append("attn_out")
        if part.mlp_adds and (not _has_neurons(part) or part.mlp_post_norm is not None):
            kinds.append("mlp_out")
    return [Site(part.layer, kind) for kind in kinds]


def _normed(part: BlockParts) -> list[WritePoint]:
    """Outputs of projections whose norm's scale is wanted."""
    points: list[str] = []
    if _has_heads(part) and part.attn_post_norm is not None:
        points.append("o_proj_out")
    if _has_neurons(part) and part.mlp_post_norm is not None:
        points.append("down_proj_out")
    return [WritePoint(part.layer, point) for point in points]


def _to_output(
    found: StreamReadings, part: BlockParts, adds: str, w: Float[Tensor, " d_model"]
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, 2]]:
    """What projects a projection's output, and what each row's token is multiplied by besides."""
    attention = adds == "attn_out"
    norm = part.attn_post_norm if attention else part.mlp_post_norm
    if norm is None:
        return w * (part.attn_scale if attention else part.mlp_scale), torch.ones(2)
    gain = norm_gain(norm, w)
    assert gain is not None
    gain = gain.cpu()
    point = "o_proj_out" if attention else "down_proj_out"
    before = found.before_norm[WritePoint(part.layer, point)]
    return w * gain, token_scale(before, found.at[Site(part.layer, adds)], gain)


def _constant(bias: Float[Tensor, " d_model"] | None, w: Float[Tensor, " d_model"]) -> Tensor:
    return torch.zeros(()) if bias is None else bias.cpu() @ w
