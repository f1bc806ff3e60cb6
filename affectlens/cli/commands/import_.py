"""``affectlens import``: vector files of other tools as a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.commands.export import FormatName
from affectlens.cli.program import PARTS, Device, Dtype, example, sentences


def add_import_command(app: typer.Typer) -> None:
    """Add ``import``."""
    shown = "affectlens import anger=anger.gguf --format gguf --model MODEL --out pack.safetensors"
    app.command("import", rich_help_panel=PARTS, epilog=example(shown))(import_files)


def import_files(
    files: Annotated[list[str], typer.Argument(help="LABEL=FILE, one or several.")],
    format: FormatName,
    model: Annotated[str, typer.Option("--model", help="What the vectors were made for.")],
    out: Annotated[Path, typer.Option("--out", help="Pack to write.")],
    layers: Annotated[
        str | None, typer.Option("--layers", help="Blocks from 0: 10-19 or 8,12; default: all.")
    ] = None,
    positions: Annotated[
        str, typer.Option("--positions", help="Steered by default: all, generated, …")
    ] = "all",
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Make a pack of vector files: strength 1 of each label adds what its file would add."""
    with sentences():
        from affectlens.cli.exchange_tables import print_imported
        from affectlens.models import load_model
        from affectlens.steering.importing import import_vectors, labelled_files

        named = labelled_files(files)
        loaded = load_model(model, device=device, dtype=dtype)
        found = import_vectors(named, loaded, format, layers=layers, positions=positions)
        found.pack.save(out)
        print_imported(found, out)
