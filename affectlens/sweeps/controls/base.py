"""What a control is: the same question asked where the answer should be poorer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.artefact import fingerprint
from affectlens.probes.design import Design, make_design
from affectlens.probes.estimators import ProbeKind
from affectlens.probes.fitting import Rows
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import scores
from affectlens.probes.settings import SweepOptions
from affectlens.probes.targets import Labels, Target
from affectlens.sweeps.kept import key_of

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.core.places import Site
    from affectlens.datasets.schema import Record
    from affectlens.sweeps.corpora import Texts
    from affectlens.sweeps.reading import Reader
    from affectlens.sweeps.request import Fitting
    from affectlens.sweeps.results import Cell

Row = dict[str, Any]


TOL = 3e-3
"""Of fits to labels that are made up, of which only scores are used."""


@dataclass(frozen=True)
class Setting:
    """One sweep, with all that it was made of: what a control has to work with.

    Attributes:
        reader: The model, and how it reads.
        texts: The corpus.
        store: Its activations.
        position, sites: What is read of them.
        target: Of every row of the position.
        groups: Of every row.
        probe: Kind of probe.
        fitting: How probes are fitted and scored.
        of: The finished sweep; None before it is.
    """

    reader: Reader
    texts: Texts
    store: ActivationStore
    position: str
    sites: tuple[Site, ...]
    target: Target
    groups: tuple[str, ...]
    probe: ProbeKind
    fitting: Fitting
    of: Cell | None = None

    def with_cell(self, cell: Cell) -> Setting:
        """The same with its finished sweep."""
        return replace(self, of=cell)

    @property
    def cell(self) -> Cell:
        """The finished sweep."""
        assert self.of is not None
        return self.of

    @property
    def title(self) -> str:
        """What tells it from others, in a line."""
        cell = self.cell
        return f"{cell.model} · {cell.corpus} · {cell.target} · {cell.probe}"

    @property
    def numbers(self) -> bool:
        """Whether the target is a number."""
        return not isinstance(self.target, Labels)

    @property
    def options(self) -> SweepOptions:
        """For `affectlens.probes.sweep`."""
        fitting = self.fitting
        tried = fitting.number_penalties if self.numbers else fitting.penalties
        return {
            "probe": self.probe.name,
            "penalties": tried,
            "folds": fitting.folds,
            "draws": fitting.draws,
            "seed": fitting.seed,
        }

    @cached_property
    def key(self) -> str:
        """Of all that decides the sweep."""
        classes = self.target.classes if isinstance(self.target, Labels) else ()
        return key_of(
            activations=self.store.fingerprint,
            position=self.position,
            kind=self.sites[-1].kind,
            target=fingerprint(list(self.target.values), classes),
            groups=fingerprint(self.groups),
            options={**self.options, "permutations": self.fitting.permutations},
        )

    @cached_property
    def design(self) -> Design:
        """Which rows are fitted and held out."""
        return make_design(
            self.target,
            self.store.column("split", self.position),
            self.groups,
            self.fitting.folds,
            self.fitting.seed,
        )

    @cached_property
    def rows(self) -> Rows:
        """Where rows are read."""
        return Rows(self.store, self.position, self.sites)

    @cached_property
    def records(self) -> list[Record]:
        """Record of each row of the design."""
        by_id = {record.id: record for record in self.texts.corpus}
        ids: list[str] = self.store.column("id", self.position)
        return [by_id[ids[row]] for row in self.design.rows.tolist()]

    @cached_property
    def held(self) -> HeldOut:
        """What the sweep's probes say of held-out rows."""
        return self.cell.sweep.held

    def outputs(self, said: Float[Tensor, "n output"], link: str = "softmax") -> HeldOut:
        """Something else's word on the held-out rows, as if it were a probe of one site."""
        design = self.design
        ids: list[str] = self.store.column("id", self.position)
        return HeldOut.of(design, ids, said[design.held][None].float(), link)

    def row(self, control: str, measure: str, value: float, **more: Any) -> Row:
        """A line of the table of controls; ``site``, ``low``, ``high``, ``p`` and ``note`` may be
        given.
        """
        empty = {"site": "", "low": math.nan, "high": math.nan, "p": math.nan, "note": ""}
        return {
            "control": control,
            **self.cell.name,
            "measure": measure,
            "value": float(value),
            **empty,
            **more,
        }

    def beside(
        self, control: str, other: HeldOut, *, note: str = "", mine: HeldOut | None = None
    ) -> list[Row]:
        """How something else does on held-out rows, and how much better the probe does on them.

        The probe is that of the site which cross-validation chose; ``mine`` is what it says of
        these rows, if they are some of the held-out ones only.
        """
        cell, best = self.cell, self.cell.best
        site = cell.sweep.sites[best].hook_name
        found = scores(other, draws=self.fitting.draws, random=self._generator())
        rows = [
            self.row(control, one["score"], one["value"], low=one["low"], high=one["high"],
                     note=note)
            for one in found.rows(0)
            if not one["score"].startswith("recall:")
        ]  # fmt: skip
        more = (mine or self.held).compare(best, other, 0, draws=self.fitting.draws)
        measure = "probe minus it, squared error less" if self.numbers else "probe minus it"
        rows.append(
            self.row(control, measure, more.mean, site=site, low=more.low, high=more.high, p=more.p)
        )
        return rows

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.fitting.seed)


def shuffled_places(
    groups: Sequence[str], fit: Bool[Tensor, " n"], random: np.random.Generator
) -> tuple[Int[Tensor, " n"], int]:
    """Place of each row's group among those fitted on, in a random order; and how many those are.

    Rows of other groups come last, at that number.
    """
    names = list(dict.fromkeys(g for g, f in zip(groups, fit, strict=True) if f))
    place = {names[j]: i for i, j in enumerate(random.permutation(len(names)))}
    return torch.tensor([place.get(group, len(names)) for group in groups]), len(names)


def some_rows(
    held: HeldOut,
    rows: np.ndarray[Any, Any],
    outputs: Float[Tensor, "site some output"] | None = None,
) -> HeldOut:
    """Some of the held-out rows, with what else is said of them if that is given."""
    picked = torch.from_numpy(np.asarray(rows))
    return HeldOut(
        tuple([held.ids[i] for i in rows]),
        tuple([held.groups[i] for i in rows]),
        held.truth[picked],
        held.outputs[:, picked] if outputs is None else outputs,
        held.classes,
        held.link if outputs is None else "softmax",
    )


@dataclass(frozen=True)
class Control:
    """A row of the table.

    Attributes:
        name: What users write.
        help: One line.
        objection: What a reviewer says, that it answers.
        rows: Does it, and returns lines made by `Setting.row`.
        numbers: Whether it makes sense of numbers too.
    """

    name: str
    help: str
    objection: str
    rows: Callable[[Setting], list[Row]]
    numbers: bool = False

    def fits(self, setting: Setting) -> bool:
        """Whether it can be done of this target."""
        return self.numbers or not setting.numbers
