"""Strength that changes while a reply is written: rising, falling, or along a curve.

A schedule is a share of the steering for every token of the reply, straight between its points and
constant before the first and behind the last. Share 1 is the request as it is, share 0 none of it;
in between a hidden state goes so far from what it was to what it would become, which for vectors
that are added is that share of the strength. Token 0 is the first of the reply; all of the prompt
has its share.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core import DataError

LONGEST = 1_000_000
"""A token beyond is a typing error."""
MOST_POINTS = 64
"""More are no curve that anybody draws, and every token of a server would pay for them."""
_HOW = (
    "write rise:TOKENS, fall:TOKENS or a curve of token:share with commas between, for example "
    "rise:20 or 0:0,10:1,40:0.3"
)


@dataclass(frozen=True)
class Schedule:
    """Share of the steering by token of the reply.

    Attributes:
        points: (token, share): tokens rising from 0 on, shares from 0 to 1.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        tokens = [token for token, _ in self.points]
        rising = all(a < b for a, b in itertools.pairwise(tokens))
        if not (tokens and rising and tokens[0] >= 0 and tokens[-1] <= LONGEST):
            raise DataError(
                f"Tokens of a schedule must rise from 0 on, each once, not {tokens}; {_HOW}."
            )
        if len(tokens) > MOST_POINTS:
            raise DataError(
                f"A schedule has at most {MOST_POINTS} points, not {len(tokens)}; {_HOW}."
            )
        for _, share in self.points:
            if not 0 <= share <= 1:  # also catches NaN
                raise DataError(f"A schedule's shares go from 0 to 1, not to {share:g}; {_HOW}.")
        if not any(share for _, share in self.points):
            raise DataError("A schedule whose shares are all 0 steers nothing; ask for none.")

    @classmethod
    def parse(cls, value: Any) -> Schedule | None:
        """Read ``"rise:20"``, ``"fall:20"`` or ``"0:0,10:1,40:0.3"``; None is given back.

        Raises:
            DataError: If it cannot be read.
        """
        if value is None or isinstance(value, Schedule):
            return value
        try:
            pairs = [part.split(":") for part in value.split(",")]
            match pairs:
                case [["rise", tokens]]:
                    return cls(((0, 0.0), (_whole(tokens), 1.0)))
                case [["fall", tokens]]:
                    return cls(((0, 1.0), (_whole(tokens), 0.0)))
                case _:
                    return cls(tuple((_whole(token), float(share)) for token, share in pairs))
        except (AttributeError, ValueError):
            raise DataError(f"Cannot read the schedule {value!r}; {_HOW}.") from None

    def __str__(self) -> str:
        match self.points:
            case ((0, 0.0), (tokens, 1.0)):
                return f"rise:{tokens}"
            case ((0, 1.0), (tokens, 0.0)):
                return f"fall:{tokens}"
            case _:
                return ",".join(f"{token}:{_short(share)}" for token, share in self.points)

    def shares(self, tokens: Int[Tensor, ...]) -> Float[Tensor, ...]:
        """The share of each token.

        Args:
            tokens: Counted from the first of the reply; below 0 in the prompt.
        """
        at = tokens.float()
        found = at.new_full(at.shape, self.points[0][1])
        for (start, low), (end, high) in itertools.pairwise(self.points):
            # (`lerp` gives both ends exactly: behind a last share of 0 nothing is left.)
            way = ((at - start) / (end - start)).clamp(0, 1)
            part = torch.lerp(at.new_tensor(low), at.new_tensor(high), way)
            found = torch.where(at >= start, part, found)
        return found

    def shares_at(self, tokens: Int[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
        """`shares` without a tensor, which is what a server asks for at every step."""
        x, y = zip(*self.points, strict=True)
        return np.interp(tokens, x, y).astype(np.float32)


def _whole(text: str) -> int:
    number = float(text)
    if not (math.isfinite(number) and number.is_integer()):
        raise ValueError(text)
    return int(number)


def _short(share: float) -> str:
    return str(int(share)) if float(share).is_integer() else repr(float(share))
