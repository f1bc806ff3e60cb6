"""What goes by name: every registry of the package as a table."""

from __future__ import annotations

from importlib import import_module

PAGE = "reference/names.md"


def pages() -> dict[str, str]:
    """The page of `affectlens list`."""
    from affectlens.cli.commands.lists import TABLES

    parts = [
        "# What goes by name\n\n"
        "Everything that options, specs and functions take by name, of every kind; `affectlens "
        "list KIND` prints the same. Each is a file and a row of a table: "
        "[contributing](../contributing.md#adding-things) says where.\n"
    ]
    for kind, place in TABLES.items():
        module, _, name = place.partition(":")
        table = getattr(import_module(module), name)
        rows = [f"| `{row.name}` | {_cell(row.help)} |" for row in table.values()]
        title = kind.replace("_", " ")
        head = (
            f"## {title[0].upper()}{title[1:]}\n\n`{module}.{name}`\n\n"
            "| name | what it is |\n|---|---|"
        )
        parts.append("\n".join([head, *rows]) + "\n")
    return {PAGE: "\n".join(parts)}


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
