"""``affectlens play``: the playground in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import DEFAULT_RUN, FIRST, example, sentences


def add_play_command(app: typer.Typer) -> None:
    """Add ``play``."""
    add = app.command(
        "play",
        rich_help_panel=FIRST,
        epilog=example(
            "affectlens play --run runs/mine", "affectlens play --url http://127.0.0.1:8000"
        ),
    )
    add(play)


def play(
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", help=f"Run folder with a pack; default: {DEFAULT_RUN}, or the box."),
    ] = None,
    pack: Annotated[
        list[str] | None,
        typer.Option("--pack", help="FILE or NAME=FILE, repeatable; default: that of --run."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the model the first pack was made for.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="A steering server that runs already, vLLM or ours."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="Of --url; else what the page has to give.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="0.0.0.0 to let other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Default: 8000, or any that is free."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take a pack of another model.")] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or only say where it is.")
    ] = True,
) -> None:
    """Steer by hand in a browser: sliders, replies side by side, a look into every token."""
    with sentences():
        from affectlens.core import DataError
        from affectlens.serving.playground.playing import PlayRequest
        from affectlens.serving.playground.playing import play as show
        from affectlens.steering.packs import usual_packs

        if url is not None and (pack or model or force):
            raise DataError(
                "--url plays with that server's packs; leave out --pack, --model and --force."
            )
        request = PlayRequest(
            packs=tuple(pack or usual_packs(run_folder, DEFAULT_RUN)),
            model=model,
            url=url,
            api_key=api_key,
            host=host,
            port=port,
            force=force,
            browser=browser,
        )
        try:
            show(request, lambda text: typer.echo(text))
        except KeyboardInterrupt:
            typer.echo("The playground has ended.")
