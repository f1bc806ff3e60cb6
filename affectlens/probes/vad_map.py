"""Valence, arousal and dominance read off a model: ridge maps of every layer, fitted on ratings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.emotions import DIMENSIONS
from affectlens.core.errors import ArtefactError, DataError, unknown
from affectlens.core.places import Site, site_index
from affectlens.core.statistics import times_drawn
from affectlens.probes.estimators.ridge import fit_ridge
from affectlens.probes.reading import plain_corpus

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel


PENALTIES: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Tried at every site and for every dimension; times the rows, of standardised activations."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
_TENSORS = ("weights", "bias", "penalty", "tuned", "pearson", "ci", "r2")


@dataclass(frozen=True, eq=False, repr=False)
class VadMap(Displayed):
    """Linear maps from activations to ratings, one per site and dimension.

    Attributes:
        sites: Along the axis ``site``.
        position: Where in a text is read.
        weights, bias: In the units of the activations; they give ratings on the corpus's scale.
        penalty: Chosen on the split ``tune``.
        tuned: Pearson correlation with the ratings there, by which the best site is chosen.
        pearson: The same on the split ``test``, which decided nothing.
        ci: Its 95 % interval over scenarios.
        r2: Share of the variance of the ratings explained there.
        scale: Lowest and highest rating.
        provenance: Model, corpus, settings.
    """

    sites: tuple[Site, ...]
    position: str
    weights: Float[Tensor, "site 3 d_model"]
    bias: Float[Tensor, "site 3"]
    penalty: Float[Tensor, "site 3"]
    tuned: Float[Tensor, "site 3"]
    pearson: Float[Tensor, "site 3"]
    ci: Float[Tensor, "site 3 2"]
    r2: Float[Tensor, "site 3"]
    scale: tuple[float, float]
    provenance: Provenance

    def best(self, dimension: str = "valence") -> Site:
        """The site that reads a dimension best on the tuning split.

        Raises:
            UnknownNameError: If there is no such dimension.
        """
        return self.sites[int(self.tuned[:, _dimension(dimension)].argmax())]

    def brief(self) -> dict[str, object]:
        """Model, sites, and how well each dimension is read at its best site."""
        found = {
            name: f"r {self._at(name)[0]:.3f} ({self._at(name)[1]:.3f}-{self._at(name)[2]:.3f})"
            for name in DIMENSIONS
        }
        return {"model": self.provenance.model_name, "sites": len(self.sites), **found}

    def _at(self, dimension: str) -> tuple[float, float, float]:
        site, d = self.sites.index(self.best(dimension)), _dimension(dimension)
        low, high = self.ci[site, d].tolist()
        return float(self.pearson[site, d]), low, high

    def table_rows(self) -> list[dict[str, object]]:
        """A row per site and dimension."""
        return [
            {
                "site": site.hook_name,
                "layer": site.layer,
                "dimension": name,
                "pearson": float(self.pearson[i, d]),
                "low": float(self.ci[i, d, 0]),
                "high": float(self.ci[i, d, 1]),
                "r2": float(self.r2[i, d]),
                "penalty": float(self.penalty[i, d]),
            }
            for i, site in enumerate(self.sites)
            for d, name in enumerate(DIMENSIONS)
        ]

    def read_rows(self, rows: Float[Tensor, "n d_model"], site: Site | str) -> Float[Tensor, "n 3"]:
        """Ratings of activations of a site, from -1 to 1 where the corpus's scale ends.

        Raises:
            UnknownNameError: If there is no map for the site.
        """
        i = site_index(self.sites, site)
        rated = rows.double() @ self.weights[i].double().T + self.bias[i].double()
        low, high = self.scale
        return ((2 * rated - low - high) / (high - low)).float()

    def read(
        self, model: LanguageModel, texts: Sequence[str], *, site: Site | str | None = None
    ) -> Float[Tensor, "text 3"]:
        """Valence, arousal and dominance of texts, as the model's activations tell them.

        Args:
            model: The one the map was fitted on.
            texts: Any number.
            site: Where; default: each dimension where it is read best.

        Raises:
            MismatchError: If it is another model.
            DataError: If there is no text.
            UnknownNameError: If there is no map for the site.
        """
        from affectlens.activations import capture

        self.provenance.require_model(model.fingerprint, model.name)
        places = [site or self.best(name) for name in DIMENSIONS]
        wanted = [Site.parse(p) if isinstance(p, str) else p for p in places]
        names = ",".join(dict.fromkeys(place.hook_name for place in wanted))
        store = capture(model, plain_corpus(texts), sites=names, positions=self.position)
        columns = [
            self.read_rows(store.to_torch(place), place)[:, d] for d, place in enumerate(wanted)
        ]
        return torch.stack(columns, dim=1)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        extra = {
            "sites": [site.hook_name for site in self.sites],
            "position": self.position,
            "scale": list(self.scale),
        }
        tensors = {name: getattr(self, name) for name in _TENSORS}
        write_tensors(Path(path), tensors, self.provenance, extra)

    @classmethod
    def load(cls, path: str | Path) -> VadMap:
        """Inverse of `save`.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "vad_map")
        try:
            sites = tuple(Site.parse(name) for name in file.extra["sites"])
            low, high = (float(end) for end in file.extra["scale"])
            position = str(file.extra["position"])
            tensors = {name: file.tensors[name] for name in _TENSORS}
        except (KeyError, ValueError) as error:
            raise ArtefactError(f"{path} lacks {error}; fit the map again.") from error
        if any(len(tensor) != len(sites) for tensor in tensors.values()):
            raise ArtefactError(f"{path}: shapes and sites do not fit; fit the map again.")
        return cls(
            sites=sites,
            position=position,
            scale=(low, high),
            provenance=file.provenance,
            **tensors,
        )


