"""What is asked of a sweep over models, corpora and targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from affectlens.core.errors import DataError
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.probes.estimators import PROBES
from affectlens.probes.estimators.base import CLASSES, NUMBERS
from affectlens.probes.settings import PENALTIES

ALL_CONTROLS = "all"


@dataclass(frozen=True)
class Fitting:
    """How every probe is fitted and scored.

    Attributes:
        penalties: Values of scikit-learn's C for labels.
        number_penalties: The same for numbers.
        folds: Folds of groups.
        draws: Bootstrap draws of groups, of every interval.
        permutations: Of labels, for the control ``permutation``.
        seed: Of everything random.
    """

    penalties: tuple[float, ...] = PENALTIES
    number_penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    folds: int = 5
    draws: int = 2000
    permutations: int = 99
    seed: int = 0


@dataclass(frozen=True)
class SweepRequest:
    """Models × corpora × targets × probes, and what stands beside them.

    Attributes:
        models: Names, hub ids, folders or GGUF files.
        corpora: As the command line names them.
        out: Folder of all that is made; what is finished there is kept.
        sites: See `affectlens.core.places.expand_sites`.
        positions: See `affectlens.activations.positions`; default: what suits each corpus.
        targets: ``emotion``, ``valence``, ``arousal``, …, or a column of one's own file.
        group: What is never spread over fitting and held-out rows: ``scenario``, ``group``,
            ``theme``, ``id``, or a column.
        probes: Names in `affectlens.probes.PROBES`.
        controls: Names in `affectlens.sweeps.CONTROLS`, or ``("all",)``.
        transfer: Whether probes of each corpus read every other one.
        names: Label to label, before anything is read; to "" for rows that play no part.
        curves: Whether to fit on growing shares of the groups.
        fitting: How.
        device, dtype: As `affectlens.load_model`.
    """

    models: tuple[str, ...]
    corpora: tuple[CorpusChoice, ...]
    out: Path
    sites: str = "resid_post"
    positions: str | None = None
    targets: tuple[str, ...] = ("emotion",)
    group: str = "scenario"
    probes: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    transfer: bool = False
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    curves: bool = False
    fitting: Fitting = Fitting()
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        from affectlens.sweeps.controls import CONTROLS

        for name, given in (("model", self.models), ("target", self.targets)):
            if not given:
                raise DataError(f"Name a {name} to sweep.")
            if len(set(given)) < len(given):
                raise DataError(f"A {name} is named twice among {', '.join(given)}.")
        if not self.corpora:
            raise DataError("Name a corpus to sweep.")
        for probe in self.probes:
            _ = PROBES[probe]
        for control in self.controls:
            if control != ALL_CONTROLS:
                _ = CONTROLS[control]
        if self.transfer and len(self.corpora) < 2:
            raise DataError("A transfer matrix needs two corpora or more; name another.")
        if self.fitting.permutations < 1 or self.fitting.draws < 1:
            raise DataError("Draws and permutations are whole numbers above zero.")
        for value in (*self.fitting.penalties, *self.fitting.number_penalties):
            if not 0 < value < math.inf:
                raise DataError(f"Penalties are finite numbers above zero, not {value:g}.")
        if self.fitting.seed < 0:
            raise DataError(f"A seed is a whole number from 0 on, not {self.fitting.seed}.")

    @property
    def wanted_controls(self) -> tuple[str, ...]:
        """By name."""
        from affectlens.sweeps.controls import CONTROLS

        return tuple(CONTROLS) if ALL_CONTROLS in self.controls else self.controls

    def probes_of(self, *, numbers: bool) -> tuple[str, ...]:
        """Those that read labels, or numbers; by default logistic or ridge.

        Raises:
            DataError: If those that were named cannot.
        """
        if not self.probes:
            return ("ridge",) if numbers else ("logistic",)
        kind = NUMBERS if numbers else CLASSES
        fitting = tuple(p for p in self.probes if kind in PROBES[p].targets and PROBES[p].linear)
        if not fitting:
            able = [p.name for p in PROBES.values() if kind in p.targets and p.linear]
            raise DataError(
                f"None of the probes {', '.join(self.probes)} reads {kind} at every site; choose "
                f"{', '.join(able)}."
            )
        return fitting


def parse_names(given: Sequence[str]) -> dict[str, str]:
    """``LABEL=LABEL`` as label to label; ``LABEL=`` as label to "".

    Raises:
        DataError: If one is neither, or a label is named twice.
    """
    found: dict[str, str] = {}
    for part in given:
        old, sign, new = part.partition("=")
        if not sign or not old.strip():
            raise DataError(f"--map takes LABEL=LABEL or LABEL=, not {part!r}.")
        if old.strip() in found:
            raise DataError(f"--map names {old.strip()} twice; give one name for it.")
        found[old.strip()] = new.strip()
    return found
