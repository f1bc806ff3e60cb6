"""What a batch is on the device: its tokens, and which values of a forward pass are kept.

All of it is worked out in numpy and sent to the device in one copy, before the pass; at each site
only a gather remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from affectlens.activations.forward.buffers import Block
from affectlens.activations.forward.plan import CapturePlan
from affectlens.activations.forward.tokenised import Ints, before, ranges

_FUSED = ("cpu", "cuda")


class Derived(Protocol):
    """What an engine may hand out in place of a tensor: worked out for the tokens read only."""

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    def rows(
        self, index: Int[Tensor, " token"], bags: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row width"]:
        """Of single tokens, or means over bags of them; see `Pick`."""
        ...


@dataclass(frozen=True, eq=False)
class Pick:
    """What one position takes from a batch.

    Attributes:
        start: Storage row of the first row it gives.
        index: Tokens to take, in the flattened batch.
        bags: Where each row's tokens start in ``index``; None if every row is one token.
    """

    start: int
    index: Int[Tensor, " token"]
    bags: Int[Tensor, " row"] | None

    def __call__(
        self, value: Float[Tensor, "batch pos width"] | Derived, block: Block
    ) -> Float[Tensor, "row width"]:
        """Rows of a site: single tokens in the model's dtype, means in float32.

        Args:
            value: Of the whole batch.
            block: Where the rows go.
        """
        if not isinstance(value, Tensor):
            found = value.rows(self.index, self.bags)
            n, width = found.shape
            return block.take(n, width, found.dtype, found.device).copy_(found)
        tokens, width = value.flatten(0, 1), value.shape[-1]
        if self.bags is None:
            rows = block.take(len(self.index), width, value.dtype, value.device)
            return torch.index_select(tokens, 0, self.index, out=rows)
        rows = block.take(len(self.bags), width, torch.float32, value.device)
        return rows.copy_(mean_rows(tokens, self.index, self.bags))

    def to(self, device: torch.device) -> Pick:
        """The same on another device."""
        bags = None if self.bags is None else self.bags.to(device)
        return Pick(self.start, self.index.to(device), bags)


@dataclass(frozen=True, eq=False)
class Batch:
    """A padded batch and its picks, on the device the model takes its input on.

    Attributes:
        ids: Token ids.
        mask: 1 for real tokens.
        picks: By position.
        left: Whether any text is filled up on the left; known here, so that nobody has to look at
            the mask, which would wait for the device.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    picks: Mapping[str, Pick]
    left: bool


def make_batch(plan: CapturePlan, texts: Ints, device: torch.device, padding: str) -> Batch:
    """Pad texts to one length and find what is read of them.

    Args:
        plan: What the texts are part of.
        texts: Their indices, consecutive in `CapturePlan.order`.
        device: Where the model takes its input.
        padding: Side on which short texts are filled up, ``"right"`` or ``"left"``.
    """
    packed, n = plan.texts, len(texts)
    lengths = packed.lengths[texts]
    longest = int(lengths.max())
    first = np.arange(n) * longest + (longest - lengths if padding == "left" else 0)
    real = ranges(first, lengths)
    ids = np.full(n * longest, packed.pad_id, np.int64)
    mask = np.zeros(n * longest, np.int64)
    ids[real] = packed.ids[ranges(packed.offsets[texts], lengths)]
    mask[real] = 1
    parts = [ids, mask]
    for position in plan.positions:
        tokens, widths = packed.read_by(position, texts)
        single = not position.pooled or bool((widths == 1).all())
        parts += [np.repeat(first, widths) + tokens, before(widths)[: 0 if single else n]]
    on_device = _sent(parts, device)
    picks = {
        position.name: Pick(
            int(plan.starts[position.name][texts[0]]),
            on_device[2 + 2 * i],
            on_device[3 + 2 * i] if len(on_device[3 + 2 * i]) else None,
        )
        for i, position in enumerate(plan.positions)
    }
    left = padding == "left" and int(lengths.min()) < longest
    return Batch(on_device[0].view(n, longest), on_device[1].view(n, longest), picks, left)


def _sent(parts: Sequence[Ints], device: torch.device) -> tuple[Tensor, ...]:
    """Arrays on the device, by one copy of them all."""
    whole = torch.from_numpy(np.concatenate(parts))
    if device.type == "cuda":
        whole = whole.pin_memory()
    return whole.to(device, non_blocking=True).split([len(part) for part in parts])


def mean_rows(
    tokens: Float[Tensor, "token width"],
    index: Int[Tensor, " picked"],
    bags: Int[Tensor, " row"],
) -> Float[Tensor, "row width"]:
    """Mean over each bag of tokens, in float32; the order of summation is always the same."""
    if tokens.dtype != torch.float32:
        tokens = tokens.index_select(0, index).float()
        index = torch.arange(len(index), device=index.device)
    if tokens.device.type in _FUSED:
        return embedding_bag(index, tokens, bags, mode="mean")
    ends = torch.cat([bags[1:], bags.new_tensor([len(index)])])
    widths = ends - bags
    owner = torch.arange(len(bags), device=bags.device)
    # Told how many there will be, no device has to be waited for.
    owner = owner.repeat_interleave(widths, output_size=len(index))
    sums = tokens.new_zeros(len(bags), tokens.shape[1])
    return sums.index_add_(0, owner, tokens.index_select(0, index)) / widths[:, None]
