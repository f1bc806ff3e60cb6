"""``affectlens dialogue``: messages answered turn by turn, as a policy chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson
from affectlens.cli.pack_options import (
    Mode,
    NewTokens,
    OtherModel,
    PackModel,
    PackName,
    PackRun,
    System,
)
from affectlens.cli.program import DEFAULT_RUN, FIRST, Device, Dtype, example, sentences


def add_dialogue_command(app: typer.Typer) -> None:
    """Add ``dialogue``."""
    mirrored = 'affectlens dialogue "They gave my desk away." "Nobody asked me." --policy mirror'
    moody = "affectlens dialogue --file messages.txt --policy 'transition;traits=neuroticism:0.8'"
    app.command("dialogue", rich_help_panel=FIRST, epilog=example(mirrored, moody))(dialogue)


def dialogue(
    messages: Annotated[
        list[str] | None,
        typer.Argument(help="What the user says; default: lines as they are typed or piped."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="One message a line.")] = None,
    policy: Annotated[
        str,
        typer.Option(
            "--policy", help="mirror, or with settings: transition;decay=0.2; see `list policies`."
        ),
    ] = "transition",
    run_folder: PackRun = None,
    pack: PackName = None,
    model: PackModel = None,
    mode: Mode = None,
    unit: Annotated[
        str, typer.Option("--unit", help="Of strengths: recommended, heard, …")
    ] = "recommended",
    system: System = None,
    max_new_tokens: NewTokens = 60,
    device: Device = None,
    dtype: Dtype = None,
    force: OtherModel = False,
    as_json: AsJson = False,
) -> None:
    """Answer a user turn by turn: what they are read as, the mood, what is steered, the reply."""
    with sentences():
        from affectlens.cli.dialogue_screen import print_turn, said
        from affectlens.pipeline.dialogue import DialogueRequest, hold_dialogue
        from affectlens.steering.packs import usual_packs

        request = DialogueRequest(
            policy=policy,
            pack_file=pack or usual_packs(run_folder, DEFAULT_RUN)[0],
            model=model,
            mode=mode,
            unit=unit,
            system=system,
            max_new_tokens=max_new_tokens,
            device=device,
            dtype=dtype,
            force=force,
        )
        for turn in hold_dialogue(request, said(messages, file)):
            print_turn(turn, as_json=as_json)
