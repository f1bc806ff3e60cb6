"""What streaming statistics give: moments of every site, per class, and the largest rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, DataError, unknown
from affectlens.core.places import Site, site_index

ClassKey = tuple[str | None, ...]
_ALWAYS = ("mean", "deviation", "row_rms")
_TOP = ("top_values", "top_records", "top_tokens")
_OPTIONAL = ("scatter", *_TOP)


@dataclass(frozen=True)
class Example:
    """One of the rows with the largest values of a unit.

    Attributes:
        value: The activation.
        record: Id of the record.
        token: The token, counted from the text's start (the first one of a mean).
    """

    value: float
    record: str
    token: int


@dataclass(frozen=True, eq=False)
class SiteMoments:
    """Sums over the rows of one site and position, on the CPU.

    Attributes:
        mean: Mean of each class, float64.
        deviation: Sum of squared deviations from it.
        row_rms: Sum over rows of the RMS over units.
        scatter: Sums of products of deviations from the class mean, of all classes together or of
            each; None if not asked for.
        top_values: Largest values of each unit, float32, ties in corpus order.
        top_records: Where their records are in `Moments.records`.
        top_tokens: Their (first) tokens.
    """

    mean: Float[Tensor, "class width"]
    deviation: Float[Tensor, "class width"]
    row_rms: Float[Tensor, " class"]
    scatter: Float[Tensor, "width width"] | Float[Tensor, "class width width"] | None = None
    top_values: Float[Tensor, "k width"] | None = None
    top_records: Int[Tensor, "k width"] | None = None
    top_tokens: Int[Tensor, "k width"] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Moments(Displayed):
    """Statistics of the rows of a corpus at some sites and positions.

    Where a method takes ``of``, that is a class: a label, or a tuple of labels in the order of
    `by`; None means all rows together. Where it takes ``position``, None means the only one.

    Attributes:
        sites: Which sites.
        positions: Which positions.
        by: Columns of labels that make the classes; empty if there is one class.
        classes: Labels of each class, in order of appearance; a class may have no rows.
        counts: Rows per class, by position.
        sums: By site and position.
        records: Ids of the records that occur among the largest rows.
        facts: What is said of the corpus (design, texts skipped and cut).
        provenance: What made it.
    """

    sites: tuple[Site, ...]
    positions: tuple[str, ...]
    by: tuple[str, ...]
    classes: tuple[ClassKey, ...]
    counts: Mapping[str, Int[Tensor, " class"]]
    sums: Mapping[tuple[Site, str], SiteMoments]
    records: tuple[str, ...]
    facts: Mapping[str, Any]
    provenance: Provenance

    def brief(self) -> dict[str, object]:
        """Sites, positions, classes, rows at the first position, model."""
        return {
            "sites": len(self.sites),
            "positions": "+".join(self.positions),
            "classes": len(self.classes),
            "rows": self.count(position=self.positions[0]),
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Rows counted in each class at each position."""
        return [
            {
                **dict(zip(self.by, labels, strict=True)),
                "position": position,
                "rows": int(self.counts[position][c]),
            }
            for position in self.positions
            for c, labels in enumerate(self.classes)
        ]

    def count(self, of: str | ClassKey | None = None, *, position: str | None = None) -> int:
        """How many rows.

        Raises:
            UnknownNameError: If there is no such class or position (as everywhere below).
        """
        counts = self.counts[self._position(position)]
        return int(counts.sum() if of is None else counts[self._class(of)])

    def mean(
        self, site: Site | str, of: str | ClassKey | None = None, *, position: str | None = None
    ) -> Float[Tensor, " width"]:
        """Mean of each unit, float64.

        Raises:
            DataError: If the class has no rows (as everywhere below).
        """
        return self._pooled(site, position, of)[1]

    def means(self, site: Site | str, *, position: str | None = None) -> Float[Tensor, "class w"]:
        """Mean of every class, in the order of `classes`; of one without rows, zeros."""
        return self._sums(site, position)[0].mean

    def variance(
        self,
        site: Site | str,
        of: str | ClassKey | None = None,
        *,
        position: str | None = None,
        ddof: int = 0,
    ) -> Float[Tensor, " width"]:
        """``sum_i (x[i] - mean)² / (n - ddof)`` of each unit, float64."""
        n, _, deviation = self._pooled(site, position, of)
        return deviation / _degrees(n, ddof)

    def rms(
        self, site: Site | str, of: str | ClassKey | None = None, *, position: str | None = None
    ) -> Float[Tensor, " width"]:
        """``sqrt(mean_i x[i]²)`` of each unit, float64."""
        n, mean, deviation = self._pooled(site, position, of)
        return (mean.square() + deviation / n).sqrt()

    def row_rms(
        self, site: Site | str, of: str | ClassKey | None = None, *, position: str | None = None
    ) -> float:
        """Mean over rows of the RMS over units: σ, the unit in which pushes are measured.

        Source: arXiv 2510.11328 §6 (there of the residual at a sublayer).
        """
        n, _, _ = self._pooled(site, position, of)
        total = self._sums(site, position)[0].row_rms
        return float(total.sum() if of is None else total[self._class(of)]) / n

    def covariance(
        self,
        site: Site | str,
        of: str | ClassKey | None = None,
        *,
        position: str | None = None,
        ddof: int = 0,
    ) -> Float[Tensor, "width width"]:
        """``sum_i (x[i] - mean)(x[i] - mean)' / (n - ddof)``, float64.

        Raises:
            DataError: If covariances (of single classes) were not asked for.
        """
        n, mean, _ = self._pooled(site, position, of)
        sums, counts, scatter = *self._sums(site, position), self._scatter(site, position)
        if of is None:
            away = sums.mean - mean
            between = (away * counts[:, None]).T @ away
            within = scatter if scatter.ndim == 2 else scatter.sum(0)
            return (within + between) / _degrees(n, ddof)
        if scatter.ndim == 3:
            scatter = scatter[self._class(of)]
        elif len(self.classes) > 1:
            raise DataError(
                "Only the covariance of all rows and that within classes were kept; ask for "
                "moments(..., class_covariance=True)."
            )
        return scatter / _degrees(n, ddof)

    def within_covariance(
        self, site: Site | str, *, position: str | None = None, ddof: int = 0
    ) -> Float[Tensor, "width width"]:
        """Covariance around the mean of each row's class, ``S_w`` of discriminant analysis.

        ``sum_i (x[i] - mean[class i])(...)' / (n - ddof)``, float64.

        Raises:
            DataError: If covariances were not asked for.
        """
        n, _, _ = self._pooled(site, position, None)
        scatter = self._scatter(site, position)
        return (scatter if scatter.ndim == 2 else scatter.sum(0)) / _degrees(n, ddof)

    def top(
        self, site: Site | str, unit: int, *, position: str | None = None
    ) -> tuple[Example, ...]:
        """The rows with the largest values of a unit, largest first, equal ones in corpus order.

        Raises:
            DataError: If none were kept.
            UnknownNameError: If there is no such unit.
        """
        sums, _ = self._sums(site, position)
        values, records, tokens = sums.top_values, sums.top_records, sums.top_tokens
        if values is None or records is None or tokens is None:
            raise DataError("No examples were kept; ask for moments(..., top_k=20).")
        if not 0 <= unit < values.shape[1]:
            raise unknown("unit", unit, ["0", "...", str(values.shape[1] - 1)])
        columns = zip(*(x[:, unit].tolist() for x in (values, records, tokens)), strict=True)
        return tuple(Example(value, self.records[i], token) for value, i, token in columns)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file.

        Raises:
            ArtefactError: If it cannot be written.
        """
        tensors = {f"{position}/count": counts for position, counts in self.counts.items()}
        for (site, position), sums in self.sums.items():
            for name in (*_ALWAYS, *_OPTIONAL):
                if getattr(sums, name) is not None:
                    tensors[f"{position}/{site.hook_name}/{name}"] = getattr(sums, name)
        extra = {
            "sites": [site.hook_name for site in self.sites],
            "positions": self.positions,
            "by": self.by,
            "classes": self.classes,
            "records": self.records,
            "facts": dict(self.facts),
        }
        write_tensors(Path(path), tensors, self.provenance, extra)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read a file of `save`.

        Raises:
            ArtefactError: If it is missing, damaged or inconsistent.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "moments")
        try:
            sites = tuple(Site.parse(name) for name in file.extra["sites"])
            positions = tuple(str(name) for name in file.extra["positions"])
            classes = tuple(tuple(key) for key in file.extra["classes"])
            found = cls(
                sites=sites,
                positions=positions,
                by=tuple(file.extra["by"]),
                classes=classes,
                counts={p: file.tensors[f"{p}/count"] for p in positions},
                sums={(s, p): _read_sums(file.tensors, s, p) for s in sites for p in positions},
                records=tuple(file.extra["records"]),
                facts=file.extra["facts"],
                provenance=file.provenance,
            )
        except KeyError as error:
            raise ArtefactError(f"{path} lacks {error}; make the moments again.") from error
        n = len(classes)
        fit = all(counts.shape == (n,) for counts in found.counts.values())
        if not (fit and all(_fits(sums, n, len(found.records)) for sums in found.sums.values())):
            raise ArtefactError(f"{path}: shapes and labels do not fit; make the moments again.")
        return found

    def _position(self, position: str | None) -> str:
        if position is None and len(self.positions) == 1:
            return self.positions[0]
        if position not in self.positions:
            raise unknown("position", position or "", self.positions)
        return position

    def _class(self, of: str | ClassKey) -> int:
        key = of if isinstance(of, tuple) else (of,)
        if key not in self.classes:
            names = [", ".join(map(str, name)) for name in self.classes]
            raise unknown("class", ", ".join(map(str, key)), names)
        return self.classes.index(key)

    def _sums(self, site: Site | str, position: str | None) -> tuple[SiteMoments, Tensor]:
        site = self.sites[site_index(self.sites, site)]
        chosen = self._position(position)
        return self.sums[site, chosen], self.counts[chosen].double()

    def _scatter(self, site: Site | str, position: str | None) -> Tensor:
        scatter = self._sums(site, position)[0].scatter
        if scatter is None:
            raise DataError("No covariance was kept of this site; ask for moments(covariance=...).")
        return scatter

    def _pooled(
        self, site: Site | str, position: str | None, of: str | ClassKey | None
    ) -> tuple[float, Float[Tensor, " width"], Float[Tensor, " width"]]:
        """Rows, mean, and sum of squared deviations, of one class or of all."""
        sums, counts = self._sums(site, position)
        if of is not None:
            i = self._class(of)
            if not counts[i]:
                raise DataError(f"There are no rows of {of} at this position.")
            return float(counts[i]), sums.mean[i], sums.deviation[i]
        n = float(counts.sum())
        mean = counts @ sums.mean / n
        return n, mean, sums.deviation.sum(0) + counts @ (sums.mean - mean).square()


def _degrees(n: float, ddof: int) -> float:
    if n <= ddof:
        raise DataError(f"Variances with ddof={ddof} need more than {ddof} rows; there are {n:g}.")
    return n - ddof


def _read_sums(tensors: Mapping[str, Tensor], site: Site, position: str) -> SiteMoments:
    start = f"{position}/{site.hook_name}"
    kept: dict[str, Any] = {name: tensors[f"{start}/{name}"] for name in _ALWAYS}
    kept |= {name: tensors.get(f"{start}/{name}") for name in _OPTIONAL}
    return SiteMoments(**kept)


def _fits(sums: SiteMoments, n: int, n_records: int) -> bool:
    """Whether the tensors of a file fit each other."""
    w = sums.mean.shape[-1]
    expected: dict[str, tuple[int, ...]] = {"mean": (n, w), "deviation": (n, w), "row_rms": (n,)}
    if sums.scatter is not None:
        expected["scatter"] = (w, w) if sums.scatter.ndim == 2 else (n, w, w)
    if sums.top_values is not None:
        expected |= dict.fromkeys(_TOP, (len(sums.top_values), w))
    found = {name: getattr(sums, name) for name in (*_ALWAYS, *_OPTIONAL)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items() if tensor is not None}
    if shapes != expected:
        return False
    top = sums.top_records
    return top is None or not top.numel() or 0 <= int(top.min()) <= int(top.max()) < n_records
