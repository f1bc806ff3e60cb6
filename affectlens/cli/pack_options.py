"""Options of commands that steer a model with a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import DEFAULT_RUN

PackRun = Annotated[
    Path | None,
    typer.Option("--run", help=f"Run folder with a pack; default: {DEFAULT_RUN}, or the box."),
]
PackName = Annotated[
    str | None, typer.Option("--pack", help="A file, or a name: see `affectlens packs list`.")
]
PackModel = Annotated[
    str | None, typer.Option("--model", help="Default: the model the pack was made for.")
]
Mode = Annotated[str | None, typer.Option("--mode", help="circuit or residual.")]
System = Annotated[str | None, typer.Option("--system", help="System prompt.")]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply.")]
OtherModel = Annotated[bool, typer.Option("--force", help="Use a pack of another model.")]
