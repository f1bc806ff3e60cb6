"""``affectlens tune``: the stage, and what else is asked about strengths."""

from __future__ import annotations

import typer

from affectlens.cli.commands.tune_intensity import add_intensity_command
from affectlens.cli.commands.tune_search import add_search_command

tune_app = typer.Typer()
"""Its callback is the stage; see `affectlens.cli.commands.run`."""

add_search_command(tune_app)
add_intensity_command(tune_app)
