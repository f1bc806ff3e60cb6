"""``affectlens datasets``: list corpora, look into them, check them."""

from __future__ import annotations

from typing import Annotated

import typer

from affectlens.cli.program import (
    Columns,
    CorpusName,
    CorpusPath,
    Labels,
    Several,
    example,
    sentences,
)

datasets_app = typer.Typer(
    help="Corpora: list, look into, check.",
    no_args_is_help=True,
    epilog=example("affectlens datasets show replies"),
)


@datasets_app.command("list", epilog=example("affectlens datasets list"))
def datasets_list() -> None:
    """Corpora that can be loaded by name."""
    with sentences():
        from affectlens.cli.tables import print_corpora

        print_corpora()


@datasets_app.command("show", epilog=example("affectlens datasets show replies -n 3"))
def datasets_show(
    name: CorpusName,
    n: Annotated[int, typer.Option("-n", min=1, help="How many records.")] = 7,
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
) -> None:
    """Print some records."""
    with sentences():
        from affectlens.cli.tables import print_records
        from affectlens.pipeline.corpus_choice import CorpusChoice

        print_records(CorpusChoice(name, column, path, labels, several), n)


@datasets_app.command(
    "check",
    epilog=example("affectlens datasets check mine.csv --column emotion=label --column text=body"),
)
def datasets_check(
    name: CorpusName,
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
) -> None:
    """Look for leakage: affect words, capitals, lengths, gaps. Exit 1 if there is any."""
    with sentences():
        from affectlens.cli.tables import print_leakage
        from affectlens.pipeline.corpus_choice import CorpusChoice

        if not print_leakage(CorpusChoice(name, column, path, labels, several)):
            raise typer.Exit(1)
