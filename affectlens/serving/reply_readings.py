"""What the probes say of a reply while it is written, as clients get it.

A reading belongs to a generated token and is taken where that token was chosen: after the chosen
blocks, at the token before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Scores = list[list[float]]
"""Of one token: per layer, per class, before softmax."""


@dataclass
class Reply:
    """The readings of a reply so far.

    Attributes:
        classes, layers: Of the pack's probes.
        tokens: Scores of each token.
    """

    classes: tuple[str, ...]
    layers: tuple[int, ...]
    tokens: list[Scores] = field(default_factory=list[Scores])

    def report(self, since: int = 0) -> dict[str, Any]:
        """What clients get: probabilities per token and layer, and those of the whole reply.

        The reply's are the probe's verdict on the mean hidden state of its tokens, which is how
        probes are fitted (``mean:reply``).

        Args:
            since: First token to report; the reply's probabilities always cover all.
        """
        scores = torch.tensor(self.tokens)
        return {
            "classes": list(self.classes),
            "layers": list(self.layers),
            "tokens": _rounded(scores[since:].softmax(-1)),
            "reply": _rounded(scores.mean(0).softmax(-1)),
        }


def _rounded(shares: Tensor) -> Any:
    return (shares.double() * 1e6).round().div(1e6).tolist()


def joined(first: Mapping[str, Any] | None, then: Mapping[str, Any] | None) -> Any:
    """One report of two that follow each other."""
    if not first or not then:
        return then or first
    return {**then, "tokens": [*first["tokens"], *then["tokens"]]}
