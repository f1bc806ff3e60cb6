"""Tokens of replies by their offset, and which of them a probe is fitted on and scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.probes.design import Design

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.core.places import Site

POSITION = "all:reply"
ENOUGH = 0.5


@dataclass(frozen=True, eq=False)
class ReplyTokens:
    """Tokens of the replies of a store.

    Attributes:
        store: Activations of every token of every reply.
        ids: Record of each text, in the order of the store.
        first: Row of each reply's first token.
        length: Tokens of each reply.
    """

    store: ActivationStore
    ids: tuple[str, ...]
    first: Int[Tensor, " text"]
    length: Int[Tensor, " text"]

    @classmethod
    def of(cls, store: ActivationStore) -> ReplyTokens:
        """Of a store that was captured at `POSITION`; tokens of a text lie one after the other."""
        names: list[str] = store.column("id", POSITION)
        starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
        ends = [*starts[1:], len(names)]
        ids = tuple(names[i] for i in starts)
        return cls(store, ids, torch.tensor(starts), torch.tensor(ends) - torch.tensor(starts))

    def splits(self) -> list[str]:
        """Split of each text."""
        every: list[str] = self.store.column("split", POSITION)
        return [every[int(i)] for i in self.first]

    def chosen_offsets(self, asked: Sequence[int]) -> tuple[int, ...]:
        """Those asked for; by default 0, 1, 2, 4, 8, … while half of the replies are so long.

        Raises:
            DataError: If one is below 0, or no reply is so long.
        """
        if not asked:
            reached, longest = [0], int(self.length.double().quantile(1 - ENOUGH))
            while (after := max(1, 2 * reached[-1])) < longest:
                reached.append(after)
            return tuple(reached)
        longest = int(self.length.max())
        for offset in asked:
            if not 0 <= offset < longest:
                raise DataError(
                    f"No reply has a token at offset {offset}: the longest has {longest}, counted "
                    "from 0."
                )
        return tuple(sorted(set(asked)))

    def expanded(self, design: Design, offsets: Sequence[int]) -> TokenDesign:
        """A design of texts as one of their tokens at some offsets; a text lies where it lay.

        Raises:
            DataError: If no reply that is fitted on, or none that is held out, reaches an offset.
        """
        of_text = design.rows
        for k in offsets:
            reach = self.length[of_text] > k
            for what, rows in (("fitted on", design.fit), ("held out", design.held)):
                if not bool((reach & rows).any()):
                    raise DataError(
                        f"No reply that is {what} has a token at offset {k}; ask for smaller ones."
                    )
        pairs = [
            (i, k) for k in offsets for i in range(len(of_text)) if self.length[of_text[i]] > k
        ]
        text = torch.tensor([i for i, _ in pairs])
        offset = torch.tensor([k for _, k in pairs])
        tokens = replace(design.taken(text), rows=self.first[of_text[text]] + offset)
        return TokenDesign(self, tokens, text, offset)


@dataclass(frozen=True, eq=False)
class TokenDesign:
    """Tokens that are fitted on and scored, at all offsets at once.

    Attributes:
        tokens: Where they are read.
        design: Of the tokens.
        text: Index of each token's text in the design of texts.
        offset: Of each token, in its reply.
    """

    tokens: ReplyTokens
    design: Design
    text: Int[Tensor, " n"]
    offset: Int[Tensor, " n"]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Those that occur, ascending."""
        return tuple(sorted(set(self.offset.tolist())))

    def with_targets(self, y: Float[Tensor, " text"] | Int[Tensor, " text"]) -> Design:
        """The design with another target of each text."""
        return replace(self.design, y=y[self.text])

    def only(self, offset: int) -> TokenDesign:
        """The tokens at one offset."""
        kept = self.offset == offset
        mine = self.design.taken(kept)
        return TokenDesign(self.tokens, mine, self.text[kept], self.offset[kept])

    def read(self, sites: Sequence[Site]) -> Float[Tensor, "site n d"]:
        """Their rows, less the mean of their offset over those that are fitted on.

        Removing the mean of each offset is what a learned embedding of the offset does for a linear
        probe: what all replies have at the offset says nothing of any.
        """
        rows = self.design.rows.numpy()
        store = self.tokens.store
        return self.centred(torch.stack([store.to_torch(s, POSITION, rows) for s in sites]))

    def lengths(self) -> Float[Tensor, "1 n 2"]:
        """How long each token's reply is, and how much of it is left, as log of tokens."""
        text = torch.searchsorted(self.tokens.first, self.design.rows, right=True) - 1
        total = self.tokens.length[text].float()
        left = total - self.offset
        return self.centred(torch.stack([total.log(), left.log()], dim=1)[None])

    def centred(self, x: Float[Tensor, "site n d"]) -> Float[Tensor, "site n d"]:
        """Less the mean of each offset over the rows that are fitted on."""
        found = x.clone()
        for offset in self.offsets:
            mine = self.offset == offset
            found[:, mine] -= x[:, mine & self.design.fit].mean(1, keepdim=True)
        return found
