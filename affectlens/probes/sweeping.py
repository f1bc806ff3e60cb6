"""Sweeping a store: how well a probe reads a target at each site.

The penalty of each site is chosen by cross-validation over scenarios of the fitting rows; scores
are those on rows nobody chose anything by: the split ``test``, or, where a corpus has none, the
outer folds of a nested cross-validation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Unpack, overload

import torch

from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.errors import unknown
from affectlens.core.places import Site
from affectlens.core.settings import from_options, identity
from affectlens.core.statistics import bootstrap_interval
from affectlens.probes.crossval import Scored
from affectlens.probes.design import Design, make_design
from affectlens.probes.estimators import PROBES
from affectlens.probes.fitting import Kept, Rows, fit_sites
from affectlens.probes.folds import group_ids
from affectlens.probes.held_out import HeldOut
from affectlens.probes.number_sweep import NumberSweep
from affectlens.probes.settings import NUMBER_DEFAULTS, SweepOptions, SweepSettings
from affectlens.probes.sweep import Sweep
from affectlens.probes.targets import COLUMNS, Labels, Numbers, store_labels

logger = logging.getLogger(__name__)

Sites = str | Site | Iterable[str | Site] | None


@overload
def sweep(
    store: ActivationStore,
    *,
    target: str | Labels = "emotion",
    classes: Sequence[str] | None = None,
    position: str | None = None,
    sites: Sites = None,
    group: str | Sequence[str] = "scenario",
    kept: Kept | None = None,
    **options: Unpack[SweepOptions],
) -> Sweep: ...


@overload
def sweep(
    store: ActivationStore,
    *,
    target: Numbers,
    classes: None = None,
    position: str | None = None,
    sites: Sites = None,
    group: str | Sequence[str] = "scenario",
    kept: Kept | None = None,
    **options: Unpack[SweepOptions],
) -> NumberSweep: ...


def sweep(
    store: ActivationStore,
    *,
    target: str | Labels | Numbers = "emotion",
    classes: Sequence[str] | None = None,
    position: str | None = None,
    sites: Sites = None,
    group: str | Sequence[str] = "scenario",
    kept: Kept | None = None,
    **options: Unpack[SweepOptions],
) -> Sweep | NumberSweep:
    """Fit and score probes at every site.

    Args:
        store: Activations with labels. The split ``test`` is held out; the rest is fitted on.
        target: What is read: a column of the store, or labels or numbers of every row of the
            position, from `affectlens.probes.target_of`.
        classes: Labels of a column to tell apart; default: those of the store's label set that
            occur.
        position: Which position of the store; default: the one that suits its design.
        sites: Which sites; default: all (they must have one width). Capture ``resid_pre@0`` too
            for the embeddings as a baseline.
        group: Column of the store, or a name per row: rows that share it are never in both fitting
            and held-out rows, and intervals draw them together.
        kept: Where finished sites are kept.
        options: See `SweepSettings`: probe, penalties, folds, draws, seed. Numbers are read by
            ridge unless a probe is named.

    Returns:
        A `Sweep` of labels, a `NumberSweep` of numbers.

    Raises:
        DataError: If there are fewer than two classes, too few scenarios for the folds, or a site
            at which all rows are the same.
        UnknownNameError: If a probe, column, class, position, site or option does not exist.
    """
    if isinstance(target, Numbers):
        options = {**NUMBER_DEFAULTS, **options}
    settings = from_options(SweepSettings, options, "sweep")
    probe, tried = PROBES[settings.probe], settings.tried()
    rows = Rows(store, store.default_position(position), store.default_sites(sites))
    wanted = (
        store_labels(store, target, rows.position, classes) if isinstance(target, str) else target
    )
    design = make_design(
        wanted,
        store.column("split", rows.position),
        groups_of(store, group, rows.position),
        settings.folds,
        settings.seed,
    )
    scored = fit_sites(rows, design, tried, probe, kept)
    if not bool(scored.converged.all()):
        logger.warning("Some probes did not converge; drop the largest values of C.")
    parameters = {
        **identity(settings),
        "penalties": list(tried),
        "classes": list(design.classes),
        "position": rows.position,
        "sites": [site.hook_name for site in rows.sites],
        **({} if wanted.name == "emotion" else {"target": wanted.name}),
        **({} if group == "scenario" else {"group": group if isinstance(group, str) else "own"}),
    }
    provenance = Provenance(
        kind="sweep" if design.classes else "number_sweep",
        model=store.provenance.model,
        model_name=store.provenance.model_name,
        corpus=store.provenance.corpus,
        parameters=parameters,
        inputs={
            "activations": store.fingerprint,
            **({} if isinstance(target, str) else {"target": fingerprint(list(wanted.values))}),
            **({} if isinstance(group, str) else {"groups": fingerprint(list(group))}),
        },
    )
    held = HeldOut.of(design, store.column("id", rows.position), scored.outputs, probe.link)
    found = _facts(design, scored, held, tried, rows)
    if not design.classes:
        return NumberSweep(
            target=wanted.name,
            cv_r2=scored.cv,
            weights=scored.weights[:, 0],
            bias=scored.bias[:, 0],
            provenance=provenance,
            **found,
        )
    right = held.good()
    ci = bootstrap_interval(
        right.double().numpy(),
        group_ids(design.held_groups).tolist(),
        draws=settings.draws,
        random=torch.Generator().manual_seed(settings.seed),
    )
    return Sweep(
        classes=design.classes,
        accuracy=right.mean(1),
        ci=torch.from_numpy(ci).float(),
        cv_accuracy=scored.cv,
        majority=design.majority(),
        weights=scored.weights,
        bias=scored.bias,
        provenance=provenance,
        **found,
    )


def groups_of(
    store: ActivationStore, group: str | Sequence[str], position: str | None = None
) -> list[str]:
    """Group of every row of a position.

    Raises:
        UnknownNameError: If the store has no such column.
    """
    if not isinstance(group, str):
        return list(group)
    if group not in (*COLUMNS, "id"):
        raise unknown("column to group by", group, (*COLUMNS, "id"))
    return [str(value) for value in store.column(group, position)]


def _facts(
    design: Design, scored: Scored, held: HeldOut, tried: tuple[float, ...], rows: Rows
) -> dict[str, Any]:
    """What both kinds of sweep say of themselves."""
    return {
        "sites": rows.sites,
        "penalty": tuple(tried[i] for i in scored.chosen.tolist()),
        "penalties": tried,
        "folds": design.folds,
        "held_out": design.held_out,
        "counts": {"fit": int(design.fit.sum()), "held_out": len(held)},
        "held": held,
    }
