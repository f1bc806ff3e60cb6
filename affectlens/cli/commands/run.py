"""``affectlens run``, and its stages as commands of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from affectlens.cli.program import (
    DEFAULT_MODEL,
    DEFAULT_RUN,
    FIRST,
    STAGE,
    Device,
    DeviceMap,
    Dtype,
    Quantize,
    TemplateVar,
    example,
    sentences,
)

Out = Annotated[Path, typer.Option("--out", help="Run folder; work already done there is kept.")]
Model = Annotated[str, typer.Option("--model", help="Built-in name, hub id, folder or GGUF file.")]
Events = Annotated[
    int | None,
    typer.Option("--events", min=1, help="Use at most so many scenarios to tune and to test."),
]
Size = Annotated[str, typer.Option("--size", help="How much is done; see `affectlens list sizes`.")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.")]
Backend = Annotated[
    str,
    typer.Option("--backend", help="What generates the arms; see `affectlens list backends`."),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="With vllm: a server that runs already; default: start one."),
]
VllmPython = Annotated[
    str | None,
    typer.Option("--vllm-python", help="Interpreter of the environment with vLLM, to start one."),
]
Force = Annotated[bool, typer.Option("--force", help="Redo stages even if nothing changed.")]

GENERATING = ("run", "evaluate", "report")
"""Commands that the choice of a backend makes a difference to."""


def add_run_command(app: typer.Typer) -> None:
    """Add ``run``, all stages in one go."""
    about = "All stages: from text to a steered model and a report."
    example = "affectlens run --model smollm2-135m-instruct --out runs/mine"
    _add(app, "run", None, about, FIRST, example)


def add_stage_commands(app: typer.Typer, groups: Mapping[str, typer.Typer]) -> None:
    """Add a command for each stage, which does what it needs first.

    Args:
        app: Where to.
        groups: Stages that have commands of their own below them; alone, they do the stage.
    """
    from affectlens.pipeline.line import STAGES

    for row in STAGES.values():
        example = f"affectlens {row.name} --out runs/mine"
        group = groups.get(row.name)
        _add(app, row.name, row.name, f"{row.help}.", STAGE, example, group)


def _add(
    app: typer.Typer,
    name: str,
    until: str | None,
    text: str,
    panel: str,
    shown: str,
    group: typer.Typer | None = None,
) -> None:
    def command(
        context: typer.Context,
        model: Model = DEFAULT_MODEL,
        out: Out = DEFAULT_RUN,
        device: Device = None,
        device_map: DeviceMap = None,
        dtype: Dtype = None,
        quantize: Quantize = None,
        events: Events = None,
        size: Size = "full",
        seed: Seed = 0,
        template_var: TemplateVar = None,
        force: Force = False,
    ) -> None:
        if context.invoked_subcommand is None:
            _run(until, model=model, out=out, device=device, device_map=device_map, dtype=dtype,
                 quantize=quantize, events=events, size=size, seed=seed, template_var=template_var,
                 force=force)  # fmt: skip

    def command_with_backend(
        model: Model = DEFAULT_MODEL,
        out: Out = DEFAULT_RUN,
        device: Device = None,
        device_map: DeviceMap = None,
        dtype: Dtype = None,
        quantize: Quantize = None,
        events: Events = None,
        size: Size = "full",
        seed: Seed = 0,
        template_var: TemplateVar = None,
        backend: Backend = "transformers",
        url: Url = None,
        vllm_python: VllmPython = None,
        force: Force = False,
    ) -> None:
        _run(until, model=model, out=out, device=device, device_map=device_map, dtype=dtype,
             quantize=quantize, events=events, size=size, seed=seed, template_var=template_var,
             backend=backend, url=url, vllm_python=vllm_python, force=force)  # fmt: skip

    if group is not None:
        group.callback(invoke_without_command=True, help=text, epilog=example(shown))(command)
        app.add_typer(group, name=name, rich_help_panel=panel)
        return
    add = app.command(name, help=text, rich_help_panel=panel, epilog=example(shown))
    add(command_with_backend if name in GENERATING else command)


def _run(until: str | None, template_var: list[str] | None, **options: Any) -> None:
    with sentences():
        from affectlens.cli.tables import run_with_progress
        from affectlens.models.chat.variables import parse_variables
        from affectlens.pipeline import RunConfig

        options["template_variables"] = parse_variables(template_var or ())
        run_with_progress(RunConfig.checked(**options), until=until)
