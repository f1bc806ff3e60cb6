"""``affectlens reproduce``: published studies on any model, each figure beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import Seed
from affectlens.cli.program import (
    DEFAULT_MODEL,
    FIRST,
    Device,
    TemplateVar,
    example,
    sentences,
)

_SHOWN = example(
    "affectlens reproduce",
    "affectlens reproduce emotion-circuits --groups 16 --events 6 --accept all",
    "affectlens reproduce emotion-circuits --model M --scenarios sev.jsonl --test test_set.jsonl "
    "--endpoint http://127.0.0.1:8001 --endpoint-model judge",
)


def add_reproduce_command(app: typer.Typer) -> None:
    """Add ``reproduce``."""
    app.command("reproduce", rich_help_panel=FIRST, epilog=_SHOWN)(reproduce)


def reproduce(
    study: Annotated[
        str | None, typer.Argument(help="Which study; default: list them.", metavar="[STUDY]")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Built-in name, hub id, folder or GGUF file.")
    ] = DEFAULT_MODEL,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder, work done there is kept; default: runs/STUDY."),
    ] = None,
    scenarios: Annotated[
        Path | None, typer.Option("--scenarios", help="The study's scenario file; default: ours.")
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", help="A second scenario file to test on; default: a quarter."),
    ] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", help="At most so many contents to fit on.")
    ] = None,
    events: Annotated[
        int | None, typer.Option("--events", help="At most so many contents to test on.")
    ] = None,
    accept: Annotated[
        str, typer.Option("--accept", help="Fit on prompts that the judge accepts, or all: judge.")
    ] = "judge",
    correct: Annotated[
        list[str] | None,
        typer.Option(
            "--correct", help="A correction by name, or all; repeatable. None by default."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", help="OpenAI-compatible server of the judge told the target."),
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", help="What it calls its model.")
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="bfloat16, float16, float32 (as published).")
    ] = "float32",
    template_var: TemplateVar = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Do steps again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")] = False,
) -> None:
    """A published study on your model, each figure beside the paper's."""
    with sentences():
        from affectlens.cli.reproduction_tables import (
            print_comparison,
            print_reproductions,
            reproduce_with_progress,
        )
        from affectlens.models.chat.variables import parse_variables
        from affectlens.reproductions import REPRODUCTIONS, StudyRequest

        if study is None:
            print_reproductions(REPRODUCTIONS, as_json=as_json)
            return
        known = [one.name for one in REPRODUCTIONS[study].corrections]
        named = tuple(correct or ())
        folder = reproduce_with_progress(
            StudyRequest(
                study=study,
                model=model,
                out=out or Path("runs") / study,
                scenarios=scenarios,
                test=test,
                groups=groups,
                events=events,
                accept=accept,
                corrections=tuple(known) if "all" in named else named,
                endpoint=endpoint,
                endpoint_model=endpoint_model,
                device=device,
                dtype=dtype,
                template_variables=parse_variables(template_var or ()),
                seed=seed,
                force=force,
            )
        )
        print_comparison(folder, as_json=as_json)
