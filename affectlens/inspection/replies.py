"""A whole reply, token by token: how it reads, and how much steering changed each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import Site
from affectlens.inspection.lenses import Lens
from affectlens.inspection.shifts import kl_of
from affectlens.inspection.twin_pass import STEERED, UNSTEERED, Said, twin_pass

_ROWS = 128


@dataclass(frozen=True, eq=False)
class ReplyInspection:
    """Of each token of a reply what held where it was chosen: at the token before it.

    Attributes:
        kl: ``KL(steered ‖ unsteered)`` of the next-token distributions, in nats, at temperature 1
            and without penalties.
        nll: Surprise of the token in the steered model, in nats.
        nll_unsteered: The same in the model as it is: what perplexities are made of.
        readings: Of each lens its numbers, steered and unsteered on the first axis.
    """

    kl: Float[Tensor, " token"]
    nll: Float[Tensor, " token"]
    nll_unsteered: Float[Tensor, " token"]
    readings: tuple[Float[Tensor, "2 token layer column"], ...]

    @property
    def perplexity(self) -> float:
        """Of the reply in the model as it is: ``exp`` of the mean surprise; NaN if it is empty.

        Divided by that of the unsteered reply to the same prompt it is the perplexity ratio.
        """
        return float(self.nll_unsteered.double().mean().exp())


@torch.inference_mode()
def inspect_reply(said: Said, lenses: Sequence[Lens] = ()) -> ReplyInspection:
    """Read a reply in one pass of two rows.

    Args:
        said: The reply and its steering.
        lenses: Of `lenses_of`.
    """
    chosen = slice(len(said.prompt) - 1, len(said.prompt) + len(said.reply) - 1)
    found = [
        torch.empty(2, len(said.reply), len(lens.layers), len(lens.columns)) for lens in lenses
    ]
    sites = tuple(dict.fromkeys(site for lens in lenses for site in lens.sites))

    def read(site: Site, value: Tensor) -> None:
        for lens, numbers in zip(lenses, found, strict=True):
            if site in lens.sites:
                index = lens.sites.index(site)
                numbers[:, :, index] = lens.read(index, value[:, chosen])

    hidden = twin_pass(said, sites, read)[:, chosen]
    told = torch.tensor(list(said.reply), dtype=torch.long)
    rows = [
        _compared(said, hidden[:, start : start + _ROWS], told[start : start + _ROWS])
        for start in range(0, max(len(told), 1), _ROWS)
    ]
    kl, nll, nll_unsteered = (torch.cat(part) for part in zip(*rows, strict=True))
    return ReplyInspection(kl, nll, nll_unsteered, tuple(found))


def _compared(
    said: Said, hidden: Float[Tensor, "2 token d_model"], told: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """KL and both surprises of some tokens."""
    logs = said.model.logits(hidden).float().log_softmax(-1)
    index = told.to(logs.device)[None, :, None].expand(2, -1, 1)
    nll = -logs.gather(-1, index)[..., 0]
    kl = kl_of(logs[STEERED], logs[UNSTEERED])
    return kl.cpu(), nll[STEERED].cpu(), nll[UNSTEERED].cpu()
