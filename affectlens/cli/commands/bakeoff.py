"""``affectlens bakeoff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.generating_options import Backend, Url, VllmPython
from affectlens.cli.options import MAX_SEED, AsJson, names
from affectlens.cli.program import DEFAULT_RUN, FIRST, Device, Dtype, example, sentences


def add_bakeoff_command(app: typer.Typer) -> None:
    """Add ``bakeoff``."""
    shown = example(
        "affectlens bakeoff --out runs/demo",
        "affectlens bakeoff --methods instruction,circuit,reps,random_units --events 10",
    )
    app.command("bakeoff", rich_help_panel=FIRST, epilog=shown)(bakeoff)


def bakeoff(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of a run that is finished; it is only read.")
    ] = DEFAULT_RUN,
    methods: Annotated[
        str, typer.Option("--methods", help="Names of `affectlens list methods`, or all.")
    ] = "all",
    emotions: Annotated[
        str, typer.Option("--emotions", help="Targets, with commas between them, or all.")
    ] = "all",
    events: Annotated[int, typer.Option("--events", min=2, help="Test events answered.")] = 40,
    tune_events: Annotated[
        int, typer.Option("--tune-events", min=1, help="Tuning events of each try.")
    ] = 6,
    looks: Annotated[
        int, typer.Option("--looks", min=2, help="Tries per method and emotion: the budget.")
    ] = 5,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=4, help="Longest reply.")
    ] = 48,
    max_ratio: Annotated[
        float, typer.Option("--max-ratio", min=1.0, help="Perplexity ratio of what is chosen.")
    ] = 2.5,
    model: Annotated[str | None, typer.Option("--model", help="Default: the run's.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "transformers",
    url: Url = None,
    vllm_python: VllmPython = None,
    ray_workers: Annotated[
        int | None,
        typer.Option("--ray-workers", min=1, help="With ray: processes with a model each."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the bootstrap.")] = 0,
    save: Annotated[
        Path | None, typer.Option("--save", help="Folder; default: bakeoff in the run folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All steering methods on one model, tuned alike: table, front, a winner per emotion."""
    with sentences():
        from affectlens.cli.bakeoff_table import print_bake_off
        from affectlens.cli.consoles import told
        from affectlens.core import EMOTIONS, emotion_name
        from affectlens.evaluation.bakeoff import BakeOffSettings
        from affectlens.models.generation.decoding import GenerationSettings
        from affectlens.pipeline.bake_off import bake_off_run, model_of
        from affectlens.pipeline.pack_files import template_variables_of
        from affectlens.pipeline.run_config import RunConfig
        from affectlens.steering.methods import METHODS

        settings = BakeOffSettings(
            methods=tuple(METHODS) if methods == "all" else names(methods),
            emotions=(
                EMOTIONS if emotions == "all" else tuple(emotion_name(e) for e in names(emotions))
            ),
            events=events,
            tune_events=tune_events,
            looks=looks,
            max_perplexity_ratio=max_ratio,
            generation=GenerationSettings(max_new_tokens=max_new_tokens),
            seed=seed,
        )
        config = RunConfig.checked(
            model=model or model_of(out),
            out=out,
            device=device,
            dtype=dtype,
            template_variables=dict(template_variables_of(out)),
            backend=backend,
            url=url,
            vllm_python=vllm_python,
            ray_workers=ray_workers,
        )
        found, folder = bake_off_run(
            config,
            settings,
            folder=save,
            told=told,
        )
        print_bake_off(found, folder, as_json=as_json)
