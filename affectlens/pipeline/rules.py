"""Settings that several stages share, and those that follow from the size of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.circuits import Budget

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


OWN = "own"
"""The pool of what the model itself has written."""

IMPLICIT = "implicit"
"""The pool of authored replies that have no word for a feeling."""


@dataclass(frozen=True)
class Placement:
    """Where the model runs and in which format: both change rounding, and so what near ties give.

    Attributes:
        device: As it was resolved, ``"cpu"`` or ``"cuda"``, never "the best there is".
        dtype: Likewise, ``"bfloat16"`` or ``"float32"``.
    """

    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class SteeredLayers:
    """Blocks at whose output the residual mode adds: every other one of the middle.

    Attributes:
        first: Share of the depth at which they start.
        last: Share at which they end.
        step: From one to the next.
    """

    first: float = 0.27
    last: float = 0.63
    step: int = 2

    def of(self, n_layers: int) -> tuple[int, ...]:
        """Those of a model; with 30 blocks 8, 10, … 18."""
        first = round(n_layers * self.first)
        return tuple(range(first, max(round(n_layers * self.last), first + 1), self.step))


@dataclass(frozen=True)
class RefineMix:
    """What vectors are refined on: these corpora in turn, so one named twice has twice the weight.

    Attributes:
        pools: ``own`` are the model's own replies, ``tones`` the authored texts or those of the
            user's own corpus, ``replies`` the authored matched replies, ``implicit`` those that
            have no word for a feeling.
        style: What becomes of their texts, a name in `affectlens.pipeline.styles.STYLES`.
    """

    pools: tuple[str, ...] = (OWN, "tones", OWN, "replies")
    style: str = "explicit"


@dataclass(frozen=True)
class BudgetRule:
    """How many units a circuit has, by the size of the model.

    Attributes:
        neurons_per_layer: As published.
        head_share: Share of all heads. The published 6 heads per layer are a quarter of that
            model's 24; in a small model they would be most of them.
        floor_neurons, floor_heads, cap, max_share: See `affectlens.circuits.Budget`.
    """

    neurons_per_layer: int = 14
    head_share: float = 0.25
    floor_neurons: int = 4
    floor_heads: int = 1
    cap: float = 0.4
    max_share: float = 0.5

    def of(self, sizes: Int[Tensor, "layer 2"]) -> Budget:
        """The budget of a model; at least one head per attention.

        Args:
            sizes: Heads and neurons of each layer.
        """
        attentions, mlps = (sizes > 0).sum(0).tolist()
        neurons = self.neurons_per_layer * mlps
        heads = max(attentions, round(int(sizes[:, 0].sum()) * self.head_share))
        return Budget(
            total=neurons + heads,
            neuron_share=neurons / max(neurons + heads, 1),
            floor_neurons=self.floor_neurons,
            floor_heads=self.floor_heads,
            cap=self.cap,
            max_share=self.max_share,
        )


PLACEMENT, LAYERS, MIX, BUDGET = Placement(), SteeredLayers(), RefineMix(), BudgetRule()
"""The defaults of each."""
