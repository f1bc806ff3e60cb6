"""Fitting one probe, and what its probabilities are worth, on groups that are kept apart.

Three kinds of groups: those the probe is fitted on (its penalty chosen on their folds), those its
calibration and label sets are fitted on, and those both are judged by: the test split, or, where a
store has none, each half of the calibration's groups judged by what the other half says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import Site
from affectlens.core.settings import from_options, identity
from affectlens.probes.calibration import CALIBRATIONS, CalibrationKind, Quality, conformal, quality
from affectlens.probes.calibration.base import linked
from affectlens.probes.estimators import LABELS, PROBES, Fitted, ProbeKind
from affectlens.probes.folds import assign_folds, group_ids, require_apart
from affectlens.probes.probe import Probe
from affectlens.probes.rows import SiteRows
from affectlens.probes.settings import PENALTIES, each_penalty

TEST, HALVES = "test split", "halves of the calibration's groups"


@dataclass(frozen=True)
class FitSettings:
    """How a probe is fitted and calibrated.

    Attributes:
        probe: A name in `affectlens.probes.PROBES`.
        penalties: Values of scikit-learn's C; the one best on the folds is taken.
        folds: Folds of the groups that are fitted on.
        calibration: A name in `affectlens.probes.calibration.CALIBRATIONS`.
        held_out: Share of the groups outside the test split that the calibration is fitted on.
        seed: Of the groups held out and of the folds.
    """

    probe: str = "logistic"
    penalties: Sequence[float] = PENALTIES
    folds: int = 5
    calibration: str = "temperature"
    held_out: float = 0.25
    seed: int = 0


class FitOptions(TypedDict, total=False):
    """Keywords for `FitSettings`, which says what each does."""

    probe: str
    penalties: Sequence[float]
    folds: int
    calibration: str
    held_out: float
    seed: int


def fit_probe(
    store: ActivationStore,
    site: str | Site | None = None,
    *,
    classes: Sequence[str] | None = None,
    labels: Mapping[str, Collection[str]] | None = None,
    position: str | None = None,
    **options: Unpack[FitOptions],
) -> Probe:
    """Fit a probe at one site, calibrate it, and say how good its probabilities are.

    Args:
        store: Activations with labels.
        site: Where; default: the only site there is.
        classes: Labels to tell apart; default: those that occur.
        labels: Of records by id, any number each, where a text may have several; they are told from
            the rest one by one (``probe="one_vs_rest"``).
        position: Which position of the store; default: the one that suits its design, or every
            token (``all``) for a probe that reads them.
        options: See `FitSettings`.

    Raises:
        DataError: If there are too few classes, or groups, or rows of a class.
        UnknownNameError: If a site, class, position, kind or option does not exist.
    """
    settings = from_options(FitSettings, options, "fit_probe")
    kind, calibration = PROBES[settings.probe], CALIBRATIONS[settings.calibration]
    tried = each_penalty(settings.penalties)
    if not 0 < settings.held_out < 1:
        raise DataError(f"held_out is a share between 0 and 1, not {settings.held_out}.")
    where = _site(store, site)
    chosen = _position(store, position, kind)
    rows = SiteRows.of(store, where, chosen, kind)
    known = _truth(store, rows, classes, labels, kind)
    rows, truth, names = rows.keep(known.kept), known.truth, known.classes
    parts = _parted(rows, settings)
    exclusive = labels is None
    final, penalty = _fitted(rows, truth, parts, kind, tried)
    scores = rows.logits(final)[0, 0].double()
    fit, apart, judged = parts.fit, parts.apart, parts.judged
    _require_classes(truth[apart], names)
    how = calibration.fit(scores[apart], truth[apart], kind.link, exclusive)
    claims = linked(scores, kind.link, exclusive)
    own = [rows.groups[int(i)] for i in apart.nonzero()[:, 0]]
    sets = conformal(claims[apart], truth[apart].argmax(1), own) if exclusive else None
    if bool(judged.any()):
        told = how.probabilities(scores[judged], kind.link, exclusive), judged
    else:
        told = _by_halves(scores, truth, apart, rows.groups, (kind, calibration, exclusive))
    qualities = [
        _quality(p, truth[mask], rows.groups, mask, exclusive)
        for p, mask in ((claims[told[1]], told[1]), told)
    ]
    return Probe(
        kind=settings.probe,
        site=where,
        position=chosen,
        classes=names,
        exclusive=exclusive,
        fitted=final,
        calibration=how,
        conformal=sets,
        before=qualities[0],
        after=qualities[1],
        facts={
            "penalty": penalty,
            "fitted": int(fit.sum()),
            "calibrated": int(apart.sum()),
            "judged": int(told[1].sum()),
            "judged_on": TEST if bool(judged.any()) else HALVES,
        },
        provenance=Provenance(
            "probe",
            model=store.provenance.model,
            model_name=store.provenance.model_name,
            corpus=store.provenance.corpus,
            parameters={
                **identity(settings),
                "penalties": list(tried),
                "classes": list(names),
                "position": chosen,
                "site": where.hook_name,
                "labels": None if labels is None else {k: sorted(v) for k, v in labels.items()},
            },
            inputs={"activations": store.fingerprint},
        ),
    )


@dataclass(frozen=True, eq=False)
class _Known:
    """Which texts have a label, and which: 0 or 1 for each class."""

    kept: Bool[Tensor, " text"]
    truth: Float[Tensor, "kept class"]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Parts:
    """Which texts are fitted on, calibrated on and judged by."""

    fit: Bool[Tensor, " text"]
    apart: Bool[Tensor, " text"]
    judged: Bool[Tensor, " text"]
    fold: Int[Tensor, " text"]
    folds: int


def _site(store: ActivationStore, site: str | Site | None) -> Site:
    found = store.default_sites(site)
    if len(found) != 1:
        raise unknown("site (one is read)", site or "", [one.hook_name for one in found])
    return found[0]


def _position(store: ActivationStore, position: str | None, kind: ProbeKind) -> str:
    every = [name for name in store.positions if name.split(":")[0] == "all"]
    if not kind.tokens:
        chosen = store.default_position(position)
        if chosen in every:
            raise DataError(
                f"The probe {kind.name} reads one row per text, {chosen} has one per token; choose "
                "another position, or the probe attention."
            )
        return chosen
    chosen = position or next(iter(every), "all")
    if chosen not in every:
        raise DataError(
            f"The probe {kind.name} reads every token; capture the position all, which this store "
            f"lacks ({', '.join(store.positions)})."
        )
    return chosen


def _truth(
    store: ActivationStore,
    rows: SiteRows,
    classes: Sequence[str] | None,
    labels: Mapping[str, Collection[str]] | None,
    kind: ProbeKind,
) -> _Known:
    if labels is None:
        told = [None if name is None else {name} for name in rows.emotions]
    elif LABELS not in kind.targets:
        fit = [name for name, one in PROBES.items() if LABELS in one.targets]
        raise DataError(
            f"The probe {kind.name} gives a text one class, and these have several labels; choose "
            f"{', '.join(fit)}."
        )
    else:
        told = [None if labels.get(i) is None else set(labels[i]) for i in rows.ids]
    found = {name for own in told if own for name in own}
    order = store.label_set if labels is None else sorted(found)
    names = tuple(classes if classes is not None else (name for name in order if name in found))
    for name in names:
        if name not in found:
            raise unknown("class", name, sorted(found))
    if len(set(names)) < len(names) or len(names) < 2:
        raise DataError(f"A probe needs at least two different classes, not {list(names)}.")
    if labels is None:  # a text of another class plays no part; one without any label is a "no"
        told = [own if own and own & set(names) else None for own in told]
    kept = torch.tensor([own is not None for own in told])
    truth = [[float(name in own) for name in names] for own in told if own is not None]
    return _Known(kept, torch.tensor(truth, dtype=torch.float64), names)


def _parted(rows: SiteRows, settings: FitSettings) -> _Parts:
    test = torch.tensor([split == "test" for split in rows.splits])
    judged = test if not bool(test.all()) else torch.zeros_like(test)
    require_apart(rows.groups, judged)
    numbers = group_ids(rows.groups)
    left = numbers[~judged].unique()
    many = max(2, round(settings.held_out * len(left)))
    if len(left) - many < settings.folds:
        raise DataError(
            f"There are {len(left)} groups to fit and calibrate on; {many} are held out, and "
            f"{settings.folds} folds need as many of the others. Give more groups, or fewer folds."
        )
    drawn = left[torch.randperm(len(left), generator=torch.Generator().manual_seed(settings.seed))]
    apart = torch.isin(numbers, drawn[:many])
    fit = ~judged & ~apart
    fold = torch.full((len(fit),), -1)
    own = [g for g, used in zip(rows.groups, fit, strict=True) if used]
    fold[fit] = assign_folds(group_ids(own), settings.folds, settings.seed)
    return _Parts(fit, apart, judged, fold, settings.folds)


def _fitted(
    rows: SiteRows,
    truth: Float[Tensor, "text class"],
    parts: _Parts,
    kind: ProbeKind,
    tried: Sequence[float],
) -> tuple[Fitted, float]:
    """The probe of all rows that are fitted on, its penalty the one best on their folds."""
    exclusive = LABELS not in kind.targets or bool((truth.sum(1) == 1).all())
    y = truth.argmax(1) if exclusive else truth
    without = [(parts.fit & (parts.fold != f)).float() for f in range(parts.folds)]
    weight = torch.stack([*without, parts.fit.float()])
    fits = rows.fit(kind, y, truth.shape[1], tried, weight)
    said = rows.logits(fits)  # [resample, penalty, text, class]
    if exclusive:
        good = (said.argmax(-1) == y).double()
    else:
        t = truth.expand(said.shape)
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        good = -loss(said.double(), t, reduction="none").sum(-1)
    of_fold = torch.stack([parts.fold == f for f in range(parts.folds)])
    sums = (good[: parts.folds] * of_fold[:, None]).sum((0, 2))
    best = int(sums.argmax())
    own = {name: t[:, -1:, best : best + 1].contiguous() for name, t in fits.parts().items()}
    return kind.restore(own), tried[best]


def _require_classes(truth: Float[Tensor, "text class"], names: Sequence[str]) -> None:
    missing = [n for n, found in zip(names, truth.sum(0).tolist(), strict=True) if not found]
    if missing:
        raise DataError(
            f"{missing[0]} does not occur in the groups held out for the calibration; hold out "
            "more of them (held_out), or leave the class out."
        )


def _by_halves(
    scores: Tensor,
    truth: Tensor,
    apart: Tensor,
    groups: Sequence[str],
    how: tuple[ProbeKind, CalibrationKind, bool],
) -> tuple[Tensor, Tensor]:
    """Probabilities of rows held out, by the calibration of the other half of their groups.

    Rows are left out where the other half lacks a class.
    """
    kind, calibration, exclusive = how
    numbers = group_ids(groups)
    own = numbers[apart].unique()
    first = torch.isin(numbers, own[: (len(own) + 1) // 2])
    found, seen = torch.zeros_like(scores), torch.zeros_like(apart)
    for mine, other in ((apart & first, apart & ~first), (apart & ~first, apart & first)):
        if bool((truth[other].sum(0) > 0).all()):
            fitted = calibration.fit(scores[other], truth[other], kind.link, exclusive)
            found[mine] = fitted.probabilities(scores[mine], kind.link, exclusive)
            seen |= mine
    if not bool(seen.any()):
        raise DataError(
            "The groups held out are too few to judge the calibration by: no half of them has "
            "every class. Hold out more of them (held_out)."
        )
    return found[seen], seen


def _quality(
    p: Tensor, truth: Tensor, groups: Sequence[str], mask: Tensor, exclusive: bool
) -> Quality:
    own = [groups[int(i)] for i in mask.nonzero()[:, 0]]
    return quality(np.asarray(p), np.asarray(truth), own, exclusive=exclusive)
