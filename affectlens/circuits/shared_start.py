"""Two texts whose first tokens are the same: these run once, and their keys and values are kept.

What both texts share does not differ between them, so no place of it has a score, and no step on a
path from one to the other changes it. A family that goes on otherwise than from its cache runs both
texts whole: `may_begin_apart` holds one way against the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from affectlens.circuits.side_by_side import TokenRuns, agree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.circuits.side_by_side import Runs

FEWEST = 8
"""Tokens that two texts share, below which a pass of their own costs more than it saves."""


@torch.no_grad()
def may_begin_apart(pairs: Sequence[tuple[Runs, Runs]]) -> bool:
    """Whether the model gives the same margins when it goes on from what two texts share.

    Args:
        pairs: Of the same model; the longest of those that share enough is tried.
    """
    sharing = [two for two in pairs if shared(*two) >= FEWEST]
    if not sharing:
        return False
    first, second = max(sharing, key=lambda two: two[0].tokens)
    assert isinstance(first, TokenRuns)
    if not first.model.padding.upto(1 + int(first.places.max())).chunks:
        return False
    try:
        found = [float(one()) for one in apart(first, second)]
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):  # its own cache
        return False
    whole = [float(one()) for one in (first, second)]
    return all(agree(first.model, one, other) for one, other in zip(found, whole, strict=True))


@torch.no_grad()
def apart(first: Runs, second: Runs) -> tuple[Runs, Runs]:
    """Two texts from the first token on in which they differ; whole if they share too little."""
    start = shared(first, second)
    if start < FEWEST:
        return first, second
    assert isinstance(first, TokenRuns)
    assert isinstance(second, TokenRuns)
    beginning = replace(first, ids=first.ids[:, :start], places=first.places[:, :start])
    cache = replace(beginning, mask=first.mask[..., :start, :start]).keep()
    return _after(first, start, cache), _after(second, start, cache)


def shared(first: Runs, second: Runs) -> int:
    """How many tokens come before all that differs between two texts, and all that is told.

    0 if they are not each one row with a mask of who sees whom.
    """
    for one in (first, second):
        if not (isinstance(one, TokenRuns) and one.rows == 1 and one.mask.ndim == 4):
            return 0
    assert isinstance(first, TokenRuns)
    assert isinstance(second, TokenRuns)
    if first.ids.shape != second.ids.shape:
        return 0
    unlike = (first.ids != second.ids) | (first.places != second.places)
    unlike |= (first.mask != second.mask).any(-1)[0]
    told = min(int(one.at[:, 1].min()) for one in (first, second))
    unlike[0, told] = True
    return int(unlike[0].long().argmax())


def _after(runs: TokenRuns, start: int, cache: Any) -> TokenRuns:
    return replace(
        runs,
        ids=runs.ids[:, start:],
        places=runs.places[:, start:],
        mask=runs.mask[:, :, start:],
        at=runs.at - torch.tensor([0, start], device=runs.at.device),
        before=cache,
    )
