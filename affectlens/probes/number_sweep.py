"""A layer sweep of a number: how well a probe predicts it at each site."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError
from affectlens.core.places import Site, site_index
from affectlens.probes.fitting import EMBEDDINGS
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import Scores, scores

_TENSORS = ("cv_r2", "weights", "bias")


@dataclass(frozen=True, eq=False, repr=False)
class NumberSweep(Displayed):
    """Probes of every site that predict a number.

    Attributes:
        target: What they predict.
        sites: Along the axis ``site``.
        cv_r2: R² on the folds, for each of `penalties`.
        penalty: The value of scikit-learn's C (``1 / alpha``) chosen for each site.
        penalties: The values tried.
        folds: How many.
        held_out: ``"test split"`` or ``"nested cross-validation"``.
        counts: Rows fitted and held out: ``{"fit": ..., "held_out": ...}``.
        weights: Probe weights in raw activations, fitted on all fitting rows.
        bias: Their intercepts.
        held: What the probes say of each held-out row.
        provenance: What made it.
    """

    target: str
    sites: tuple[Site, ...]
    cv_r2: Float[Tensor, "site penalty"]
    penalty: tuple[float, ...]
    penalties: tuple[float, ...]
    folds: int
    held_out: str
    counts: dict[str, int]
    weights: Float[Tensor, "site d"]
    bias: Float[Tensor, " site"]
    held: HeldOut
    provenance: Provenance

    @cached_property
    def scores(self) -> Scores:
        """Pearson's r, concordance and R² on held-out rows, with intervals over scenarios."""
        seed, draws = (int(self.provenance.parameters[name]) for name in ("seed", "draws"))
        return scores(self.held, draws=draws, random=torch.Generator().manual_seed(seed))

    @property
    def best(self) -> Site:
        """The site with the best cross-validated R² (never chosen on held-out rows)."""
        found = self.cv_r2.amax(1).tolist()
        candidates = [i for i, site in enumerate(self.sites) if site != EMBEDDINGS] or [0]
        return self.sites[max(candidates, key=lambda i: found[i])]

    def predict(self, x: Float[Tensor, "n d"], site: Site | str) -> Float[Tensor, " n"]:
        """The number of raw activations under the probe of a site.

        Raises:
            UnknownNameError: If the site was not swept.
        """
        i = site_index(self.sites, site)
        return x.to(self.weights.dtype) @ self.weights[i] + self.bias[i]

    def to_dict(self) -> dict[str, Any]:
        """Plain figures for JSON: the best layer, its scores, and every site in turn."""
        best = self.sites.index(self.best)
        return {
            "target": self.target,
            "best_layer": self.best.layer,
            "best_site": self.best.hook_name,
            "held_out": self.held_out,
            "folds": self.folds,
            "counts": dict(self.counts),
            "scores": self.scores.rows(best),
            "by_layer": [
                {
                    "layer": site.layer,
                    "site": site.hook_name,
                    "cv_r2": float(self.cv_r2[i].max()),
                    "penalty": self.penalty[i],
                    "scores": self.scores.rows(i),
                }
                for i, site in enumerate(self.sites)
            ],
        }

    def brief(self) -> dict[str, object]:
        """Target, sites, the best site and Pearson's r there, model."""
        best = self.sites.index(self.best)
        return {
            "target": self.target,
            "sites": len(self.sites),
            "best": self.best.hook_name,
            "pearson": f"{self.scores['pearson'][best]:.3f}",
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row per site and score."""
        return [
            {"layer": site.layer, "site": site.hook_name, **row}
            for i, site in enumerate(self.sites)
            for row in self.scores.rows(i)
        ]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        names = ("target", "penalty", "penalties", "folds", "held_out", "counts")
        extra = {name: getattr(self, name) for name in names} | self.held.facts()
        extra["sites"] = [site.hook_name for site in self.sites]
        tensors = {name: getattr(self, name) for name in _TENSORS} | self.held.tensors()
        write_tensors(Path(path), tensors, self.provenance, extra)

    @classmethod
    def load(cls, path: str | Path) -> NumberSweep:
        """Read a file of `save`.

        Raises:
            ArtefactError: If it is missing, damaged or inconsistent.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "number_sweep")
        try:
            held = HeldOut.read(file.tensors, file.extra, ())
            tensors = {name: file.tensors[name] for name in _TENSORS}
            facts = file.extra
            sites = tuple(Site.parse(name) for name in facts["sites"])
            fit = [len(t) == len(sites) for t in tensors.values()]
            if not all(fit):
                raise ArtefactError(f"{path}: shapes and labels do not fit; make it again.")
            return cls(
                target=str(facts["target"]),
                sites=sites,
                penalty=tuple(float(c) for c in facts["penalty"]),
                penalties=tuple(float(c) for c in facts["penalties"]),
                folds=int(facts["folds"]),
                held_out=str(facts["held_out"]),
                counts={str(k): int(v) for k, v in facts["counts"].items()},
                held=held,
                provenance=file.provenance,
                **tensors,
            )
        except KeyError as error:
            raise ArtefactError(f"{path} lacks {error}; make the sweep again.") from error
