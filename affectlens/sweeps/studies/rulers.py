"""The probe that a study reads with, and the same probe of shuffled labels beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.manifest import LABELS
from affectlens.activations.store.store import ActivationStore
from affectlens.core.errors import DataError
from affectlens.probes.fitting import EMBEDDINGS
from affectlens.probes.held_out import HeldOut
from affectlens.probes.probe import Probe
from affectlens.probes.probe_fit import fit_probe
from affectlens.probes.sweeping import sweep
from affectlens.sweeps.kept import KeptFits, key_of

if TYPE_CHECKING:
    from affectlens.core.places import Site
    from affectlens.sweeps.corpora import Texts
    from affectlens.sweeps.reading import Reader
    from affectlens.sweeps.request import Fitting

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Ruler:
    """Calibrated probes of one site.

    Attributes:
        true: Fitted on the labels.
        shuffled: Fitted on the labels in another order, within groups where these have several.
        held: What the sweep's probes say of rows that they were not fitted on.
        best: Index of the site in it.
        majority: Accuracy of always saying the most frequent class there.
    """

    true: Probe
    shuffled: Probe
    held: HeldOut
    best: int
    majority: float

    @property
    def classes(self) -> tuple[str, ...]:
        """What is told apart."""
        return self.true.classes

    def probabilities(self, x: Float[Tensor, "n d"], *, shuffled: bool = False) -> Floats:
        """Calibrated ones, ``[n, class]``."""
        probe = self.shuffled if shuffled else self.true
        return probe.probabilities(probe.scores(x)).double().numpy()

    def directions(self) -> Float[Floats, "d class"]:
        """Of the classes: the probe's weights less their mean, which no probability depends on."""
        weights = self.true.fitted.parts()["weights"][0, 0, 0].double().numpy()
        return (weights - weights.mean(0)).T


def fit_rulers(reader: Reader, texts: Texts, site: str | None, fitting: Fitting) -> Ruler:
    """Read a corpus, choose a site by cross-validation unless one is named, fit both probes.

    Raises:
        DataError: If several sites are named, or there are too few classes, groups, or rows of a
            class.
    """
    named = [one for one in reader.sites if one != EMBEDDINGS] or [EMBEDDINGS]
    if site is not None and len(named) > 1:
        raise DataError(f"One site is read, and {site} names {len(named)}; choose one of them.")
    store = reader.read(texts.bare, texts.name)
    position = store.default_position()
    (sites,) = reader.kinds().values()  # one, as one site is named, or the residual stream
    groups = texts.groups(reader.request.group, store.column("id", position))
    key = key_of(ruler=store.fingerprint, penalties=fitting.penalties, folds=fitting.folds,
                 seed=fitting.seed, groups=groups)  # fmt: skip
    found = sweep(
        store,
        position=position,
        sites=sites,
        group=groups,
        kept=KeptFits(reader.request.out, key),
        penalties=fitting.penalties,
        folds=fitting.folds,
        draws=fitting.draws,
        seed=fitting.seed,
    )
    chosen = found.best if site is None else named[0]
    wrong = shuffled_labels(store, chosen, position, fitting.seed)
    true, shuffled = (
        fit_probe(
            one,
            chosen,
            classes=found.classes,
            position=position,
            penalties=fitting.penalties,
            folds=fitting.folds,
            seed=fitting.seed,
        )
        for one in (store, wrong)
    )
    return Ruler(true, shuffled, found.held, found.index(chosen), found.majority)


def shuffled_labels(
    store: ActivationStore, site: Site, position: str, seed: int
) -> ActivationStore:
    """The rows of a site with their labels in another order, within groups and splits.

    Where most groups show one label only, labels change places over the whole split.
    """
    table: dict[str, list[Any]] = store.labels(list(LABELS), position).to_pydict()
    random = np.random.default_rng(seed)
    emotions = np.array(table["emotion"], dtype=object)
    groups: dict[tuple[str, str], list[int]] = {}
    splits: dict[str, list[int]] = {}
    for i, (split, group) in enumerate(zip(table["split"], table["group"], strict=True)):
        groups.setdefault((split, group), []).append(i)
        splits.setdefault(split, []).append(i)
    several = sum(len(set(emotions[rows])) > 1 for rows in groups.values())
    for rows in groups.values() if 2 * several >= len(groups) else splits.values():
        emotions[rows] = emotions[random.permutation(rows)]
    labels = {name: values for name, values in table.items() if name != "position"}
    return ActivationStore.of(
        {site: store.to_torch(site, position)},
        {**labels, "emotion": emotions.tolist()},
        position=position,
        design=store.design,
    )
