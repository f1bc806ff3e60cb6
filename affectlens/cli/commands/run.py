"""``affectlens run``, its stages as commands of their own, and ``affectlens steer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from affectlens.cli.program import DEFAULT_MODEL, DEFAULT_RUN, Device, sentences

Out = Annotated[Path, typer.Option("--out", help="Run folder; work already done there is kept.")]
Model = Annotated[str, typer.Option("--model", help="Built-in name, hub id, folder or GGUF file.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="bfloat16, float16, float32; default: what is fast.")
]
Events = Annotated[
    int | None,
    typer.Option("--events", min=1, help="Use at most so many scenarios to tune and to test."),
]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.")]
Backend = Annotated[
    str, typer.Option("--backend", help="What generates the arms: transformers or vllm.")
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

STAGES = {
    "express": "Let the model express each emotion.",
    "activations": "Cache activations of the corpora.",
    "probe": "Fit a probe per layer.",
    "directions": "Find the emotion directions.",
    "circuit": "Find the neurons and heads that write them.",
    "pack": "Fold directions and circuit into a steering pack.",
    "tune": "Choose strengths on the tuning scenarios.",
    "controls": "Refine random units alike, to compare the circuit with.",
    "evaluate": "Compare the arms on the test scenarios.",
    "judge": "Measure the judges on texts they have not seen.",
    "report": "Write report.html and metrics.json.",
}

GENERATING = ("run", "evaluate", "report")
"""Commands that the choice of a backend makes a difference to."""


def add_run_commands(app: typer.Typer) -> None:
    """Add ``run``, a command for each stage of it, and ``steer``."""
    _add_stage(app, "run", None, "Do all stages: from text to a steered model and a report.")
    for name, text in STAGES.items():
        about = f"{text} Does the stages it needs first, unless they are done."
        _add_stage(app, name, name, about)
    app.command()(steer)


def _add_stage(app: typer.Typer, name: str, until: str | None, text: str) -> None:
    def command(
        model: Model = DEFAULT_MODEL,
        out: Out = DEFAULT_RUN,
        device: Device = None,
        dtype: Dtype = None,
        events: Events = None,
        seed: Seed = 0,
        force: Force = False,
    ) -> None:
        _run(until, model=model, out=out, device=device, dtype=dtype, events=events, seed=seed,
             force=force)  # fmt: skip

    def command_with_backend(
        model: Model = DEFAULT_MODEL,
        out: Out = DEFAULT_RUN,
        device: Device = None,
        dtype: Dtype = None,
        events: Events = None,
        seed: Seed = 0,
        backend: Backend = "transformers",
        url: Url = None,
        vllm_python: VllmPython = None,
        force: Force = False,
    ) -> None:
        _run(until, model=model, out=out, device=device, dtype=dtype, events=events, seed=seed,
             backend=backend, url=url, vllm_python=vllm_python, force=force)  # fmt: skip

    app.command(name, help=text)(command_with_backend if name in GENERATING else command)


def _run(until: str | None, **options: Any) -> None:
    with sentences():
        from affectlens.cli.tables import run_with_progress
        from affectlens.pipeline import RunConfig

        run_with_progress(RunConfig.checked(**options), until=until)


def steer(
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    emotion: Annotated[
        list[str],
        typer.Option("--emotion", "-e", help="anger=0.8,sadness=-0.2; repeatable, they add up."),
    ],
    run_folder: Annotated[
        Path, typer.Option("--run", help="Run folder with a pack.")
    ] = DEFAULT_RUN,
    pack: Annotated[Path | None, typer.Option("--pack", help="Pack file instead.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the model the pack was made for.")
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="circuit or residual.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 60,
    device: Device = None,
    dtype: Dtype = None,
    force: Annotated[bool, typer.Option("--force", help="Use a pack of another model.")] = False,
) -> None:
    """Print a steered reply beside the unsteered one."""
    with sentences():
        from affectlens.cli.tables import print_steered

        print_steered(
            prompt,
            emotion,
            pack_file=pack or run_folder / "pack.safetensors",
            model=model,
            mode=mode,
            system=system,
            max_new_tokens=max_new_tokens,
            device=device,
            dtype=dtype,
            force=force,
        )
