"""The command line: argument parsing only; each command calls one function below it."""

from affectlens.cli.activations import capture, store_app
from affectlens.cli.datasets import datasets_app
from affectlens.cli.models import models_app
from affectlens.cli.program import app, main
from affectlens.cli.run import add_run_commands

__all__ = ["app", "main"]

add_run_commands(app)
app.command()(capture)
app.add_typer(store_app, name="store")
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")
