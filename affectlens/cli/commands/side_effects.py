"""``affectlens side-effects``: what else a pack changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, names, numbers
from affectlens.cli.pack_options import PackModel
from affectlens.cli.program import DEFAULT_RUN, PARTS, Device, Dtype, example, sentences


def add_side_effects_command(app: typer.Typer) -> None:
    """Add ``side-effects``."""
    shown = example(
        "affectlens side-effects --run runs/demo",
        "affectlens side-effects --suites refusal,factual --emotions anger --doses 1",
    )
    app.command("side-effects", rich_help_panel=PARTS, epilog=shown)(side_effects)


def side_effects(
    run_folder: Annotated[
        Path, typer.Option("--run", help="Run folder with a pack; replies are kept there.")
    ] = DEFAULT_RUN,
    pack: Annotated[Path | None, typer.Option("--pack", help="Pack file instead.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to keep replies; default: the run folder.")
    ] = None,
    model: PackModel = None,
    suites: Annotated[
        str | None, typer.Option("--suites", help="See `affectlens list suites`; default: all.")
    ] = None,
    emotions: Annotated[
        str | None, typer.Option("--emotions", help="Of the pack, with commas; default: all.")
    ] = None,
    doses: Annotated[str, typer.Option("--doses", help="1 is what the pack recommends.")] = (
        "0.5,1,1.5"
    ),
    items: Annotated[
        int | None, typer.Option("--items", min=1, help="Most prompts of a suite; default: all.")
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="circuit or residual.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Longest reply.")
    ] = 40,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Facts, sums, refusals, privacy, format, …: before and after steering each emotion."""
    with sentences():
        from affectlens.cli.consoles import told
        from affectlens.cli.side_effect_tables import print_side_effects
        from affectlens.models.generation.decoding import GenerationSettings
        from affectlens.pipeline.side_effects import SideEffectRequest, measure_side_effects

        request = SideEffectRequest(
            pack_file=pack or run_folder / "pack.safetensors",
            out=out or run_folder,
            model=model,
            suites=names(suites),
            emotions=names(emotions),
            doses=numbers("--doses", doses),
            items=items,
            mode=mode,
            device=device,
            dtype=dtype,
            generation=GenerationSettings(max_new_tokens=max_new_tokens),
        )
        found = measure_side_effects(
            request, on_cell=lambda name, kept: told(name, "kept" if kept else "done")
        )
        print_side_effects(found, as_json=as_json)
