"""The layer sweep: how well a linear probe tells the emotions apart at each site.

The penalty of each site is chosen by cross-validation over scenarios of the fitting rows; the
accuracy is that on rows nobody chose anything by: the split ``test``, or, where a corpus has none,
the outer folds of a nested cross-validation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, DataError, unknown
from affectlens.core.places import Site
from affectlens.core.progress import progress
from affectlens.core.settings import from_options, identity
from affectlens.core.statistics import bootstrap_interval
from affectlens.probes.crossval import Scored, cross_validate, make_design
from affectlens.probes.estimators import PROBES
from affectlens.probes.folds import group_ids
from affectlens.probes.settings import SweepOptions, SweepSettings

logger = logging.getLogger(__name__)

EMBEDDINGS = Site(0, "resid_pre")
_ELEMENTS_AT_ONCE = 1 << 26  # activations held in memory
_TENSORS = ("accuracy", "ci", "cv_accuracy", "weights", "bias")


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Displayed):
    """Probes of every site.

    Attributes:
        sites: Along the axis ``site``.
        classes: Along the axis ``class``.
        accuracy: On held-out rows.
        ci: 95 % bootstrap interval of it, over scenarios.
        cv_accuracy: On the folds, for each of `penalties`.
        penalty: The value of scikit-learn's C chosen for each site.
        penalties: The values tried.
        folds: How many.
        held_out: ``"test split"`` or ``"nested cross-validation"``.
        counts: Rows fitted and held out: ``{"fit": ..., "held_out": ...}``.
        majority: Accuracy of always saying the most frequent class.
        weights: Probe weights in raw activations, fitted on all fitting rows.
        bias: Their intercepts.
        provenance: What made it.
    """

    sites: tuple[Site, ...]
    classes: tuple[str, ...]
    accuracy: Float[Tensor, " site"]
    ci: Float[Tensor, "site 2"]
    cv_accuracy: Float[Tensor, "site penalty"]
    penalty: tuple[float, ...]
    penalties: tuple[float, ...]
    folds: int
    held_out: str
    counts: dict[str, int]
    majority: float
    weights: Float[Tensor, "site class d"]
    bias: Float[Tensor, "site class"]
    provenance: Provenance

    @property
    def best(self) -> Site:
        """The site with the best cross-validated accuracy (never chosen on held-out rows)."""
        scores = self.cv_accuracy.amax(1).tolist()
        candidates = [i for i, site in enumerate(self.sites) if site != EMBEDDINGS] or [0]
        return self.sites[max(candidates, key=lambda i: scores[i])]

    def logits(self, x: Float[Tensor, "n d"], site: Site | str) -> Float[Tensor, "n class"]:
        """Scores of raw activations under the probe of a site."""
        i = self._index(site)
        return x.to(self.weights.dtype) @ self.weights[i].T + self.bias[i]

    def to_dict(self) -> dict[str, Any]:
        """Plain figures for JSON: the best layer, its accuracy, and every site in turn."""
        best = self._index(self.best)
        embeddings = self.sites.index(EMBEDDINGS) if EMBEDDINGS in self.sites else None
        return {
            "best_layer": self.best.layer,
            "best_site": self.best.hook_name,
            "accuracy": float(self.accuracy[best]),
            "ci": self.ci[best].tolist(),
            "majority": self.majority,
            "embeddings": None if embeddings is None else float(self.accuracy[embeddings]),
            "classes": list(self.classes),
            "held_out": self.held_out,
            "folds": self.folds,
            "counts": dict(self.counts),
            "by_layer": [
                {
                    "layer": site.layer,
                    "site": site.hook_name,
                    "accuracy": float(self.accuracy[i]),
                    "ci": self.ci[i].tolist(),
                    "cv_accuracy": float(self.cv_accuracy[i].max()),
                    "penalty": self.penalty[i],
                }
                for i, site in enumerate(self.sites)
            ],
        }

    def brief(self) -> dict[str, object]:
        """Sites, classes, the best site and its accuracy on held-out rows, model."""
        return {
            "sites": len(self.sites),
            "classes": len(self.classes),
            "best": self.best.hook_name,
            "accuracy": f"{float(self.accuracy[self._index(self.best)]):.3f}",
            "held_out": self.held_out,
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Accuracy, interval and penalty of each site."""
        return [
            {"low": one["ci"][0], "high": one["ci"][1]}
            | {name: value for name, value in one.items() if name != "ci"}
            for one in self.to_dict()["by_layer"]
        ]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        extra = {
            "sites": [site.hook_name for site in self.sites],
            "classes": self.classes,
            "penalty": self.penalty,
            "penalties": self.penalties,
            "folds": self.folds,
            "held_out": self.held_out,
            "counts": self.counts,
            "majority": self.majority,
        }
        tensors = {name: getattr(self, name) for name in _TENSORS}
        write_tensors(Path(path), tensors, self.provenance, extra)

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """Read a file of `save`.

        Raises:
            ArtefactError: If it is missing, damaged or inconsistent.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "sweep")
        try:
            tensors = {name: file.tensors[name] for name in _TENSORS}
            loaded = cls(
                sites=tuple(Site.parse(name) for name in file.extra["sites"]),
                classes=tuple(str(name) for name in file.extra["classes"]),
                penalty=tuple(float(c) for c in file.extra["penalty"]),
                penalties=tuple(float(c) for c in file.extra["penalties"]),
                folds=int(file.extra["folds"]),
                held_out=str(file.extra["held_out"]),
                counts={str(k): int(v) for k, v in file.extra["counts"].items()},
                majority=float(file.extra["majority"]),
                provenance=file.provenance,
                **tensors,
            )
        except KeyError as error:
            raise ArtefactError(f"{path} lacks {error}; make the sweep again.") from error
        n, k, c = len(loaded.sites), len(loaded.classes), len(loaded.penalties)
        shapes = {"accuracy": (n,), "ci": (n, 2), "cv_accuracy": (n, c)}
        shapes |= {"weights": (n, k, loaded.weights.shape[-1]), "bias": (n, k)}
        fit = all(tuple(tensors[name].shape) == shape for name, shape in shapes.items())
        if not fit or len(loaded.penalty) != n:
            raise ArtefactError(f"{path}: shapes and labels do not fit; make the sweep again.")
        return loaded

    def _index(self, site: Site | str) -> int:
        site = Site.parse(site) if isinstance(site, str) else site
        if site not in self.sites:
            raise unknown("site", site.hook_name, [s.hook_name for s in self.sites])
        return self.sites.index(site)


def sweep(
    store: ActivationStore,
    *,
    classes: Sequence[str] | None = None,
    position: str | None = None,
    sites: str | Site | Iterable[str | Site] | None = None,
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Fit and score linear probes at every site.

    Args:
        store: Activations with labels. The split ``test`` is held out; the rest is fitted on.
        classes: Labels to tell apart; default: those of the store's label set that occur.
        position: Which position of the store; default: the one that suits its design.
        sites: Which sites; default: all (they must have one width). Capture ``resid_pre@0`` too
            for the embeddings as a baseline.
        options: See `SweepSettings`: probe, penalties, folds, draws, seed.

    Raises:
        DataError: If there are fewer than two classes, or too few scenarios for the folds.
        UnknownNameError: If a probe, class, position, site or option does not exist.
    """
    settings = from_options(SweepSettings, options, "sweep")
    kind, tried = PROBES[settings.probe], settings.tried()
    if not kind.linear:
        raise DataError(
            f"A sweep keeps one weight per feature, and the probe {kind.name} is not linear; "
            "choose a linear one."
        )
    chosen = store.default_position(position)
    wanted = store.default_sites(sites)
    if len({store.width(site) for site in wanted}) > 1:
        kinds = ", ".join(dict.fromkeys(site.kind for site in wanted))
        raise DataError(f"Sites of different width need sweeps apart; choose one of {kinds}.")
    design = make_design(store, classes, chosen, settings.folds, settings.seed)
    step = max(1, _ELEMENTS_AT_ONCE // (len(design.rows) * store.width(wanted[0])))
    parts = list[Scored]()
    with progress("Fitting probes", len(wanted)) as advance:
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            x = torch.stack([store.to_torch(site, chosen)[design.rows] for site in some])
            parts.append(cross_validate(x, design, tried, kind))
            advance(len(some))
    if not all(part.converged for part in parts):
        logger.warning("Some probes did not converge; drop the largest values of C.")
    correct = torch.cat([part.correct for part in parts])
    ci = bootstrap_interval(
        correct.double().numpy(),
        group_ids(design.held_groups).tolist(),
        draws=settings.draws,
        random=torch.Generator().manual_seed(settings.seed),
    )
    return Sweep(
        sites=wanted,
        classes=design.classes,
        accuracy=correct.float().mean(1),
        ci=torch.from_numpy(ci).float(),
        cv_accuracy=torch.cat([part.cv_accuracy for part in parts]),
        penalty=tuple(tried[i] for part in parts for i in part.chosen.tolist()),
        penalties=tried,
        folds=settings.folds,
        held_out="nested cross-validation" if design.nested else "test split",
        counts={"fit": int(design.fit.sum()), "held_out": correct.shape[1]},
        majority=design.majority(),
        weights=torch.cat([part.weights for part in parts]),
        bias=torch.cat([part.bias for part in parts]),
        provenance=Provenance(
            kind="sweep",
            model=store.provenance.model,
            model_name=store.provenance.model_name,
            corpus=store.provenance.corpus,
            parameters={
                **identity(settings),
                "penalties": list(tried),
                "classes": list(design.classes),
                "position": chosen,
                "sites": [site.hook_name for site in wanted],
            },
            inputs={"activations": store.fingerprint},
        ),
    )
