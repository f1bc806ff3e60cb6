"""A layer sweep of labels: how well a probe tells the classes apart at each site."""

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
        held: What the probes say of each held-out row.
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
    held: HeldOut

    @cached_property
    def scores(self) -> Scores:
        """All scores on held-out rows, with intervals drawn as those of the accuracy were."""
        seed = int(self.provenance.parameters.get("seed", 0))
        draws = int(self.provenance.parameters.get("draws", 1000))
        return scores(self.held, draws=draws, random=torch.Generator().manual_seed(seed))

    @property
    def target(self) -> str:
        """What is read."""
        return str(self.provenance.parameters.get("target", "emotion"))

    @property
    def best(self) -> Site:
        """The site with the best cross-validated accuracy (never chosen on held-out rows)."""
        scores = self.cv_accuracy.amax(1).tolist()
        candidates = [i for i, site in enumerate(self.sites) if site != EMBEDDINGS] or [0]
        return self.sites[max(candidates, key=lambda i: scores[i])]

    def logits(self, x: Float[Tensor, "n d"], site: Site | str) -> Float[Tensor, "n class"]:
        """Scores of raw activations under the probe of a site."""
        i = self.index(site)
        return x.to(self.weights.dtype) @ self.weights[i].T + self.bias[i]

    def to_dict(self) -> dict[str, Any]:
        """Plain figures for JSON: the best layer, its accuracy, and every site in turn."""
        best = self.index(self.best)
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
            "accuracy": f"{float(self.accuracy[self.index(self.best)]):.3f}",
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
        tensors = {name: getattr(self, name) for name in _TENSORS} | self.held.tensors()
        write_tensors(Path(path), tensors, self.provenance, extra | self.held.facts())

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
                held=HeldOut.read(file.tensors, file.extra, file.extra["classes"]),
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

    def index(self, site: Site | str) -> int:
        """Place of a site along the axis ``site``.

        Raises:
            UnknownNameError: If the sweep has no such site.
        """
        return site_index(self.sites, site)
