"""Units of a block as inputs of a linear map: heads, neurons, neurons of experts.

Where layers differ, tensors over all layers are as wide as the widest: neurons fill up at the end,
heads head by head, so that head ``h`` lies at the same place in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.mixtures.mixture import Mixture


class UnitMap(Protocol):
    """What the units of one sublayer add, before a norm that may follow."""

    @property
    def width(self) -> int:
        """Numbers per token at its input."""
        ...

    def weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k width"]:
        """What one unit of each number adds along some vectors."""
        ...

    def written(self, x: Float[Tensor, "k wide"]) -> Float[Tensor, "k d_model"]:
        """What numbers add; beyond the width they are passed over. Differentiable."""
        ...


@dataclass(frozen=True, eq=False)
class Heads:
    """``W_O``; its input is all heads side by side, each in a place that all layers share.

    Attributes:
        part: The block.
        n_heads, d_head: Of the widest layer.
    """

    part: BlockParts
    n_heads: int
    d_head: int

    @property
    def width(self) -> int:
        """See `UnitMap.width`; as wide as the widest layer."""
        return self.n_heads * self.d_head

    def spread(self, z: Float[Tensor, "k own"]) -> Float[Tensor, "k width"]:
        """The layer's own heads, each put in its place."""
        heads = z.unflatten(-1, (self.part.n_heads, self.part.d_head))
        missing = self.d_head - self.part.d_head, self.n_heads - self.part.n_heads
        return pad(heads, (0, missing[0], 0, missing[1])).flatten(-2)

    def weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k width"]:
        """See `UnitMap.weights`."""
        weight = self.part.W_O().flatten(0, 1)
        return self.spread(v.to(weight.device) @ weight.T)

    def written(self, x: Float[Tensor, "k wide"]) -> Float[Tensor, "k d_model"]:
        """See `UnitMap.written`."""
        own = x.unflatten(-1, (self.n_heads, self.d_head))
        own = own[:, : self.part.n_heads, : self.part.d_head].flatten(1)
        weight = self.part.W_O().flatten(0, 1)
        return own.to(weight.device, weight.dtype) @ weight


@dataclass(frozen=True, eq=False)
class DenseNeurons:
    """``W_down``.

    Attributes:
        part: The block.
    """

    part: BlockParts

    @property
    def width(self) -> int:
        """See `UnitMap.width`."""
        return self.part.d_mlp

    def weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k width"]:
        """See `UnitMap.weights`."""
        weight = self.part.W_down()
        return v.to(weight.device) @ weight.T

    def written(self, x: Float[Tensor, "k wide"]) -> Float[Tensor, "k d_model"]:
        """See `UnitMap.written`."""
        weight = self.part.W_down()
        return x[:, : self.width].to(weight.device, weight.dtype) @ weight


@dataclass(frozen=True, eq=False)
class ExpertNeurons:
    """``W_down`` of all experts of a mixture; its input is neurons times gates.

    Attributes:
        mixture: The mixture.
    """

    mixture: Mixture

    @property
    def width(self) -> int:
        """See `UnitMap.width`."""
        return self.mixture.n_neurons

    def weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k width"]:
        """See `UnitMap.weights`."""
        return self.mixture.neuron_weights(v)

    def written(self, x: Float[Tensor, "k wide"]) -> Float[Tensor, "k d_model"]:
        """See `UnitMap.written`."""
        return self.mixture.written(x[:, : self.width])


def neuron_map(part: BlockParts) -> DenseNeurons | ExpertNeurons | None:
    """Neurons of a block; None if it has none."""
    if part.experts is not None:
        return ExpertNeurons(part.experts)
    return None if part.down_proj is None else DenseNeurons(part)


def head_map(part: BlockParts, n_heads: int, d_head: int) -> Heads | None:
    """Heads of a block; None if it has none.

    Args:
        part: The block.
        n_heads, d_head: Of the widest layer of the model.
    """
    return None if part.o_proj is None else Heads(part, n_heads, d_head)


def widened(rows: Sequence[Float[Tensor, "*k own"]]) -> list[Float[Tensor, "*k width"]]:
    """Tensors of different width, filled up with zeros to the widest."""
    width = max((row.shape[-1] for row in rows), default=0)
    return [pad(row, (0, width - row.shape[-1])) for row in rows]


def stacked(rows: Sequence[Float[Tensor, "k own"]]) -> Float[Tensor, "k layer width"]:
    """Those of all layers in one tensor."""
    return torch.stack(widened(rows), dim=1)
