"""``affectlens steer``: one prompt, with and without steering."""

from __future__ import annotations

from typing import Annotated

import typer

from affectlens.cli.pack_options import (
    Mode,
    NewTokens,
    OtherModel,
    PackModel,
    PackName,
    PackRun,
    System,
)
from affectlens.cli.program import (
    DEFAULT_RUN,
    FIRST,
    Device,
    DeviceMap,
    Dtype,
    Quantize,
    TemplateVar,
    example,
    sentences,
)


def add_steer_command(app: typer.Typer) -> None:
    """Add ``steer``."""
    shown = 'affectlens steer "My train was cancelled." -e anger=1'
    mine = f"{shown} --run runs/mine"
    app.command("steer", rich_help_panel=FIRST, epilog=example(shown, mine))(steer)


def steer(
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    emotion: Annotated[
        list[str],
        typer.Option("--emotion", "-e", help="anger=0.8,sadness=-0.2; repeatable, they add up."),
    ],
    run_folder: PackRun = None,
    pack: PackName = None,
    model: PackModel = None,
    mode: Mode = None,
    system: System = None,
    max_new_tokens: NewTokens = 60,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    template_var: TemplateVar = None,
    force: OtherModel = False,
) -> None:
    """Print a steered reply beside the unsteered one."""
    with sentences():
        from affectlens.cli.tables import print_steered
        from affectlens.models.chat.variables import parse_variables
        from affectlens.pipeline.steer import SteerRequest, steer_beside
        from affectlens.steering.packs import usual_packs

        request = SteerRequest(
            prompt=prompt,
            emotion=emotion,
            pack_file=pack or usual_packs(run_folder, DEFAULT_RUN)[0],
            model=model,
            mode=mode,
            system=system,
            max_new_tokens=max_new_tokens,
            device=device,
            device_map=device_map,
            dtype=dtype,
            quantize=quantize,
            force=force,
            template_variables=None if template_var is None else parse_variables(template_var),
        )
        print_steered(steer_beside(request))
