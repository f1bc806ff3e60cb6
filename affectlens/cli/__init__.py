"""The command line: argument parsing only; each command calls one function below it."""

from affectlens.cli.commands.activations import add_capture_command, store_app
from affectlens.cli.commands.bakeoff import add_bakeoff_command
from affectlens.cli.commands.circuit_attribution import circuit_app
from affectlens.cli.commands.circuit_evidence import add_evidence_commands
from affectlens.cli.commands.compare import add_compare_command
from affectlens.cli.commands.datasets import datasets_app
from affectlens.cli.commands.dialogue import add_dialogue_command
from affectlens.cli.commands.events import add_events_command
from affectlens.cli.commands.export import add_export_command
from affectlens.cli.commands.import_ import add_import_command
from affectlens.cli.commands.judges import judges_app
from affectlens.cli.commands.labels import labels_app
from affectlens.cli.commands.lists import add_list_command
from affectlens.cli.commands.models import models_app
from affectlens.cli.commands.packs import packs_app
from affectlens.cli.commands.play import add_play_command
from affectlens.cli.commands.probe import probe_app
from affectlens.cli.commands.rate import add_rate_command
from affectlens.cli.commands.reproduce import add_reproduce_command
from affectlens.cli.commands.run import add_run_command, add_stage_commands
from affectlens.cli.commands.serve import add_serve_command
from affectlens.cli.commands.side_effects import add_side_effects_command
from affectlens.cli.commands.steer import add_steer_command
from affectlens.cli.commands.tune import tune_app
from affectlens.cli.program import PARTS, app, main
from affectlens.cli.repeated_options import refuse_repetition

__all__ = ["app", "main"]

add_evidence_commands(circuit_app)
add_run_command(app)
add_steer_command(app)
add_dialogue_command(app)
add_play_command(app)
add_bakeoff_command(app)
add_serve_command(app)
add_reproduce_command(app)
add_stage_commands(app, {"circuit": circuit_app, "probe": probe_app, "tune": tune_app})
add_capture_command(app)
add_compare_command(app)
add_events_command(app)
add_export_command(app)
add_import_command(app)
add_side_effects_command(app)
add_rate_command(app)
app.add_typer(store_app, name="store", rich_help_panel=PARTS)
app.add_typer(models_app, name="models", rich_help_panel=PARTS)
app.add_typer(datasets_app, name="datasets", rich_help_panel=PARTS)
app.add_typer(labels_app, name="labels", rich_help_panel=PARTS)
app.add_typer(packs_app, name="packs", rich_help_panel=PARTS)
app.add_typer(judges_app, name="judges", rich_help_panel=PARTS)
add_list_command(app)
refuse_repetition(app)
