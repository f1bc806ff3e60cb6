"""Running a sweep over models, corpora and targets; what is finished is kept and not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core.artefact import write_json
from affectlens.pipeline.run import writing_alone
from affectlens.probes.estimators import PROBES
from affectlens.probes.sweeping import sweep
from affectlens.probes.targets import Labels
from affectlens.sweeps.controls import CONTROLS
from affectlens.sweeps.controls.base import Setting
from affectlens.sweeps.corpora import Texts, load_texts
from affectlens.sweeps.kept import KeptFits, KeptRows, key_of
from affectlens.sweeps.learning import learning_curve
from affectlens.sweeps.reading import Reader, slug
from affectlens.sweeps.results import Cell, Row, SweepResults, compare_cells
from affectlens.sweeps.transfer import transfer_rows

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.sweeps.request import SweepRequest

Watch = Callable[[str, str], None]
"""Told of each piece of work its name, and what became of it."""


@dataclass
class _Work:
    """One run: the request, its texts, and what is finished."""

    request: SweepRequest
    texts: list[Texts]
    watch: Watch
    cells: list[Cell] = field(default_factory=list[Cell])
    controls: list[Row] = field(default_factory=list[Row])
    curves: list[Row] = field(default_factory=list[Row])
    transfer: list[Row] = field(default_factory=list[Row])

    @property
    def kept(self) -> KeptRows:
        return KeptRows(self.request.out)

    def of_model(self, name: str) -> None:
        """Everything that is asked of one model."""
        reader = Reader(self.request, name)
        settings: list[Setting] = []
        for texts in self.texts:
            self.watch(f"{name} · {texts.name}", "reading")
            store = reader.read(texts.bare, texts.name)
            for setting in self._settings(reader, texts, store):
                settings.append(setting)
                self._beside(setting)
        if self.request.transfer:
            self._transfer(name, settings)

    def _settings(self, reader: Reader, texts: Texts, store: ActivationStore) -> Iterator[Setting]:
        positions = store.positions
        for position in positions:
            ids = store.column("id", position)
            groups = texts.groups(self.request.group, ids)
            for name in self.request.targets:
                target = texts.target(name, ids, self.request.names)
                for probe in self.request.probes_of(numbers=not isinstance(target, Labels)):
                    for kind, sites in reader.kinds().items():
                        made = Setting(
                            reader=reader,
                            texts=texts,
                            store=store,
                            position=position,
                            sites=sites,
                            target=target,
                            groups=tuple(groups),
                            probe=PROBES[probe],
                            fitting=self.request.fitting,
                        )
                        yield self._swept(made, name, kind)

    def _swept(self, setting: Setting, target: str, kind: str) -> Setting:
        shown = f"{setting.reader.name} · {setting.texts.name} · {target} · {setting.probe.name}"
        self.watch(shown, "fitting")
        found = sweep(
            setting.store,
            target=setting.target,
            position=setting.position,
            sites=setting.sites,
            group=setting.groups,
            kept=KeptFits(self.request.out, setting.key),
            **setting.options,
        )
        file = f"probes/{slug(setting.reader.name)}-{slug(setting.texts.name)}-{setting.key[:8]}"
        cell = Cell(
            model=setting.reader.name,
            corpus=setting.texts.name,
            target=target,
            probe=setting.probe.name,
            position=setting.position,
            kind=kind,
            sweep=found,
            n_layers=setting.reader.model.n_layers,
            parameters=int(setting.reader.model.hf.num_parameters()),
            file=f"{file}.safetensors",
        )
        found.save(self.request.out / cell.file)
        self.cells.append(cell)
        best = next(r for r in cell.rows() if r["chosen"] and r["score"] == cell.measure)
        self.watch(
            shown,
            f"{best['site']}: {cell.measure} {best['value']:.3f} "
            f"({best['low']:.3f} to {best['high']:.3f})",
        )
        return setting.with_cell(cell)

    def _beside(self, setting: Setting) -> None:
        """Controls and learning curves of one sweep."""
        for name in self.request.wanted_controls:
            control = CONTROLS[name]
            if not control.fits(setting):
                continue
            self.watch(f"{setting.title} · {name}", "control")
            rows = self._once(
                key_of(control=name, of=setting.key), lambda c=control: c.rows(setting)
            )
            self.controls += rows
            self.watch(f"{setting.title} · {name}", f"{len(rows)} figures")
        if self.request.curves:
            self.watch(f"{setting.title} · learning curve", "fitting")
            self.curves += self._once(
                key_of(curve=True, of=setting.key), lambda: learning_curve(setting)
            )

    def _transfer(self, model: str, settings: list[Setting]) -> None:
        key = key_of(transfer=[setting.key for setting in settings])
        self.watch(f"{model} · transfer", "reading")
        self.transfer += self._once(key, lambda: transfer_rows(settings))

    def _once(self, key: str, make: Callable[[], list[Row]]) -> list[Row]:
        found = self.kept.get(key)
        if found is None:
            found = make()
            self.kept.put(key, list(found))
        return found


def run_sweeps(request: SweepRequest, watch: Watch = lambda _name, _what: None) -> SweepResults:
    """Sweep every model × corpus × target × probe, with what was asked beside it.

    What is finished stays in the folder and is taken from there, whatever stopped the run before.

    Args:
        request: What to do.
        watch: Told what is at work, and what came of it.

    Returns:
        Results, which lie in the folder too: ``results.parquet``, ``results.json``, ``figures/``,
        ``probes/`` and ``report.html``.

    Raises:
        AffectLensError: In one sentence, before weights are read where that can be known.
    """
    from affectlens.sweeps.writing import write_results

    texts = load_texts(request)
    with writing_alone(Path(request.out)):
        write_json(request.out / "request.json", _plain(request))
        work = _Work(request, texts, watch)
        for name in request.models:
            work.of_model(name)
        found = SweepResults(
            tuple(work.cells),
            tuple(compare_cells(work.cells)),
            tuple(work.controls),
            tuple(work.transfer),
            tuple(work.curves),
        )
        write_results(found, request.out)
    return found


def _plain(request: SweepRequest) -> dict[str, Any]:
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(request).items()
        if key != "corpora"
    } | {"corpora": [choice.name for choice in request.corpora]}
