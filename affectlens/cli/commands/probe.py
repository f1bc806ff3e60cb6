"""``affectlens probe``: the stage, and what else is done with probes."""

from __future__ import annotations

import typer

from affectlens.cli.commands.probe_causal import add_causal_command
from affectlens.cli.commands.probe_reading import add_reading_commands
from affectlens.cli.commands.probe_study import add_study_commands
from affectlens.cli.commands.probe_sweep import add_sweep_command

probe_app = typer.Typer()
"""Its callback is the stage; see `affectlens.cli.commands.run`."""

add_sweep_command(probe_app)
add_reading_commands(probe_app)
add_causal_command(probe_app)
add_study_commands(probe_app)
