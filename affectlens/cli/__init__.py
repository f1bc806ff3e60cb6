"""The command line: argument parsing only; each command calls one function below it."""

from affectlens.cli.commands.activations import capture, store_app
from affectlens.cli.commands.datasets import datasets_app
from affectlens.cli.commands.models import models_app
from affectlens.cli.commands.run import add_run_commands
from affectlens.cli.commands.serve import add_serve_command
from affectlens.cli.program import app, main
from affectlens.cli.repeated_options import refuse_repetition

__all__ = ["app", "main"]

add_run_commands(app)
app.command()(capture)
add_serve_command(app)
app.add_typer(store_app, name="store")
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")
refuse_repetition(app)
