"""``affectlens rate``: read a sample yourself, blind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import MAX_SEED, names
from affectlens.cli.program import DEFAULT_RUN, PARTS, Columns, example, sentences


def add_rate_command(app: typer.Typer) -> None:
    """Add ``rate``."""
    shown = example(
        "affectlens rate --run runs/demo --arms circuit,residual",
        "affectlens rate --file mine.csv --column text=body",
    )
    app.command("rate", rich_help_panel=PARTS, epilog=shown)(rate)


def rate(
    run_folder: Annotated[
        Path, typer.Option("--run", help="Run folder with replies; ratings are kept in it.")
    ] = DEFAULT_RUN,
    file: Annotated[
        Path | None, typer.Option("--file", help="Texts of your own instead of replies.")
    ] = None,
    column: Columns = None,
    arms: Annotated[
        str | None, typer.Option("--arms", help="Whose replies, with commas; default: all.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Texts at most.")] = 60,
    rater: Annotated[str, typer.Option("--rater", help="Your name.")] = "me",
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=MAX_SEED, help="Of the order, the same for all raters."),
    ] = 0,
) -> None:
    """Rate replies blind, two keys each, and see how far you agree with the judges (kappa)."""
    with sentences():
        import click

        from affectlens.cli.rating_screen import print_rated, rate_on_screen
        from affectlens.evaluation.judges import JUDGES, load_judge
        from affectlens.evaluation.judges.base import JUDGED
        from affectlens.pipeline.rate import RateRequest, close_sitting, open_sitting

        request = RateRequest(
            run=run_folder,
            file=file,
            columns=tuple(column or ()),
            arms=names(arms),
            n=n,
            rater=rater,
            seed=seed,
        )
        sitting = open_sitting(request)
        rate_on_screen(sitting, click.getchar)
        ours = set(sitting.labels) <= set(JUDGED)
        fitting = [load_judge(name) for name in JUDGES] if ours else []
        print_rated(close_sitting(sitting, fitting))