def vad_map(
    source: LanguageModel | ActivationStore,
    corpus: Corpus,
    *,
    sites: str | Site | Iterable[str | Site] | None = None,
    position: str | None = None,
    penalties: Sequence[float] = PENALTIES,
    draws: int = 1000,
    seed: int = 0,
) -> VadMap:
    """Fit ridge maps to rated texts, at every site and for every dimension.

    Fitted on the split ``fit``, the penalty chosen on ``tune``, correlations told on ``test``.

    Args:
        source: A model, whose activations of the corpus are captured in memory (`resid_post` of all
            layers; texts of attention sinks alone, a single token as a rule, are left out); or a
            store of them.
        corpus: Records with ``valence``, ``arousal`` and ``dominance`` in ``meta``, such as
            EmoBank's.
        sites: Which; default: all of the store, or ``resid_post``.
        position: Which position; default: the one that suits the design.
        penalties: Tried, times the number of rows, on standardised activations.
        draws: Bootstrap samples of scenarios.
        seed: Of these.

    Raises:
        DataError: If ratings, splits or rows are missing, or rows are not finite.
        UnknownNameError: If a site or position does not exist.
    """
    ratings = _ratings(corpus)
    low, high = _scale(corpus, ratings)
    if isinstance(source, ActivationStore):
        store = source
    else:
        from affectlens.activations import capture
        from affectlens.activations.readable import readable

        wanted = "resid_post" if sites is None else sites
        corpus = readable(source, corpus)
        store = capture(source, corpus, sites=wanted, positions=position)  # type: ignore[arg-type]
    place = store.default_position(position)
    chosen = store.default_sites(sites)
    ids = store.column("id", place)
    if lacking := [id_ for id_ in ids if id_ not in ratings]:
        raise DataError(f"Row {lacking[0]} of the store is no record of corpus {corpus.name}.")
    y = torch.tensor([ratings[id_] for id_ in ids], dtype=torch.float64)
    splits = np.array(store.column("split", place))
    parts = {name: torch.from_numpy(np.flatnonzero(splits == name)) for name in SPLITS}
    for name, rows in parts.items():
        if len(rows) < 3:
            raise DataError(
                f"Corpus {corpus.name} has {len(rows)} rows of the split {name}; a map is fitted "
                "on fit, chosen on tune and tested on test, with three rows of each or more."
            )
    scenarios = np.array(store.column("scenario", place))[parts["test"].numpy()]
    _, cluster = np.unique(scenarios, return_inverse=True)
    times = times_drawn(int(cluster.max()) + 1, draws, seed)[:, cluster]
    found: dict[str, list[Tensor]] = {name: [] for name in _TENSORS}
    for site in chosen:
        x = store.to_torch(site, place).double()
        for name, value in _fitted(x, y, parts, penalties, times).items():
            found[name].append(value)
    return VadMap(
        sites=tuple(chosen),
        position=place,
        scale=(low, high),
        provenance=Provenance(
            kind="vad_map",
            model=store.provenance.model,
            model_name=store.provenance.model_name,
            corpus=corpus.fingerprint,
            parameters={"penalties": list(penalties), "position": place, "draws": draws},
            inputs={"activations": store.fingerprint},
        ),
        **{name: torch.stack(values).float() for name, values in found.items()},
    )


