"""``affectlens events``: what is read in a reply while a server writes it."""

from __future__ import annotations

from typing import Annotated

import typer

from affectlens.cli.program import PARTS, example, sentences


def add_events_command(app: typer.Typer) -> None:
    """Add ``events``."""
    shown = 'affectlens events "My train was cancelled." --emotion anger=1'
    piped = 'affectlens events "Tell me a story." | python examples/terminal_face.py'
    app.command("events", rich_help_panel=PARTS, epilog=example(shown, piped))(events)


def events(
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    url: Annotated[str, typer.Option("--url", help="Of the server.")] = "http://127.0.0.1:8000",
    emotion: Annotated[
        str | None, typer.Option("--emotion", "-e", help="What to steer with: anger=0.8.")
    ] = None,
    pack: Annotated[str | None, typer.Option("--pack", help="Default: the server's first.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest reply.")] = 60,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Block that is read behind; default: the last.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="AFFECTLENS_API_KEY", help="If it wants one.")
    ] = None,
) -> None:
    """Emotions of a reply as JSON lines while a server writes it: one object per token."""
    with sentences():
        from affectlens.core.jsonl import json_line
        from affectlens.serving.checking import Server
        from affectlens.serving.emotion_events import listen

        found = listen(
            Server(url, api_key),
            prompt,
            spec=emotion,
            pack=pack,
            max_tokens=max_tokens,
            layer=layer,
        )
        for event in found:
            typer.echo(json_line(event.to_dict()))
