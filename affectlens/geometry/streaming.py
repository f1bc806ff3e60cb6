"""Directions of a corpus of any length, without a stored row.

The estimators whose result is linear in the rows, `STREAMED`, need only the sum of each emotion's
rows, weighted by how often its group is drawn. Those weights follow from the labels, for the full
set, for every half of a split and for every bootstrap draw; so one pass that adds up rows (in
float64) gives what `affectlens.geometry.directions.directions` makes of a store with all of them.

Memory beyond the model: ``8 (1 + 2 splits + draws) (E + 1) d`` bytes per site for E emotions and
width d (0.7 MB at 576 wide with ten splits), ``8 d²`` more per site if ``clean`` is True, and two
bytes per group and resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from affectlens.activations.capture import Sites, prepare
from affectlens.activations.forward.plan import CapturePlan
from affectlens.activations.settings import PassOptions, PassSettings
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.streaming.sum_sinks import row_index
from affectlens.core.artefact import Provenance
from affectlens.core.emotions import NEUTRAL, own_emotions
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.core.settings import from_options
from affectlens.geometry.directions import Directions, assemble, made_by
from affectlens.geometry.displacements import (
    check_groups,
    check_moved,
    check_widths,
    chosen_estimator,
    neutral_basis,
    warn_of_test,
)
from affectlens.geometry.estimators import ESTIMATORS, Estimator, Sums
from affectlens.geometry.group_sums import GroupSink, GroupWeights
from affectlens.geometry.grouping import (
    Grouping,
    bootstraps,
    count_rows,
    group_rows,
    resamplings,
)

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel

STREAMED: tuple[str, ...] = tuple(e.name for e in ESTIMATORS.values() if e.from_sums is not None)
"""Estimators that need no stored rows."""


@dataclass(frozen=True)
class StreamSettings(PassSettings):
    """How a corpus goes through a model, and how directions come of it.

    Attributes:
        clean: See `affectlens.geometry.directions.directions`; True needs room for one covariance
            per site.
        splits: Random splits of the groups for `Directions.split_half`.
        seed: Of those splits, and of bootstrap draws.
    """

    clean: bool | ActivationStore = False
    splits: int = 10
    seed: int = 0


class StreamOptions(PassOptions, total=False):
    """Keywords for `StreamSettings`, which says what each does."""

    clean: bool | ActivationStore
    splits: int
    seed: int


@dataclass(frozen=True, eq=False)
class GroupSums:
    """The rows of a corpus added up: all that the estimators in `STREAMED` need.

    Attributes:
        emotions: In the order of the axis ``emotion``.
        sites: Which sites.
        position: Where the rows were read.
        grouping: Which texts belong together.
        sums: By site; resamplings are all groups, the halves of each split, the bootstrap draws.
        size: Root mean square length of the rows, by site.
        bases: What ``clean`` projects out, ``[d, k]`` by site; empty if nothing.
        draws: How many bootstrap draws of the groups.
        settings: How they were drawn, cleaned and read.
        rows: How many rows of each split of the corpus.
        activations: What made the rows.
    """

    emotions: tuple[str, ...]
    sites: tuple[Site, ...]
    position: str
    grouping: Grouping
    sums: Mapping[Site, Sums]
    size: Mapping[Site, float]
    bases: Mapping[Site, Float[Tensor, "d k"]]
    draws: int
    settings: StreamSettings
    rows: Mapping[str, int]
    activations: Provenance

    def directions(self, estimator: str = "group_centred") -> Directions:
        """The same as `affectlens.geometry.directions.directions` of the stored rows.

        Raises:
            DataError: If the estimator needs the rows, or emotions or neutral texts that groups
                lack, or a site shows no difference at all.
            UnknownNameError: If there is no such estimator.
        """
        method = self._checked(estimator)
        used = 1 + 2 * self.settings.splits
        moved = (self._moved(site, method)[:used] for site in self.sites)
        provenance = made_by(
            self.activations,
            self.activations.fingerprint,
            self.settings.clean,
            emotions=list(self.emotions),
            estimator=estimator,
            position=self.position,
            sites=[site.hook_name for site in self.sites],
            splits=self.settings.splits,
            seed=self.settings.seed,
            groups=len(self.grouping.keys),
            rows=dict(self.rows),
        )
        return assemble(moved, self.emotions, self.sites, estimator, provenance)

    def bootstrap_cosine(
        self, estimator: str = "group_centred"
    ) -> Float[Tensor, "draw site emotion"]:
        """The same as `affectlens.geometry.directions.bootstrap_cosine` of the stored rows.

        Raises:
            DataError, UnknownNameError: As `directions`; also if there are no draws.
        """
        method = self._checked(estimator)
        if not self.draws:
            raise DataError("No groups were drawn; ask for group_sums(..., draws=100).")
        cosines = list[Tensor]()
        for site in self.sites:
            moved = self._moved(site, method)
            drawn = moved[1 + 2 * self.settings.splits :]
            cosines.append(cosine_similarity(drawn, moved[:1], dim=-1).float())
        return torch.stack(cosines, dim=1)

    def _checked(self, estimator: str) -> Estimator:
        method = _streamed(estimator, self.emotions)
        check_groups(self.grouping, method)
        return method

    def _moved(self, site: Site, method: Estimator) -> Float[Tensor, "resample emotion d"]:
        assert method.from_sums is not None
        moved = method.from_sums(self.sums[site])
        if site in self.bases:
            basis = self.bases[site].to(moved.dtype)
            moved = moved - (moved @ basis) @ basis.T
        check_moved(moved[0], self.size[site], site, self.emotions)
        return moved


def stream_directions(
    model: LanguageModel,
    corpus: Corpus,
    *,
    estimator: str = "group_centred",
    emotions: Sequence[str] | None = None,
    position: str | None = None,
    sites: Sites = "resid_post",
    **options: Unpack[StreamOptions],
) -> Directions:
    """`affectlens.geometry.directions.directions` of a corpus, without storing its activations.

    The result is that of ``directions(capture(model, corpus, ...), ...)`` up to rounding, with the
    same provenance.

    Args:
        model: From `affectlens.load_model`.
        corpus: Records, all of which are used: filter first.
        estimator: A name in `STREAMED`.
        emotions: Which, in the order of the axis ``emotion``; default: all of the corpus's label
            set but the neutral tone.
        position: See `affectlens.activations.positions`; default: the one that suits the design.
        sites: See `affectlens.core.places.expand_sites`; they must have one width.
        **options: The fields of `StreamSettings`: ``clean``, ``splits``, ``seed``, and those of
            `affectlens.activations.PassSettings`.

    Raises:
        DataError: As `directions` and `capture`; also if the estimator needs every row.
        UnknownNameError: If an estimator, site, position, emotion or option does not exist.
    """
    sums = group_sums(
        model,
        corpus,
        estimator=estimator,
        emotions=emotions,
        position=position,
        sites=sites,
        **options,
    )
    return sums.directions(estimator)


def group_sums(
    model: LanguageModel,
    corpus: Corpus,
    *,
    estimator: str | None = None,
    emotions: Sequence[str] | None = None,
    position: str | None = None,
    sites: Sites = "resid_post",
    draws: int = 0,
    **options: Unpack[StreamOptions],
) -> GroupSums:
    """One pass for several estimators, and for the bootstrap.

    Args:
        model, corpus, emotions, position, sites: See `stream_directions`.
        estimator: One whose needs to check before the pass; None leaves that to the methods.
        draws: Bootstrap draws of the groups, for `GroupSums.bootstrap_cosine`.
        **options: See `stream_directions`.

    Raises:
        DataError, UnknownNameError: As `stream_directions`.
    """
    settings = from_options(StreamSettings, options, "streaming")
    emotions = own_emotions(corpus.label_set) if emotions is None else emotions
    method = _streamed(estimator or "group_centred", emotions)
    prepared = prepare(model, corpus, sites=sites, positions=position, settings=settings)
    plan, records = prepared.plan, prepared.plan.texts.records
    where = _one_position(plan)
    check_widths(plan.widths)
    grouping = group_rows(
        [r.emotion for r in records],
        [r.group for r in records],
        [r.valence for r in records],
        emotions,
    )
    if estimator is not None:
        check_groups(grouping, method)
    n_groups = len(grouping.keys)
    seed, clean = settings.seed, settings.clean
    halves = resamplings(n_groups, settings.splits, seed)
    draw = torch.cat([halves, bootstraps(n_groups, draws, seed)])
    weights = GroupWeights.of(grouping, len(records), len(emotions), draw)
    neutral = np.array([record.emotion == NEUTRAL for record in records])
    bases: dict[Site, Tensor] = {}
    if isinstance(clean, ActivationStore):
        bases = {site: neutral_basis(clean.to_torch(site)) for site in plan.sites}
    elif clean and neutral.sum() < 2:
        raise DataError(
            "Cleaning needs neutral rows, at least two; add some to the corpus, or do not clean."
        )
    warn_of_test([record.split for record in records])
    sink = GroupSink(row_index(plan), weights, neutral if clean is True else None)
    prepared.run(sink, description="Summing activations")
    if clean is True:
        bases = {site: sink.basis((site, where)) for site in plan.sites}
    sums = {site: sink.sums[site, where] for site in plan.sites}
    return GroupSums(
        emotions=tuple(emotions),
        sites=plan.sites,
        position=where,
        grouping=grouping,
        sums={site: weights.sums(found.total) for site, found in sums.items()},
        size={site: float(found.square / len(records)) ** 0.5 for site, found in sums.items()},
        bases=bases,
        draws=draws,
        settings=settings,
        rows=count_rows(record.split for record in records),
        activations=prepared.provenance,
    )


def _streamed(name: str, emotions: Sequence[str]) -> Estimator:
    method = chosen_estimator(name, emotions)
    if method.from_sums is None:
        raise DataError(
            f"Estimator {name} is no weighted sum of rows; capture them and use directions(), or "
            f"choose one of: {', '.join(STREAMED)}."
        )
    return method


def _one_position(plan: CapturePlan) -> str:
    """The position to read, which must give one row per text."""
    names = ", ".join(plan.rows)
    if len(plan.positions) > 1:
        raise DataError(f"Directions are read at one position; choose one of {names}.")
    if not all(position.pooled for position in plan.positions):
        raise DataError(
            f"Position {names} has a row per token; directions need one per text, for example last "
            "or mean:reply."
        )
    return names