SPLITS = ("fit", "tune", "test")


def _fitted(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n 3"],
    parts: dict[str, Tensor],
    penalties: Sequence[float],
    times: Float[Floats, "draw test"],
) -> dict[str, Tensor]:
    """Of a site: fitted, chosen and tested."""
    fit, tune, test = (parts[name] for name in SPLITS)
    c = [1 / (len(fit) * penalty) for penalty in penalties]
    every = torch.ones(1, len(fit))
    made = fit_ridge(x[fit][None], y[fit], c, n_classes=y.shape[1], weight=every)
    weights, bias = made.weights[0, 0], made.bias[0, 0]  # [penalty, k, d]
    told = torch.einsum("nd,pkd->pnk", x[tune], weights) + bias[:, None]
    errors = (told - y[tune]).square().mean(1)  # [penalty, k]
    best = errors.argmin(0)
    each = torch.arange(y.shape[1])
    w, b = weights[best, each], bias[best, each]
    said, true = x[test] @ w.T + b, y[test]
    draws = torch.from_numpy(times)
    drawn = torch.stack([weighted_pearson(said[:, k], true[:, k], draws) for k in each.tolist()])
    spread = (true - true.mean(0)).square().sum(0)
    return {
        "weights": w,
        "bias": b,
        "penalty": torch.tensor(list(penalties), dtype=torch.float64)[best],
        "tuned": _pearson(x[tune] @ w.T + b, y[tune]),
        "pearson": _pearson(said, true),
        "ci": torch.nanquantile(drawn, torch.tensor([0.025, 0.975], dtype=drawn.dtype), dim=1).T,
        "r2": 1 - (true - said).square().sum(0) / spread,
    }


def weighted_pearson(
    a: Float[Tensor, " n"], b: Float[Tensor, " n"], weight: Float[Tensor, "draw n"]
) -> Float[Tensor, " draw"]:
    """Pearson correlation with each weighting of the rows; NaN where one side is constant."""
    total = weight.sum(1)
    a, b = a - a.mean(), b - b.mean()  # for precision
    mean_a, mean_b = weight @ a / total, weight @ b / total
    covariance = weight @ (a * b) / total - mean_a * mean_b
    spread = (weight @ a.square() / total - mean_a.square()) * (
        weight @ b.square() / total - mean_b.square()
    )
    return torch.where(spread > 1e-18, covariance / spread.clamp_min(1e-18).sqrt(), torch.nan)


def _pearson(a: Float[Tensor, "n k"], b: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    whole = torch.ones(1, len(a), dtype=a.dtype)
    return torch.cat([weighted_pearson(a[:, k], b[:, k], whole) for k in range(a.shape[1])])


def _dimension(name: str) -> int:
    if name not in DIMENSIONS:
        raise unknown("dimension", name, DIMENSIONS)
    return DIMENSIONS.index(name)


def _ratings(corpus: Corpus) -> dict[str, list[float]]:
    try:
        return {r.id: [float(r.meta[name]) for name in DIMENSIONS] for r in corpus}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"Corpus {corpus.name} has records without ratings ({error}); a map is fitted on "
            "records with valence, arousal and dominance in their meta, such as EmoBank's."
        ) from None


def _scale(corpus: Corpus, ratings: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """As the corpus says, or the ends of its ratings."""
    told = corpus.provenance.get("scale")
    if told is None:
        every = [value for row in ratings.values() for value in row]
        told = (min(every), max(every))
    low, high = float(told[0]), float(told[1])
    if not low < high:
        raise DataError(f"All ratings of corpus {corpus.name} are {low:g}; nothing can be fitted.")
    return low, high
