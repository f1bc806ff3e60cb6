"""``affectlens import``: vector files of other tools, and features of dictionaries, as a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import PARTS, Device, Dtype, example, sentences


def add_import_command(app: typer.Typer) -> None:
    """Add ``import``."""
    shown = "affectlens import anger=anger.gguf --format gguf --model MODEL --out pack.safetensors"
    app.command("import", rich_help_panel=PARTS, epilog=example(shown))(import_files)


def import_files(
    files: Annotated[
        list[str], typer.Argument(help="LABEL=FILE, or LABEL=FILE:FEATURE; one or several.")
    ],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="gguf, easysteer, svec, svec-caa, lm-eval, persona-pt or safetensors; of features "
            "saelens or gemma-scope: `affectlens list vector_formats`, `list dictionaries`.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="What the vectors were made for.")],
    out: Annotated[Path, typer.Option("--out", help="Pack to write.")],
    layers: Annotated[
        str | None, typer.Option("--layers", help="Blocks from 0: 10-19 or 8,12; default: all.")
    ] = None,
    positions: Annotated[
        str, typer.Option("--positions", help="Steered by default: all, generated, …")
    ] = "all",
    force: Annotated[
        bool, typer.Option("--force", help="Take features of a model of another name.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Make a pack of vector files, or of features: strength 1 adds what its file would add."""
    with sentences():
        from affectlens.cli.exchange_tables import print_imported
        from affectlens.core import DataError
        from affectlens.core.errors import unknown
        from affectlens.models import load_model
        from affectlens.steering.features import import_features, labelled_features
        from affectlens.steering.formats.dictionaries import DICTIONARIES
        from affectlens.steering.formats.vectors import VECTOR_FORMATS
        from affectlens.steering.importing import import_vectors, labelled_files

        if format in DICTIONARIES:
            features = labelled_features(files)
            loaded = load_model(model, device=device, dtype=dtype)
            found = import_features(
                features, loaded, format, layers=layers, positions=positions, force=force
            )
        elif format in VECTOR_FORMATS:
            if force:
                raise DataError(
                    f"--force takes features of a model of another name; files of {format} are not "
                    "held against a name, so leave it out."
                )
            named = labelled_files(files)
            loaded = load_model(model, device=device, dtype=dtype)
            found = import_vectors(named, loaded, format, layers=layers, positions=positions)
        else:
            raise unknown("format", format, [*VECTOR_FORMATS, *DICTIONARIES])
        found.pack.save(out)
        print_imported(found, out)
