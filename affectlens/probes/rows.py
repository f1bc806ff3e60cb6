"""The rows of one site of a store as texts: one row each, or all their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.places import Site
from affectlens.probes.estimators import Fitted, ProbeKind
from affectlens.probes.estimators.moments import row_moments

_BATCH = 4096


@dataclass(frozen=True, eq=False)
class SiteRows:
    """Texts with labels, and where their rows lie.

    Attributes:
        store: The activations.
        site: Where they were read.
        position: Which tokens.
        ids, emotions, groups, splits: Of each text.
        rows: Numbers of rows in the store, text after text.
        texts: Number of the text of each row; None where each text has one row.
    """

    store: ActivationStore
    site: Site
    position: str
    ids: tuple[str, ...]
    emotions: tuple[str | None, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    rows: Int[Tensor, " row"]
    texts: Int[Tensor, " row"] | None

    @classmethod
    def of(cls, store: ActivationStore, site: Site, position: str, kind: ProbeKind) -> SiteRows:
        """All texts of a position; of tokens the first of each is left out, an attention sink."""
        names = ("id", "emotion", "scenario", "split", "token")
        table: dict[str, list[Any]] = store.labels(list(names), position).to_pydict()
        rows = torch.arange(len(table["id"]))
        first = {id_: i for i, id_ in reversed(list(enumerate(table["id"])))}
        texts = None
        if kind.tokens:
            rows = rows[torch.tensor(table["token"]) > 0]
            kept = dict.fromkeys(table["id"][int(i)] for i in rows)
            first = {id_: first[id_] for id_ in kept}
            number = {id_: i for i, id_ in enumerate(first)}
            texts = torch.tensor([number[table["id"][int(i)]] for i in rows])
        at = list(first.values()) if kind.tokens else list(range(len(table["id"])))
        return cls(
            store,
            site,
            position,
            *(tuple(table[name][i] for i in at) for name in names[:4]),
            rows=rows,
            texts=texts,
        )

    def keep(self, texts: Bool[Tensor, " text"]) -> SiteRows:
        """Some of the texts."""
        columns = ("ids", "emotions", "groups", "splits")
        changed: dict[str, Any] = {
            name: tuple(v for v, k in zip(getattr(self, name), texts, strict=True) if k)
            for name in columns
        }
        if self.texts is None:
            return replace(self, **changed, rows=self.rows[texts])
        own = texts[self.texts]
        number = texts.long().cumsum(0) - 1
        return replace(self, **changed, rows=self.rows[own], texts=number[self.texts[own]])

    def whole(self) -> Float[Tensor, "row d"]:
        """All rows, in memory."""
        return self.store.to_torch(self.site, self.position, self.rows.numpy())

    def chunks(self) -> Iterator[tuple[Float[Tensor, "m d"], Int[Tensor, " m"]]]:
        """All rows, some at a time, with their numbers among these."""
        for part in torch.arange(len(self.rows)).split(_BATCH):
            rows = self.rows[part].numpy()
            yield self.store.to_torch(self.site, self.position, rows), part

    def fit(
        self,
        kind: ProbeKind,
        y: Tensor,
        n_classes: int,
        penalties: Sequence[float],
        weight: Float[Tensor, "resample text"],
    ) -> Fitted:
        """Fit every resample and penalty; kinds that need moments alone see the rows stream by."""
        if kind.from_moments is not None and not y.is_floating_point():
            target = torch.nn.functional.one_hot(y, n_classes).double()
            moments = row_moments(self.chunks(), target, weight)
            return kind.from_moments(moments, torch.tensor(list(penalties)).double(), True)
        more = {} if self.texts is None else {"texts": self.texts}
        x = self.whole()[None]
        return kind.fit(x, y, penalties, n_classes=n_classes, weight=weight, tol=1e-3, **more)

    def logits(self, fitted: Fitted) -> Float[Tensor, "resample penalty text class"]:
        """Scores of all texts."""
        if self.texts is not None:
            return fitted.logits(self.whole()[None], texts=self.texts)[0]
        return torch.cat([fitted.logits(x[None])[0] for x, _ in self.chunks()], dim=2)
