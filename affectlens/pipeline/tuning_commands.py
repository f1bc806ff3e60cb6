"""What the commands below `affectlens tune` work on: a pack, its model, judges and events."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import DataError
from affectlens.core.artefact import write_json, write_text
from affectlens.core.parquet import write_parquet
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.intensity import Calibrating, Calibration, IntensitySettings
from affectlens.pipeline.run_config import RunConfig
from affectlens.pipeline.tuning_candidates import SearchSettings, candidates_of
from affectlens.pipeline.tuning_found import Found
from affectlens.pipeline.tuning_search import TuningSearch

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class PackChoice:
    """A pack, and what it is tried with.

    Attributes:
        out: Run folder.
        file: Pack file; None: the run's.
        model: Name, hub id or folder; None: the one the pack was made for, by name.
        device, dtype: See `load_model`.
    """

    out: Path
    file: Path | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None

    @property
    def path(self) -> Path:
        """The pack's file."""
        return self.file or self.out / "pack.safetensors"

    @cached_property
    def pack(self) -> SteeringPack:
        """The pack.

        Raises:
            ArtefactError: If there is none, or it is damaged.
        """
        from affectlens.steering import SteeringPack
        from affectlens.steering.packs import existing

        return SteeringPack.load(existing(self.path))

    @cached_property
    def context(self) -> RunContext:
        """Model, judges and texts; each is loaded when it is used."""
        made_by = self.pack.provenance
        return RunContext(
            RunConfig.checked(
                model=self.model or made_by.model_name,
                out=self.out,
                device=self.device,
                dtype=self.dtype,
                template_variables=self.pack.template_variables,
            )
        )

    def events(self, split: str, n: int | None, most: int = 0) -> list[Record]:
        """So many scenario-events of a split, spread over scenarios.

        Args:
            split: Of the events.
            n: How many; None takes all that there are, at most ``most``.
            most: See ``n``.

        Raises:
            DataError: If there are fewer.
        """
        from affectlens.datasets import spread

        corpus = self.context.corpus("events").filter(split=split)
        n = min(most, len(corpus)) if n is None else n
        if n > len(corpus):
            raise DataError(
                f"There are {len(corpus)} events to {split} on, not {n}; ask for fewer."
            )
        return spread(corpus, n) if n else []


def calibrate(
    choice: PackChoice, settings: IntensitySettings, save: Path | None = None
) -> tuple[Calibration, Path]:
    """Measure what doses do, and write the pack that knows it, with a table beside it.

    Args:
        choice: The pack.
        settings: How.
        save: Its file; default: ``pack_calibrated.safetensors`` beside the pack.

    Returns:
        What came of it, and the file.
    """
    pack = choice.pack
    events = choice.events("tune", settings.events, most=16)
    test = choice.events("test", settings.test_events, most=40)
    pack.require_model(choice.context.model)
    found = Calibrating(
        model=choice.context.model,
        judge=choice.context.judge,
        pack=pack,
        tune=events,
        test=test,
        settings=settings,
        folder=choice.out / "intensity",
    ).measure()
    told = {
        "intensity": {
            "mode": found.mode,
            "judge": choice.context.judge.fingerprint,
            "masked": settings.masked,
            "events": len(events),
            "max_perplexity_ratio": settings.max_perplexity_ratio,
        }
    }
    made_by = found.pack.provenance
    calibrated = replace(
        found.pack,
        provenance=replace(made_by, parameters={**made_by.parameters, **told}),
    )
    target = save or choice.path.with_name("pack_calibrated.safetensors")
    calibrated.save(target)
    write_parquet(target.with_suffix(".parquet"), found.table_rows())
    return replace(found, pack=calibrated), target


def search_tuning(
    choice: PackChoice, settings: SearchSettings, events: int, save: Path | None = None
) -> tuple[Found, Path | None]:
    """Search for a way to steer an emotion, and write it and the whole trade-off.

    Args:
        choice: The pack.
        settings: What is tried.
        events: Tuning events that there are to answer.
        save: The pack's file; default: ``pack_EMOTION.safetensors`` beside the pack. The trade-off
            lies beside it as CSV and JSON, also where all candidates break.

    Returns:
        What came of it, and the pack's file; None if there is none.
    """
    pack = choice.pack
    candidates_of(pack, settings)  # what cannot be tried is told before weights are read
    tune = choice.events("tune", events)
    pack.require_model(choice.context.model)
    folder = choice.out / "search"
    found = TuningSearch(choice.context, pack, tune, settings, folder).run()
    target = save or choice.path.with_name(f"pack_{settings.emotion}.safetensors")
    rows = found.table_rows()
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    write_text(target.with_suffix(".csv"), text.getvalue())
    write_json(
        target.with_suffix(".json"),
        {
            "spec": found.spec,
            "reason": asdict(found.reason),
            "effect": asdict(found.effect),
            "tokens": found.tokens,
            "breaks": found.breaks,
            "tried": rows,
        },
    )
    if found.pack is None:
        return found, None
    found.pack.save(target)
    return found, target
