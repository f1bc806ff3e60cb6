"""``affectlens labels``: label sets, where their labels lie, and what they are in another set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import example, sentences

labels_app = typer.Typer(
    help="Label sets: look into, map, export.",
    no_args_is_help=True,
    epilog=example("affectlens labels show plutchik"),
)


@labels_app.command(
    "show",
    epilog=example(
        "affectlens labels show plutchik",
        "affectlens labels show goemotions --export goemotions.jsonld",
    ),
)
def labels_show(
    name: Annotated[str, typer.Argument(help="A label set, or an ontology file (.jsonld).")],
    export: Annotated[
        Path | None, typer.Option("--export", help="Write it as an ontology (JSON-LD).")
    ] = None,
) -> None:
    """Print the labels of a set, their coordinates and who published them."""
    with sentences():
        from affectlens.cli.tables import print_label_set
        from affectlens.core.emotions import export_labels, import_labels, label_set
        from affectlens.core.emotions.ontology import SUFFIX

        found = import_labels(name) if Path(name).suffix == SUFFIX else label_set(name)
        if export is not None:
            export_labels(found, export)
        print_label_set(found)


@labels_app.command("map", epilog=example("affectlens labels map goemotions plutchik"))
def labels_map(
    source: Annotated[str, typer.Argument(help="A label set.")],
    target: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """Print what the labels of a set are in another, and what is lost."""
    with sentences():
        from affectlens.cli.tables import print_label_mapping
        from affectlens.core.emotions import label_mapping

        print_label_mapping(label_mapping(source, target))
