"""Projection: how far a text lies along its own emotion's direction. The weakest task.

A direction is no behaviour: units that write it are found by it whatever the model does with them.
So the directions must be of another corpus than those that ranked the circuit, and what passes here
alone says little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.tasks.base import Floats, Row, TaskKind, Text
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.hooking.hooks import reading
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel

_MAX_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class Projection:
    """The texts of the task, tokenised for one model, and what they are projected on.

    ``m(e) = <h(text in e) - mean over the item's texts of h, v_e - mean of the other v>`` with
    ``h`` the mean over the tokens of the reply (or text) at the site; in units of the residual
    stream. The part of the mean over texts is the centre.

    Attributes:
        emotions: Of texts and directions.
        scenarios: Of each item.
        rows: ``rows[item][emotion]``: token ids before what is read, and of that.
        site: Where it is read.
        contrasts: Of each emotion, its unit vector less the mean of the others'.
    """

    emotions: tuple[str, ...]
    scenarios: tuple[str, ...]
    rows: tuple[tuple[Row, ...], ...]
    site: Site
    contrasts: Float[Tensor, "emotion d_model"]
    name = "projection"

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        corpus: Corpus,
        emotions: Sequence[str],
        *,
        directions: Directions,
        site: Site | str | None = None,
        circuit: Circuit | None = None,
    ) -> Projection:
        """Read texts of complete groups; groups that lack an emotion are left out.

        Args:
            model: Whose template writes the texts.
            corpus: Of replies or texts in groups.
            emotions: Two or more, all of the directions'.
            directions: Of this model, of another corpus than this one and than the circuit's.
            site: One of the directions'; default: the middle one.
            circuit: The one that is to be tested: refused if these directions ranked it.

        Raises:
            MismatchError: If the directions are of another model.
            DataError: If they are not held out, or fewer than two groups are left.
            UnknownNameError: If they lack an emotion or the site.
        """
        directions.provenance.require_model(model.fingerprint, model.name)
        if circuit is not None:
            ranked_by = circuit.provenance.inputs.get("directions")
            if ranked_by == directions.provenance.fingerprint:
                raise DataError(
                    "The circuit was ranked by these very directions, so a projection on them is "
                    "no test; make directions from another corpus."
                )
        if directions.provenance.corpus == corpus.fingerprint:
            raise DataError(
                "The directions were made from the texts of the task; make them from another "
                "corpus."
            )
        where = directions.sites[len(directions.sites) // 2] if site is None else site
        units = torch.stack([directions.vector(e, where) for e in emotions]).float()
        others = (units.sum(0) - units) / max(len(emotions) - 1, 1)
        by_group: dict[Any, dict[str, Record]] = {}
        for record in corpus:
            if record.emotion in emotions:
                by_group.setdefault(record.group_key, {})[str(record.emotion)] = record
        complete = [told for told in by_group.values() if len(told) == len(emotions)]
        if len(complete) < 2 or len(emotions) < 2:
            raise DataError(
                "Projection needs two emotions and two groups or more with a text in each of "
                f"{', '.join(emotions)}; this corpus has {len(complete)}."
            )
        return cls(
            tuple(emotions),
            tuple(told[emotions[0]].scenario for told in complete),
            tuple(tuple(_row(model, told[e]) for e in emotions) for told in complete),
            directions.sites[directions.site_index(where)],
            units - others,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of emotions, rows, site and directions."""
        vectors = self.contrasts.numpy().tobytes()
        return fingerprint(self.name, self.emotions, self.rows, self.site.hook_name, vectors)

    def __len__(self) -> int:
        return len(self.scenarios)

    def first(self, items: int) -> Projection:
        """The task on its first groups only."""
        return replace(self, scenarios=self.scenarios[:items], rows=self.rows[:items])

    def centre(self, model: LanguageModel) -> Float[Floats, "item emotion"]:
        """The mean text of each item on each emotion's contrast."""
        return self._read(model, self.emotions).mean(axis=1)

    def margins(
        self,
        model: LanguageModel,
        emotions: Sequence[str] | None = None,
        centre: Float[Floats, "item emotion"] | None = None,
    ) -> Float[Floats, "item emotion"]:
        """See `affectlens.circuits.tasks.Task.margins`."""
        wanted = self.emotions if emotions is None or centre is None else tuple(emotions)
        read = self._read(model, wanted)
        own = np.einsum("iee->ie", read)
        found = own - (read.mean(axis=1) if centre is None else centre)
        for e, emotion in enumerate(self.emotions):
            if emotions is not None and emotion not in emotions:
                found[:, e] = np.nan
        return found

    def texts(self, emotion: str) -> tuple[Text, ...]:
        """Of each item its text in the emotion, with weight 1."""
        column = self._column(emotion)
        return tuple(((1.0, item[column]),) for item in self.rows)

    def objective(
        self, model: LanguageModel, emotion: str, rows: Sequence[tuple[float, Row]]
    ) -> Float[Tensor, ""]:
        """See `affectlens.circuits.tasks.Task.objective`."""
        means = _means(model, self.site, [row for _, row in rows])
        weights = torch.tensor([weight for weight, _ in rows])
        return (weights * (means @ self.contrasts[self._column(emotion)])).sum()

    def _column(self, emotion: str) -> int:
        if emotion not in self.emotions:
            raise DataError(
                f"The task has no texts for {emotion}; it has {', '.join(self.emotions)}."
            )
        return self.emotions.index(emotion)

    @torch.inference_mode()
    def _read(
        self, model: LanguageModel, contexts: Sequence[str]
    ) -> Float[Floats, "item context emotion"]:
        """Every text on every contrast; NaN in other contexts than these."""
        columns = [self._column(emotion) for emotion in contexts]
        places = [(item, c) for item in range(len(self)) for c in columns]
        rows = [self.rows[item][c] for item, c in places]
        lengths = [len(before) + len(told) for before, told in rows]
        mixed = model.padding.upto(max(lengths)).right
        limits = BatchLimits(_MAX_TOKENS, mixed=mixed)
        found = np.full((len(self), len(self.emotions), len(self.emotions)), np.nan)
        for batch in cut(shortest_first(lengths), lengths, limits):
            means = _means(model, self.site, [rows[i] for i in batch])
            for i, values in zip(batch, (means @ self.contrasts.T).double().numpy(), strict=True):
                found[places[i]] = values
        return found


def _means(model: LanguageModel, site: Site, rows: Sequence[Row]) -> Float[Tensor, "row d_model"]:
    """Mean over what is read of each row, in one batch padded on the right; float32, on the CPU."""
    ids, mask = model.encode_batch([[*before, *told] for before, told in rows], side="right")
    base = model.anatomy.base
    seen = list[Tensor]()
    with reading(model.anatomy, [site], lambda _site, value: seen.append(value)):
        base(
            input_ids=ids,
            attention_mask=mask,
            **accepted(base, position_ids=model.position_ids(mask)),
        )
    told = [
        seen[0][i, len(before) : len(before) + len(own)].float().mean(0).cpu()
        for i, (before, own) in enumerate(rows)
    ]
    return torch.stack(told)


def _row(model: LanguageModel, record: Record) -> Row:
    row = model.encode_chat(record.chat, add_generation_prompt=False)
    start, end = row.spans["reply" if "reply" in row.spans else "text"]
    return row.ids[:start], row.ids[start:end]


PROJECTION = TaskKind(
    "projection",
    "how far does a text lie along a held-out direction of its emotion? the weakest",
    "replies",
    Projection.of,
)
