"""One token of a reply: what it was chosen from, and how the stream read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, Site
from affectlens.inspection.lenses import Lens
from affectlens.inspection.shifts import Shift, shift_of
from affectlens.inspection.twin_pass import STEERED, UNSTEERED, Said, twin_pass


@dataclass(frozen=True, eq=False)
class TokenInspection:
    """What held where a token was chosen, at the token before it.

    Attributes:
        shift: What steering changed in the choice.
        readings: Of each lens its numbers, steered and unsteered on the first axis: the map of
            layers and emotions.
    """

    shift: Shift
    readings: tuple[Float[Tensor, "2 layer column"], ...]


@torch.inference_mode()
def inspect_token(
    said: Said, at: int, lenses: Sequence[Lens] = (), *, top: int = 8
) -> TokenInspection:
    """Look at a token in one pass of two rows.

    Args:
        said: The reply and its steering.
        at: Number of the token, from 0; the length of the reply asks for the one that would come
            next.
        lenses: Of `lenses_of`.
        top: Most words in each list of the shift.

    Raises:
        DataError: If there is no such token, or no word is asked for.
    """
    if top < 1:
        raise DataError(f"At least one word must be asked for, not {top}.")
    model, before = said.model, said.upto(at)
    found = [torch.empty(2, len(lens.layers), len(lens.columns)) for lens in lenses]

    def read(site: Site, value: Tensor) -> None:
        for lens, numbers in zip(lenses, found, strict=True):
            if site in lens.sites:
                index = lens.sites.index(site)
                numbers[:, index] = lens.read(index, value[:, -1])

    sites = tuple(dict.fromkeys(site for lens in lenses for site in lens.sites))
    hidden = twin_pass(before, sites, read)[:, -1]
    logs = model.logits(hidden).float().log_softmax(-1).cpu()
    shift = shift_of(
        logs[STEERED],
        logs[UNSTEERED],
        lambda token: str(model.tokenizer.decode([token])),
        chosen=said.reply[at] if at < len(said.reply) else None,
        top=top,
    )
    return TokenInspection(shift, tuple(found))
