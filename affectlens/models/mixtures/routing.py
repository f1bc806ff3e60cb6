"""Routing as tensors: pairs of a token and an expert, with the gate between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts the tokens of a batch were sent to: a pair for each, sorted by expert.

    Attributes:
        token: Token of each pair, in the flattened batch.
        expert: Its expert, ascending.
        gate: What the expert's output is multiplied by before it is added.
        n_experts: How many experts there are.
        n_tokens: How many tokens.
    """

    token: Int[Tensor, " pair"]
    expert: Int[Tensor, " pair"]
    gate: Float[Tensor, " pair"]
    n_experts: int
    n_tokens: int

    @classmethod
    def of_top_k(
        cls, index: Int[Tensor, "token k"], gate: Float[Tensor, "token k"], n_experts: int
    ) -> Routing:
        """From the experts of each token and their gates.

        An index that is no expert (as some routers mark "nowhere") makes no pair.
        """
        expert, order = index.flatten().sort(stable=True)
        token = order // index.shape[1]
        kept = (expert >= 0) & (expert < n_experts)
        return cls(token[kept], expert[kept], gate.flatten()[order][kept], n_experts, len(index))

    def of_tokens(self, mask: Tensor) -> Routing:
        """The pairs of some tokens alone.

        Args:
            mask: True for each token that is wanted, ``[token]``.
        """
        kept = mask[self.token]
        return Routing(
            self.token[kept], self.expert[kept], self.gate[kept], self.n_experts, self.n_tokens
        )

    def segments(self) -> Iterator[tuple[int, slice]]:
        """Each expert that has pairs, and where they are."""
        counts = torch.bincount(self.expert, minlength=self.n_experts).tolist()
        start = 0
        for expert, count in enumerate(counts):
            if count:
                yield expert, slice(start, start + count)
                start += count

    def spread(self, values: Float[Tensor, " pair"]) -> Float[Tensor, "token expert"]:
        """A number per pair as a table of tokens and experts, 0 where there is no pair."""
        table = values.new_zeros(self.n_tokens, self.n_experts)
        return table.index_put_((self.token, self.expert), values, accumulate=True)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that are weighted sums of tokens, as a list of entries.

    Attributes:
        token: Token of each entry, in the flattened batch; one may be in several rows, or in none.
        row: Its row.
        share: Its weight there.
        n_rows: How many rows there are.
    """

    token: Int[Tensor, " entry"]
    row: Int[Tensor, " entry"]
    share: Float[Tensor, " entry"]
    n_rows: int

    @classmethod
    def means(cls, index: Int[Tensor, " token"], bags: Int[Tensor, " row"] | None) -> Rows:
        """Means over bags of tokens, each from its start to that of the next; None: single ones."""
        if bags is None:
            row = torch.arange(len(index), device=index.device)
            return cls(index, row, torch.ones_like(row, dtype=torch.float32), len(index))
        sizes = torch.cat([bags[1:], bags.new_tensor([len(index)])]) - bags
        row = torch.arange(len(bags), device=bags.device)
        row = row.repeat_interleave(sizes, output_size=len(index))
        return cls(index, row, (1.0 / sizes.float())[row], len(bags))

    def times(self, factor: Float[Tensor, " token"]) -> Rows:
        """The same with every token multiplied by a number of its own."""
        return replace(self, share=self.share * factor.float()[self.token])

    def sums(self, values: Float[Tensor, "token width"]) -> Float[Tensor, "row width"]:
        """The rows, in float32."""
        rows = values.new_zeros(self.n_rows, values.shape[1], dtype=torch.float32)
        weighted = values[self.token].float() * self.share[:, None]
        return rows.index_add_(0, self.row, weighted)


def pooled(
    values: Float[Tensor, "pair width"], routing: Routing, rows: Rows
) -> Float[Tensor, "row expert width"]:
    """Rows of what the experts did, expert by expert, 0 where a token was not sent.

    Args:
        values: Of each pair.
        routing: The pairs.
        rows: What to add up.
    """
    # Entries of each token stand together, so that those of a pair can be listed.
    token, order = rows.token.sort(stable=True)
    share, row = rows.share[order], rows.row[order]
    counts = torch.bincount(token, minlength=routing.n_tokens)
    first = counts.cumsum(0) - counts
    times = counts[routing.token]
    many = int(times.sum())  # the one wait for the device here
    pair = torch.arange(len(values), device=values.device)
    pair = pair.repeat_interleave(times, output_size=many)
    begin = (first[routing.token] - times.cumsum(0) + times)[pair]
    entry = begin + torch.arange(many, device=values.device)
    target = row[entry] * routing.n_experts + routing.expert[pair]
    shape = (rows.n_rows, routing.n_experts)
    sums = values.new_zeros(shape[0] * shape[1], values.shape[1], dtype=torch.float32)
    weighted = values[pair].float() * share[entry, None]
    return sums.index_add_(0, target, weighted).unflatten(0, shape)
