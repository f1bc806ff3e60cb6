"""``affectlens serve``: start a steering server, or check one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from affectlens.cli.program import DEFAULT_RUN, FIRST, example, sentences


def add_serve_command(app: typer.Typer) -> None:
    """Add ``serve``; what follows ``--`` goes to the server."""
    add = app.command(
        "serve",
        context_settings={"ignore_unknown_options": False},
        rich_help_panel=FIRST,
        epilog=example(
            "affectlens serve --run runs/mine --port 8000",
            "affectlens serve --check http://127.0.0.1:8000",
        ),
    )
    add(serve)


def serve(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="After --: more arguments of the server.", metavar="[-- ARGUMENTS]"),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            help="A server of `affectlens list servers`; default: vllm where it is installed.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Default: the model the first pack was made for."),
    ] = None,
    pack: Annotated[
        list[str] | None,
        typer.Option("--pack", help="FILE or NAME=FILE, repeatable; default: that of --run."),
    ] = None,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", help=f"Run folder with a pack; default: {DEFAULT_RUN}, or the box."),
    ] = None,
    default: Annotated[
        str | None, typer.Option("--default", help="Spec of requests that bring none: anger=0.5.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="0.0.0.0 to serve other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="To listen on.")] = 8000,
    pack_folder: Annotated[
        Path | None,
        typer.Option("--pack-folder", help="Allow packs of this folder to be loaded over HTTP."),
    ] = None,
    max_packs: Annotated[
        int | None, typer.Option("--max-packs", min=1, help="Default: one more than are given.")
    ] = None,
    reserve: Annotated[
        str | None,
        typer.Option("--reserve", help="all: any pack of the model can be loaded later."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Serve a pack of another model.")] = False,
    python: Annotated[
        str | None, typer.Option("--python", help="Interpreter of the environment with vLLM.")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="URL", help="Say whether the server there steers."),
    ] = None,
    spec: Annotated[
        str | None, typer.Option("--spec", help="With --check: a strong request, anger=2.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", help="What clients must give; with --check: the server's key."),
    ] = None,
) -> None:
    """Start a server that steers, or --check that one does."""
    with sentences():
        from affectlens.core import DataError
        from affectlens.serving.servers import usual_server
        from affectlens.serving.starting import start
        from affectlens.steering.packs import usual_packs

        if check is not None:
            if pack and len(pack) > 1:
                raise DataError("--check looks at one pack; give one --pack.")
            _check(check, spec, pack[0] if pack else None, api_key)
            return
        options: dict[str, Any] = {
            "default": default,
            "pack_folder": None if pack_folder is None else str(pack_folder.resolve()),
            "max_packs": max_packs,
            "reserve": reserve,
            "force": force or None,
            "api_key": api_key,
        }
        start(
            backend or usual_server(python),
            pack or usual_packs(run_folder, DEFAULT_RUN),
            model,
            options,
            python=python,
            extra=["--host", host, "--port", str(port), *(arguments or [])],
            say=lambda text: typer.echo(text, err=True),
        )


def _check(url: str, spec: str | None, pack: str | None, api_key: str | None) -> None:
    from affectlens.serving.checking import Server, check_server

    marks = {True: "ok  ", False: "FAIL", None: "?   "}
    failed = False
    for finding in check_server(Server(url, api_key), spec, pack):
        typer.echo(f"{marks[finding.passed]} {finding.text}")
        failed |= finding.passed is False
    typer.echo("Steering is not active as it should be." if failed else "Steering is active.")
    if failed:
        raise typer.Exit(1)
