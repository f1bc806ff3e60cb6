"""A page for each command: its help, as typer writes it."""

from __future__ import annotations

from typing import Any

FOLDER = "reference/commands/"
INDEX = f"{FOLDER}index.md"


def pages() -> dict[str, str]:
    """Name → Markdown: one page with all commands in a table, and one for each of them."""
    import typer
    from typer.cli import get_docs_for_click

    from affectlens.cli import app

    program: Any = typer.main.get_command(app)
    context = program.make_context("affectlens", [], resilient_parsing=True)
    panels: dict[str, list[str]] = {}
    made = {INDEX: ""}
    for name, command in program.commands.items():
        line = (command.help or "").strip().splitlines()[0]
        row = f"| [`affectlens {name}`]({name}.md) | {line} |"
        panels.setdefault(command.rich_help_panel, []).append(row)
        text = get_docs_for_click(obj=command, ctx=context, name=f"affectlens {name}")
        made[f"{FOLDER}{name}.md"] = text.strip() + "\n"
    tables = (
        f"## {panel}\n\n| command | what it does |\n|---|---|\n" + "\n".join(rows)
        for panel, rows in panels.items()
    )
    made[INDEX] = (
        "# Commands\n\n"
        "What `--help` says. Every command ends with 0 if it did what it was asked, with 1 and one "
        "sentence on stderr if it could not, with 2 if an option is wrong and with 130 if it was "
        "interrupted; [errors](../errors.md) has more. `--debug` anywhere shows where.\n\n"
        + "\n\n".join(tables)
        + "\n"
    )
    return made
