"""``affectlens probe``: the stage, and what else is done with probes."""

from __future__ import annotations

import typer

from affectlens.cli.commands.probe_sweep import add_sweep_command

probe_app = typer.Typer()
"""Its callback is the stage; see `affectlens.cli.commands.run`."""

add_sweep_command(probe_app)
