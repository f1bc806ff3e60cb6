"""The command line: argument parsing only; each command calls one function below it."""

from affectlens.cli.activations import capture, store_app
from affectlens.cli.datasets import datasets_app
from affectlens.cli.models import models_app
from affectlens.cli.once import refuse_repetition
from affectlens.cli.program import app, main
from affectlens.cli.run import add_run_commands
from affectlens.cli.serve import add_serve_command

__all__ = ["app", "main"]

add_run_commands(app)
app.command()(capture)
add_serve_command(app)
app.add_typer(store_app, name="store")
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")
refuse_repetition(app)
