"""A probe of a run or a store fitted, put into a pack, and texts read with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, DataError

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.datasets import Corpus
    from affectlens.probes import Probe, Readings

PROBE = "probe.safetensors"


@dataclass(frozen=True)
class ProbeRequest:
    """A probe to fit.

    Attributes:
        run: Run folder, whose store and sweep are used where none are named.
        store: Folder of a store of activations.
        site: Where to read; default: the best site of the run's sweep, or of one made now.
        position: Which tokens; default: those that suit the store.
        probe: A name in `affectlens.probes.PROBES`.
        calibration: A name in `affectlens.probes.calibration.CALIBRATIONS`.
        held_out: Share of the groups that the calibration is fitted on.
        seed: Of groups and folds.
    """

    run: Path
    store: Path | None = None
    site: str | None = None
    position: str | None = None
    probe: str = "logistic"
    calibration: str = "temperature"
    held_out: float = 0.25
    seed: int = 0

    def fitted(self) -> Probe:
        """Fit and calibrate it.

        Raises:
            ArtefactError: If there is no store.
            DataError: If its rows do not do.
            UnknownNameError: If a name does not exist.
        """
        from affectlens.activations import ActivationStore
        from affectlens.pipeline.stages.activations import FOLDER
        from affectlens.probes import fit_probe

        folder = self.store or self.run / FOLDER / "replies"
        if not folder.is_dir():
            raise ArtefactError(
                f"There is no store {folder}; make one with `affectlens probe` or `affectlens "
                "capture`, or name one with --store."
            )
        store = ActivationStore.open(folder)
        return fit_probe(
            store,
            self.site or self._best(store),
            position=self.position,
            probe=self.probe,
            calibration=self.calibration,
            held_out=self.held_out,
            seed=self.seed,
        )

    def _best(self, store: ActivationStore) -> str:
        """Chosen by cross-validation, never on the test split."""
        from affectlens.pipeline.stages.probe import PROBES
        from affectlens.probes import Sweep, sweep

        if len(store.sites) == 1:
            return store.sites[0].hook_name
        file = self.run / PROBES
        if self.store is None and file.is_file():
            return Sweep.load(file).best.hook_name
        return sweep(store, draws=10).best.hook_name


@dataclass(frozen=True)
class ReadRequest:
    """Texts to read with a probe.

    Attributes:
        probe: The probe to fit, where no file is named.
        file: Of `Probe.save`; default: the run's, or one that is fitted now.
        text: Texts.
        text_file: One text a line, or a corpus (``.jsonl``, ``.csv``, ``.tsv``).
        model: Default: the name of the model the probe was fitted on.
        position: Where to read; see `affectlens.probes.reading.read`.
        coverage: Of label sets; none if not given.
        device, dtype: See `load_model`.
        force: Read another model of the same width all the same.
    """

    probe: ProbeRequest
    file: Path | None = None
    text: tuple[str, ...] = ()
    text_file: Path | None = None
    model: str | None = None
    position: str | None = None
    coverage: float | None = None
    device: str | None = None
    dtype: str | None = None
    force: bool = False

    def read(self) -> tuple[Probe, Readings]:
        """Read them; what can be wrong with files and options is found before the model is loaded.

        Raises:
            DataError: If there is no text.
            ArtefactError: If there is no probe, nor a store to fit one on.
            MismatchError: If the probe is of another model.
        """
        from affectlens.models import load_model
        from affectlens.probes import Probe, read

        texts = self._texts()
        own = self.probe.run / PROBE
        file = self.file or (own if own.is_file() and self.probe.store is None else None)
        probe = self.probe.fitted() if file is None else Probe.load(file)
        if self.coverage is not None and probe.conformal is None:
            raise DataError("This probe has no label sets; fit it with `affectlens probe fit`.")
        if self.coverage is not None and probe.conformal is not None:
            probe.conformal.threshold(self.coverage)
        name = self.model or probe.provenance.model_name
        model = load_model(name, device=self.device, dtype=self.dtype)
        options: dict[str, Any] = {"position": self.position, "coverage": self.coverage}
        return probe, read(model, probe, texts, force=self.force, **options)

    def _texts(self) -> list[str] | Corpus:
        from affectlens.datasets import load
        from affectlens.datasets.loaders.user_file import SUFFIXES
        from affectlens.datasets.tables.text_files import read_lines

        if bool(self.text) == (self.text_file is not None):
            raise DataError("Give either --text (repeatable) or --file, not both.")
        if self.text_file is None:
            return list(self.text)
        if self.text_file.suffix.lower() in SUFFIXES:
            return load(self.text_file, emotions=None)
        return [line.strip() for _, line in read_lines(self.text_file)]


def into_pack(probe: Probe, pack_file: Path, out: Path) -> Path:
    """A pack with the probe in it, for servers.

    Raises:
        ArtefactError: If the pack cannot be read, or would be written over.
        DataError: If the probe cannot be folded.
        MismatchError: If pack and probe are of different models.
    """
    from affectlens.steering import SteeringPack

    if out.resolve() == pack_file.resolve():
        raise ArtefactError(f"{out} is the pack itself; choose another file with --pack-out.")
    SteeringPack.load(pack_file).with_readout(probe).save(out)
    return out
