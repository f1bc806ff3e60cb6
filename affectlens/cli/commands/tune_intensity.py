"""``affectlens tune intensity``: what doses do, so that an effect can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, names, numbers
from affectlens.cli.pack_options import PackModel
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences


def add_intensity_command(app: typer.Typer) -> None:
    """Add ``intensity``."""
    shown = (
        "affectlens tune intensity --out runs/mine",
        'affectlens steer "My train was cancelled." -e "anger=0.5;unit=heard" '
        "--pack runs/mine/pack_calibrated.safetensors",
    )
    app.command("intensity", epilog=example(*shown))(intensity)


def intensity(
    out: Annotated[
        Path, typer.Option("--out", help="Run folder; texts are kept there.")
    ] = DEFAULT_RUN,
    pack: Annotated[
        Path | None, typer.Option("--pack", help="Pack file; default: the run's.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="circuit or residual; default: the pack's first.")
    ] = None,
    emotions: Annotated[
        str | None, typer.Option("--emotions", help="Names with commas between; default: all.")
    ] = None,
    doses: Annotated[
        str, typer.Option("--doses", help="Shares of the recommended dose that are tried.")
    ] = "0.3,0.45,0.6,0.75,0.9,1.1,1.4",
    extensions: Annotated[
        int, typer.Option("--extensions", min=0, help="Stronger doses, while more can be heard.")
    ] = 2,
    events: Annotated[
        int | None,
        typer.Option(
            "--events", min=1, help="Tuning events answered at each dose; default: 16, or all."
        ),
    ] = None,
    test_events: Annotated[
        int | None,
        typer.Option(
            "--test-events",
            min=0,
            help="Test events of the check; 0: none, default: 40, or all.",
        ),
    ] = None,
    kl_events: Annotated[
        int, typer.Option("--kl-events", min=0, help="Events for the unit kl; 0: leave it out.")
    ] = 4,
    max_ratio: Annotated[
        float, typer.Option("--max-ratio", help="Perplexity ratio from which doses are left out.")
    ] = 4.0,
    masked: Annotated[
        bool, typer.Option("--masked", help="Hear replies without their feeling words.")
    ] = False,
    model: PackModel = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Default: pack_calibrated.safetensors beside it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Doses against what is heard: the pack gets units heard and kl, and test events check them."""
    with sentences():
        from affectlens.cli.tuning_tables import print_calibration
        from affectlens.pipeline.intensity import IntensitySettings
        from affectlens.pipeline.tuning_commands import PackChoice, calibrate

        settings = IntensitySettings(
            mode=mode,
            emotions=names(emotions),
            doses=numbers("--doses", doses),
            extensions=extensions,
            events=events,
            test_events=test_events,
            kl_events=kl_events,
            max_perplexity_ratio=max_ratio,
            masked=masked,
        )
        found, file = calibrate(PackChoice(out, pack, model, device, dtype), settings, save)
        print_calibration(found, file, as_json=as_json)
