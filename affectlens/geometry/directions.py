"""Emotion directions of every site, with their natural doses and how reliable they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, unknown
from affectlens.core.places import Site, site_index
from affectlens.geometry.displacements import make_estimation
from affectlens.geometry.estimators import group_centred
from affectlens.geometry.grouping import bootstraps, count_rows, resamplings

__all__ = ["Directions", "bootstrap_cosine", "directions", "group_centred"]

_TENSORS = ("vectors", "norms")


@dataclass(frozen=True, eq=False, repr=False)
class Directions(Displayed):
    """One direction per site and emotion, in the raw residual stream.

    Attributes:
        emotions: Names along the axis ``emotion``.
        sites: Along the axis ``site``.
        vectors: Unit vectors.
        norms: Natural doses: how far the emotion moves the activation along its direction.
        estimator: How they were made (see `affectlens.geometry.estimators`).
        split_half: Cosine between the directions of two random halves of the groups, mean over
            several splits; None if it was not measured for these vectors (refined ones).
        provenance: What made them.
    """

    emotions: tuple[str, ...]
    sites: tuple[Site, ...]
    vectors: Float[Tensor, "site emotion d_model"]
    norms: Float[Tensor, "site emotion"]
    estimator: str
    split_half: Float[Tensor, "site emotion"] | None
    provenance: Provenance

    def site_index(self, site: Site | str) -> int:
        """Where a site lies along the axis ``site``.

        Raises:
            UnknownNameError: If there are no directions for it.
        """
        return site_index(self.sites, site)

    def emotion_index(self, emotion: str) -> int:
        """Where an emotion lies along the axis ``emotion``.

        Raises:
            UnknownNameError: If there is no direction for it.
        """
        if emotion not in self.emotions:
            raise unknown("emotion", emotion, self.emotions)
        return self.emotions.index(emotion)

    def vector(self, emotion: str, site: Site | str) -> Float[Tensor, " d_model"]:
        """Unit vector of an emotion at a site (or its hook name)."""
        return self.vectors[self.site_index(site), self.emotion_index(emotion)]

    def norm(self, emotion: str, site: Site | str) -> float:
        """Natural dose of an emotion at a site (or its hook name)."""
        return float(self.norms[self.site_index(site), self.emotion_index(emotion)])

    def centroid(self) -> Float[Tensor, "site emotion d_model"]:
        """Vectors of their natural length."""
        return self.vectors * self.norms[..., None]

    def cosine_matrix(self, site: Site | str) -> Float[Tensor, "emotion emotion"]:
        """Cosines between the emotions at a site.

        Centred directions of E emotions average about -1/(E - 1) off the diagonal by construction.
        """
        vectors = self.vectors[self.site_index(site)]
        return vectors @ vectors.T

    def brief(self) -> dict[str, object]:
        """Emotions, sites, width, estimator, model."""
        return {
            "emotions": len(self.emotions),
            "sites": len(self.sites),
            "d_model": self.vectors.shape[-1],
            "estimator": self.estimator,
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Natural dose and split-half cosine (None if not measured) of each site and emotion."""
        halves = self.split_half
        return [
            {
                "site": site.hook_name,
                "layer": site.layer,
                "emotion": emotion,
                "norm": float(self.norms[i, e]),
                "split_half": None if halves is None else float(halves[i, e]),
            }
            for i, site in enumerate(self.sites)
            for e, emotion in enumerate(self.emotions)
        ]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        extra = {
            "emotions": self.emotions,
            "sites": [site.hook_name for site in self.sites],
            "estimator": self.estimator,
        }
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.split_half is not None:
            tensors["split_half"] = self.split_half
        write_tensors(Path(path), tensors, self.provenance, extra)

    @classmethod
    def load(cls, path: str | Path) -> Directions:
        """Read a file of `save`.

        Raises:
            ArtefactError: If it is missing, damaged or inconsistent.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "directions")
        try:
            emotions = tuple(str(e) for e in file.extra["emotions"])
            sites = tuple(Site.parse(name) for name in file.extra["sites"])
            vectors, norms = (file.tensors[name] for name in _TENSORS)
            halves = file.tensors.get("split_half")
            estimator = str(file.extra["estimator"])
        except KeyError as error:
            raise ArtefactError(f"{path} lacks {error}; make the directions again.") from error
        shape = (len(sites), len(emotions))
        measured = norms if halves is None else halves
        if vectors.ndim != 3 or not vectors.shape[:2] == norms.shape == measured.shape == shape:
            raise ArtefactError(f"{path}: shapes and labels do not fit; make the directions again.")
        return cls(emotions, sites, vectors, norms, estimator, halves, file.provenance)


def directions(
    store: ActivationStore | Mapping[Site, Float[Tensor, "group emotion d"]],
    *,
    emotions: Sequence[str] | None = None,
    estimator: str = "group_centred",
    position: str | None = None,
    sites: str | Site | Iterable[str | Site] | None = None,
    clean: bool | ActivationStore = False,
    splits: int = 10,
    seed: int = 0,
) -> Directions:
    """Estimate directions from the rows of a store, all of them: select what may be used first.

    ``group_centred``: with ``h[g,e]`` the row of group g (content and valence) under emotion e,
    ``c[e] = mean_g (h[g,e] - mean_e' h[g,e'])`` minus its mean over emotions; the direction is
    ``c[e] / ||c[e]||`` and the natural dose ``||c[e]||``.

    Args:
        store: Activations with labels, or per site a tensor of complete groups.
        emotions: Which, in the order of the axis ``emotion``; default: all of the store's label
            set but the neutral tone (of tensors: our six).
        estimator: A name in `affectlens.geometry.estimators.ESTIMATORS`.
        position: Which position of the store; default: the one that suits its design.
        sites: Which sites; default: all (they must have one width).
        clean: Project out the leading principal components of neutral rows that explain half of
            their variance: of this store's neutral rows, or of another store's rows.
        splits: Random splits of the groups for `Directions.split_half`.
        seed: Of those splits.

    Raises:
        DataError: If groups lack emotions (or neutral rows) that the estimator needs, an emotion
            is absent, or a site shows no difference at all.
        UnknownNameError: If an estimator, position, site or emotion does not exist.
    """
    made = make_estimation(store, emotions, estimator, position, sites)
    weight = resamplings(len(made.grouping.keys), splits, seed)
    moved = (made.displacements(site, weight, clean) for site in made.sites)
    provenance = made_by(
        made.store.provenance,
        made.store.fingerprint,
        clean,
        emotions=list(made.emotions),
        estimator=estimator,
        position=made.position,
        sites=[site.hook_name for site in made.sites],
        splits=splits,
        seed=seed,
        groups=len(made.grouping.keys),
        rows=count_rows(made.store.column("split", made.position)),
    )
    return assemble(moved, made.emotions, made.sites, estimator, provenance)


def made_by(
    activations: Provenance, fingerprint: str, clean: bool | ActivationStore, **parameters: Any
) -> Provenance:
    """What makes directions: activations (and which of them: their fingerprint), and how."""
    inputs = {"activations": fingerprint}
    if isinstance(clean, ActivationStore):
        inputs["neutral"] = clean.fingerprint
    return Provenance(
        kind="directions",
        model=activations.model,
        model_name=activations.model_name,
        corpus=activations.corpus,
        parameters=parameters | {"clean": bool(clean)},
        inputs=inputs,
    )


def assemble(
    moved: Iterable[Float[Tensor, "resample emotion d"]],
    emotions: Sequence[str],
    sites: Sequence[Site],
    estimator: str,
    provenance: Provenance,
) -> Directions:
    """Directions from the displacements of each site: of all groups, then of halves in pairs."""
    vectors, norms, halves = list[Tensor](), list[Tensor](), list[Tensor]()
    for of_site in moved:
        full, first, second = of_site[0], of_site[1::2], of_site[2::2]
        vectors.append(normalize(full, dim=-1))
        norms.append(full.norm(dim=-1))
        cosines = cosine_similarity(first, second, dim=-1)
        halves.append(cosines.mean(0) if len(first) else torch.zeros(len(emotions)))
    return Directions(
        emotions=tuple(emotions),
        sites=tuple(sites),
        vectors=torch.stack(vectors).float(),
        norms=torch.stack(norms).float(),
        estimator=estimator,
        split_half=torch.stack(halves).float(),
        provenance=provenance,
    )


def bootstrap_cosine(
    store: ActivationStore | Mapping[Site, Float[Tensor, "group emotion d"]],
    *,
    emotions: Sequence[str] | None = None,
    estimator: str = "group_centred",
    position: str | None = None,
    sites: str | Site | Iterable[str | Site] | None = None,
    clean: bool | ActivationStore = False,
    draws: int = 100,
    seed: int = 0,
) -> Float[Tensor, "draw site emotion"]:
    """Cosine of each direction with the one from groups drawn with replacement.

    Arguments and errors are those of `directions`; ``draws`` is how often to draw.
    """
    made = make_estimation(store, emotions, estimator, position, sites)
    n_groups = len(made.grouping.keys)
    weight = torch.cat([torch.ones(1, n_groups), bootstraps(n_groups, draws, seed)])
    cosines = list[Tensor]()
    for site in made.sites:
        moved = made.displacements(site, weight, clean)
        cosines.append(cosine_similarity(moved[1:], moved[:1], dim=-1))
    return torch.stack(cosines, dim=1)
