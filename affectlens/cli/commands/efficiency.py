"""``affectlens circuit efficiency``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, sentences


def efficiency(
    out: Annotated[
        Path, typer.Option("--out", help="Run folder with the circuit and the expressed emotions.")
    ] = DEFAULT_RUN,
    circuit: Annotated[
        Path | None,
        typer.Option("--circuit", help="A circuit's file, not refined; default: the run's."),
    ] = None,
    counts: Annotated[
        str, typer.Option("--counts", help="How many units per emotion, rising.")
    ] = "8,16,32,64,128,256,512",
    choices: Annotated[
        str, typer.Option("--choices", help="Beside random units: circuit, top, uniform.")
    ] = "circuit,top,uniform",
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="Random sets of as many units per sublayer.")
    ] = 2,
    strengths: Annotated[
        str,
        typer.Option(
            "--strengths", help="One as it is, or several to choose from on tuning texts."
        ),
    ] = "0.6,0.85,1.2",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of every descent.")] = 32,
    events: Annotated[int, typer.Option("--events", min=1, help="Test events answered.")] = 40,
    tune_events: Annotated[
        int, typer.Option("--tune-events", min=1, help="Tuning events answered.")
    ] = 12,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the circuit's own, by name.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Default: efficiency.safetensors beside it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")] = False,
) -> None:
    """Few units: does it matter which? Each choice refined alike and heard, random ones beside."""
    with sentences():
        from affectlens.circuits import Circuit
        from affectlens.cli.circuit_tables import print_efficiency
        from affectlens.core.errors import ArtefactError
        from affectlens.pipeline.context import RunContext
        from affectlens.pipeline.efficiency import Efficiency, EfficiencySettings
        from affectlens.pipeline.run_config import RunConfig
        from affectlens.pipeline.stages.circuit import CIRCUIT

        file = circuit or out / CIRCUIT
        if not file.is_file():
            raise ArtefactError(
                f"There is no circuit {file}; find one with `affectlens circuit`, or name one with "
                "--circuit or --out."
            )
        defaults = EfficiencySettings()
        settings = replace(
            defaults,
            counts=tuple(map(int, _numbers("--counts", counts, whole=True))),
            choices=tuple(name.strip() for name in choices.split(",") if name.strip()),
            draws=draws,
            strengths=_numbers("--strengths", strengths),
            n_events=events,
            tune_events=tune_events,
            refine=replace(defaults.refine, steps=steps),
        )
        found = Circuit.load(file)
        config = RunConfig.checked(
            model=model or found.provenance.model_name, out=out, device=device, dtype=dtype
        )
        target = save or file.parent / "efficiency.safetensors"
        curve = Efficiency(RunContext(config), found, settings, out / "efficiency").measure()
        curve.save(target)
        curve.to_parquet(target.with_suffix(".parquet"))
        print_efficiency(curve, target, as_json=as_json)


def _numbers(option: str, text: str, *, whole: bool = False) -> tuple[float, ...]:
    from affectlens.core.errors import DataError

    try:
        return tuple((int if whole else float)(part) for part in text.split(","))
    except ValueError:
        raise DataError(
            f"{option} takes {'whole ' if whole else ''}numbers with commas between them, "
            f"not {text!r}."
        ) from None
