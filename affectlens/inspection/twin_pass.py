"""One forward pass over a text with its steering and, beside it, without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, Site
from affectlens.models.hooking.hooks import reading
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack

STEERED, UNSTEERED = 0, 1
"""The rows of a pass."""


@dataclass(frozen=True, eq=False)
class Said:
    """A reply, or the beginning of one, and what it was written under.

    Attributes:
        model: The model.
        pack: Its vectors.
        spec: The request, anything `SteeringPack.resolve` reads.
        prompt: Token ids up to where the reply starts.
        reply: Token ids of the reply.
        force: Take a pack of another model of the same shape.
    """

    model: LanguageModel
    pack: SteeringPack
    spec: Any
    prompt: Sequence[int]
    reply: Sequence[int]
    force: bool = False

    def __post_init__(self) -> None:
        if not self.prompt:
            raise DataError("There is no prompt to look at; give at least one token.")
        embeddings: Any = self.model.hf.get_input_embeddings()
        vocabulary = int(embeddings.weight.shape[0])
        for token in (*self.prompt, *self.reply):
            if not 0 <= token < vocabulary:
                raise DataError(
                    f"Token {token} is outside the vocabulary of {self.model.name} ({vocabulary} "
                    "tokens); it belongs to another model."
                )
        longest = self.model.context_length
        if len(self.prompt) + len(self.reply) > longest:
            raise DataError(
                f"Prompt and reply have {len(self.prompt) + len(self.reply)} tokens; "
                f"{self.model.name} takes {longest}."
            )

    def upto(self, at: int) -> Said:
        """What there was when a token of the reply was chosen.

        Args:
            at: Number of the token, from 0; the length of the reply asks for the one that would
                come next.

        Raises:
            DataError: If there is no such token.
        """
        if not 0 <= at <= len(self.reply):
            raise DataError(f"The reply has {len(self.reply)} tokens; there is no token {at}.")
        reply = self.reply[:at]
        return Said(self.model, self.pack, self.spec, self.prompt, reply, self.force)


@torch.inference_mode()
def twin_pass(
    said: Said, sites: Sequence[Site] = (), read: Callable[[Site, Tensor], None] | None = None
) -> Float[Tensor, "2 pos d_model"]:
    """Run prompt and reply as two rows of a batch, the first steered, the second not.

    Both rows hold the same tokens, so they differ by the steering alone.

    Args:
        said: The text.
        sites: What to read on the way.
        read: Gets a site and its value ``[2, pos, width]``, after what was written there.

    Returns:
        The last hidden state, which `LanguageModel.logits` takes.
    """
    model = said.model
    row = [*said.prompt, *said.reply]
    ids, mask = model.encode_batch([row, row])
    base = model.anatomy.base
    places = accepted(base, position_ids=model.position_ids(mask), use_cache=False)
    lengths = [len(said.prompt)] * 2
    requests = [said.spec, "none"]
    with (
        said.pack.steer(model, requests, prompt_lengths=lengths, force=said.force),
        reading(model.anatomy, sites, read or _nothing),
    ):
        return base(input_ids=ids, attention_mask=mask, **places).last_hidden_state


def _nothing(_site: Site, _value: Tensor) -> None:
    """For passes of which only the end is asked."""
