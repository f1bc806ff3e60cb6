"""``affectlens circuit efficiency``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, Model, circuit_file, names, numbers, whole_numbers
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
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Default: efficiency.safetensors beside it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Few units: does it matter which? Each choice refined alike and heard, random ones beside."""
    with sentences():
        from affectlens.cli.circuit_tables import print_efficiency
        from affectlens.core.parquet import write_parquet
        from affectlens.pipeline.circuit_task import circuit_of
        from affectlens.pipeline.context import RunContext
        from affectlens.pipeline.efficiency import Efficiency, EfficiencySettings
        from affectlens.pipeline.pack_files import template_variables_of
        from affectlens.pipeline.run_config import RunConfig

        file = circuit_file(circuit, out)
        found = circuit_of(file)
        defaults = EfficiencySettings()
        settings = replace(
            defaults,
            counts=whole_numbers("--counts", counts),
            choices=names(choices),
            draws=draws,
            strengths=numbers("--strengths", strengths),
            n_events=events,
            tune_events=tune_events,
            refine=replace(defaults.refine, steps=steps),
        )
        config = RunConfig.checked(
            model=model or found.provenance.model_name,
            out=out,
            device=device,
            dtype=dtype,
            template_variables=dict(template_variables_of(out)),
        )
        target = save or file.parent / "efficiency.safetensors"
        curve = Efficiency(RunContext(config), found, settings, out / "efficiency").measure()
        curve.save(target)
        write_parquet(target.with_suffix(".parquet"), curve.table_rows())
        print_efficiency(curve, target, as_json=as_json)
