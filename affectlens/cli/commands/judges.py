"""``affectlens judges``: how far the built-in judge can be trusted on texts of a new kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, names
from affectlens.cli.program import example, sentences

judges_app = typer.Typer(
    help="The built-in judge: how far it can be trusted.",
    no_args_is_help=True,
    epilog=example("affectlens judges check"),
)


@judges_app.command(
    "check",
    epilog=example(
        "affectlens judges check",
        "affectlens judges check --goemotions FOLDER --repe FOLDER --sources replies,scenarios",
    ),
)
def judges_check(
    goemotions: Annotated[
        Path | None, typer.Option("--goemotions", help="Folder of GoEmotions: fit again.")
    ] = None,
    repe: Annotated[
        Path | None, typer.Option("--repe", help="Folder of RepE's scenarios: fit again.")
    ] = None,
    sources: Annotated[
        str | None, typer.Option("--sources", help="Which to hold out, with commas; default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy on each source that a judge was fitted without: measured before, or now."""
    with sentences():
        from affectlens.cli.judge_tables import print_held_out
        from affectlens.evaluation.judges.leave_one_out import checked, kept

        if goemotions is None and repe is None and sources is None:
            print_held_out(kept(), as_json=as_json)
            return
        print_held_out(checked(goemotions, repe, names(sources)), as_json=as_json)
