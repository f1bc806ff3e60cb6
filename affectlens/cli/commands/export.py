"""``affectlens export``: a request to a pack as a file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from affectlens.cli.program import DEFAULT_RUN, PARTS, Device, Dtype, example, sentences

FormatName = Annotated[
    str,
    typer.Option(
        "--format",
        help="gguf, easysteer, svec, svec-caa, lm-eval, persona-pt or safetensors; how each "
        "counts blocks: `affectlens list vector_formats`.",
    ),
]


def add_export_command(app: typer.Typer) -> None:
    """Add ``export``."""
    shown = "affectlens export -e anger=1 --mode residual --format gguf --out anger.gguf"
    app.command("export", rich_help_panel=PARTS, epilog=example(shown))(export)


def export(
    emotion: Annotated[
        list[str],
        typer.Option("--emotion", "-e", help="anger=0.8,sadness=-0.2; repeatable, they add up."),
    ],
    format: FormatName,
    out: Annotated[Path, typer.Option("--out", help="File to write, with the format's ending.")],
    run_folder: Annotated[
        Path, typer.Option("--run", help="Run folder with a pack.")
    ] = DEFAULT_RUN,
    pack: Annotated[str | None, typer.Option("--pack", help="Pack instead: file or name.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode", help="residual, or circuit, put down as what it does after each block."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Blocks from 0: 10-19 or 8,12; default: all.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="For a circuit; default: the model the pack was made for."),
    ] = None,
    block_list: Annotated[
        str, typer.Option("--block-list", help="For lm-eval: layers, or h for GPT-2.")
    ] = "layers",
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Write emotions at a strength as a vector file of llama.cpp, EasySteer, lm-eval, …"""
    with sentences():
        from affectlens.cli.exchange_tables import print_exported
        from affectlens.models import load_model
        from affectlens.steering import SteeringPack, SteeringSpec
        from affectlens.steering.exporting import STREAM, export_vectors

        found = SteeringPack.load(pack or run_folder / "pack.safetensors")
        parts: list[Any] = [*emotion, *([] if mode is None else [{"mode": mode}])]
        spec = SteeringSpec.combined(parts, found.emotions)
        inside = bool(spec) and found.points(spec.mode or found.modes[0]) != STREAM
        name = model or found.provenance.model_name
        print_exported(
            export_vectors(
                found,
                spec,
                out,
                format,
                layers=layers,
                model=load_model(name, device=device, dtype=dtype) if inside else None,
                block_list=block_list,
            )
        )
