"""Options of commands that generate replies: by what, and where that is."""

from __future__ import annotations

from typing import Annotated

import typer

Backend = Annotated[
    str,
    typer.Option("--backend", help="What generates; see `affectlens list backends`."),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="A vLLM server or a Ray cluster that is there; default: start one."),
]
VllmPython = Annotated[
    str | None,
    typer.Option("--vllm-python", help="Interpreter of the environment with vLLM, to start one."),
]
