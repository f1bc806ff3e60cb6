"""Preallocated tables of a server: a slot per request that is running, written while it runs.

Addresses and shapes never change after construction, and whether a token is steered is data, so
compiled code and CUDA graphs replay unchanged whatever the requests of a batch ask for. Slot 0 does
nothing. Pure torch; no server is named here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affectlens.core import DataError, WritePoint
from affectlens.serving.coefficients import Coefficients

UNROLLED = 16
"""Up to so many vectors are summed one by one, which a compiler fuses into what surrounds it."""


@dataclass(frozen=True)
class Capacity:
    """Sizes that are fixed when a server starts.

    Attributes:
        slots: Different requests at once, without slot 0.
        vectors: Emotions of all packs together, and what their maps read and write.
        tokens: Most tokens of a step.
        d_model: Width of the residual stream.
        projects: Whether requests may project out, clamp and use maps.
        turns: Whether requests may keep norms.
        recorded: Whether steps are replayed from a recording (compiled code, CUDA graphs): then
            everything runs always, and what is asked for is data alone.
    """

    slots: int
    vectors: int
    tokens: int
    d_model: int
    projects: bool = True
    turns: bool = True
    recorded: bool = False


class Slots(nn.Module):
    """The tables of one worker.

    Args:
        places: Where this worker can write.
        capacity: Sizes.
        device: Of the model.
    """

    def __init__(
        self, places: Sequence[WritePoint], capacity: Capacity, device: torch.device | str
    ) -> None:
        super().__init__()
        self.places = {place: i for i, place in enumerate(places)}
        self.capacity = capacity
        n, k, rows = len(places), capacity.vectors, capacity.slots + 1

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=device)

        self.vectors = zeros(n, k, capacity.d_model)
        self.shift = zeros(n, rows, k)
        self.scale = zeros(n, rows, k, k) if capacity.projects else None
        self.keeps = torch.zeros(rows, dtype=torch.bool, device=device) if capacity.turns else None
        self.rows = torch.zeros(capacity.tokens, dtype=torch.long, device=device)
        self.open: Tensor | None = None
        self.shares = torch.ones(capacity.tokens, device=device)
        self.sharing = False
        self.busy = False
        self.always = capacity.recorded
        # Slots in use of each kind: eager code skips what nobody asks for.
        self.projecting: set[int] = set()
        self.turning: set[int] = set()
        self.gating: set[int] = set()
        self._step: _Step | None = None
        self._vectors = self.vectors.unbind()

    def allow_gates(self) -> None:
        """Reserve the buffer that says, per token of a step, whether its gate is open."""
        self.open = torch.ones(self.capacity.tokens, device=self.rows.device)

    def put_vectors(self, first: int, vectors: Float[Tensor, "place emotion d"]) -> None:
        """Give a pack's vectors the columns from ``first`` on; zeros free them."""
        self.vectors[:, first : first + vectors.shape[1]] = vectors.to(self.vectors.device)

    def write(self, slot: int, first: int, found: Coefficients) -> None:
        """Make a slot mean a request.

        Args:
            slot: From 1.
            first: First column of its pack.
            found: The request at every place.
        """
        self.clear(slot)
        columns = slice(first, first + found.shift.shape[1])
        self.shift[:, slot, columns] = found.shift.to(self.shift.device)
        if found.scale is not None:
            if self.scale is None:
                raise DataError("This server was started without operators that project, or maps.")
            self.scale[:, slot, columns, columns] = found.scale.to(self.scale.device)
            self.projecting.add(slot)
        if found.keeps_norm:
            if self.keeps is None:
                raise DataError("This server was started without operators that keep norms.")
            self.keeps[slot] = True
            self.turning.add(slot)

    def clear(self, slot: int) -> None:
        """Make a slot do nothing."""
        self.shift[:, slot] = 0
        if self.scale is not None and slot in self.projecting:
            self.scale[:, slot] = 0
            self.projecting.remove(slot)
        if self.keeps is not None and slot in self.turning:
            self.keeps[slot] = False
            self.turning.remove(slot)

    def apply_at(
        self, index: int, hidden: Float[Tensor, "token d"], *, gated: bool = False
    ) -> Float[Tensor, "token d"]:
        """Steer the tokens of a step at one place.

        Args:
            index: Number of the place.
            hidden: What the model computed, in any float format; sums are formed in float32.
            gated: Whether gates are decided before this place.
        """
        moved = self._moved(index, hidden.float(), gated)
        return _where(self._on(hidden), moved.to(hidden.dtype), hidden)

    def apply_to_sum(
        self,
        index: int,
        hidden: Float[Tensor, "token d"],
        residual: Float[Tensor, "token d"],
        *,
        gated: bool = False,
    ) -> tuple[Float[Tensor, "token d"], Float[Tensor, "token d"]]:
        """The same where a server keeps the residual stream as two summands, to be added later.

        Steered tokens get the whole in the first and nothing in the second, so that the sum is
        rounded once, after steering; the others keep both bit for bit.
        """
        moved = self._moved(index, hidden.float() + residual.float(), gated)
        on = self._on(hidden)
        return (
            _where(on, moved.to(hidden.dtype), hidden),
            _where(on, torch.zeros_like(residual), residual),
        )

    def _known(self, tokens: int) -> _Step | None:
        """The step under way, unless it is recorded or padded beyond its tokens."""
        step = self._step
        return step if step is not None and step.tokens == tokens else None

    def _on(self, hidden: Tensor) -> Tensor | None:
        """Which tokens are steered; None if all are."""
        n = hidden.shape[0]
        step = self._known(n)
        return (self.rows[:n] > 0)[:, None] if step is None else step.on

    def _moved(self, index: int, plain: Float[Tensor, "token d"], gated: bool) -> Tensor:
        n = plain.shape[0]
        step = self._known(n)
        share = self.shares[:n, None] if self.always or self.sharing else None
        if step is not None and not (self.projecting or self.turning):
            weights = step.weights[index]
            weights = weights if share is None else weights * share
            if gated and self.open is not None and self.gating:
                weights = weights * self.open[:n, None]
            return torch.addmm(plain, weights, self._vectors[index])
        rows, vectors = self.rows[:n], self.vectors[index]
        weights = self.shift[index][rows] if step is None else step.weights[index]
        if self.scale is not None and (self.always or self.projecting):
            projections = plain @ vectors.T
            weights = weights + _each(projections, self.scale[index][rows])
        if gated and self.open is not None and (self.always or self.gating):
            weights = weights * self.open[:n, None]
        if self.keeps is None or not (self.always or self.turning):
            return plain + _mixed(weights if share is None else weights * share, vectors)
        keeps = self.keeps[rows][:, None]
        if share is not None:  # what keeps its norm goes its share of the way when it has turned
            weights, share = weights * torch.where(keeps, 1.0, share), torch.where(keeps, share, 1)
        moved = plain + _mixed(weights, vectors)
        norms = moved.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        turned = moved * (plain.norm(dim=-1, keepdim=True) / norms)
        moved = torch.where(keeps, turned, moved)
        if share is None:
            return moved
        return torch.where(share == 1, moved, plain + share * (moved - plain))

    def set_rows(
        self, rows: Int[Tensor, " token"], shares: Float[Tensor, " token"] | None = None
    ) -> None:
        """Say which slot each token of the next step belongs to; 0 = leave it alone.

        Args:
            rows: Slots.
            shares: How far each token goes from what it is to what it would become; None: all the
                way.
        """
        self.rows.zero_()  # a step may be padded beyond its tokens
        self.rows[: len(rows)].copy_(rows, non_blocking=True)
        if self.open is not None:
            self.open.fill_(1.0)
        if self.sharing:
            self.shares.fill_(1.0)
        self.sharing = shares is not None
        if shares is not None:
            self.shares[: len(shares)].copy_(shares, non_blocking=True)
        self.busy = True
        if not self.always:  # code that runs anew looks its weights up once, not at every place
            now = self.rows[: len(rows)]
            on = None if bool((rows > 0).all()) else (now > 0)[:, None]
            self._step = _Step(len(rows), self.shift[:, now].unbind(), on)

    def rest(self) -> None:
        """Say that no token of the next step is steered."""
        if self.busy:
            self.rows.zero_()
            self.busy, self._step = False, None


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of code that runs anew.

    Attributes:
        tokens: How many there are.
        weights: Of the vectors, for every place.
        on: Which are steered; None if all are.
    """

    tokens: int
    weights: Sequence[Float[Tensor, "token vector"]]
    on: Tensor | None


def _where(on: Tensor | None, moved: Tensor, plain: Tensor) -> Tensor:
    return moved if on is None else torch.where(on, moved, plain)


def _each(
    projections: Float[Tensor, "token vector"], scale: Float[Tensor, "token vector vector"]
) -> Float[Tensor, "token vector"]:
    """A small matrix per token."""
    if _fuses(projections.shape[1]):
        return _summed(projections, scale.unbind(1))
    return torch.einsum("ti,tij->tj", projections, scale)


def _mixed(
    weights: Float[Tensor, "token vector"], vectors: Float[Tensor, "vector d"]
) -> Float[Tensor, "token d"]:
    return _summed(weights, vectors.unbind()) if _fuses(len(vectors)) else weights @ vectors


def _fuses(terms: int) -> bool:
    return torch.compiler.is_compiling() and terms <= UNROLLED


def _summed(weights: Float[Tensor, "token term"], terms: Sequence[Tensor]) -> Tensor:
    products = (weights[:, i, None] * term for i, term in enumerate(terms))
    return functools.reduce(torch.add, products)
