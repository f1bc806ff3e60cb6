"""The command line: argument parsing only; each command calls one function below it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_RUN = Path("runs/demo")
DEFAULT_MODEL = "smollm2-135m-instruct"

app = typer.Typer(
    help="Find where emotion lives in open language models, and turn it like a dial.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Names, weights and anatomy of models.", no_args_is_help=True)
datasets_app = typer.Typer(help="Corpora: list, look into, check.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")

Out = Annotated[Path, typer.Option("--out", help="Run folder; work already done there is kept.")]
Model = Annotated[str, typer.Option("--model", help="Built-in name, hub id, folder or GGUF file.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; default: the best.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="bfloat16, float16, float32; default: what is fast.")
]
Events = Annotated[
    int | None,
    typer.Option("--events", min=1, help="Use at most so many scenarios to tune and to test."),
]
Force = Annotated[bool, typer.Option("--force", help="Redo stages even if nothing changed.")]


@app.callback(invoke_without_command=True)
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what happens.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from affectlens.core.artefact import package_version

        typer.echo(package_version())
        raise typer.Exit
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


@contextmanager
def _sentences() -> Generator[None, None, None]:
    """End every failure in one sentence and a non-zero exit; tracebacks only with ``--debug``."""
    from affectlens.core import AffectLensError

    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        typer.echo("Interrupted; run the same command again to go on from here.", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise typer.Exit(1) from None
    except Exception as error:
        if _debugging():
            raise
        if isinstance(error, AffectLensError):
            message = str(error)
        else:
            message = f"{type(error).__name__}: {error} (--debug shows where)"
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(1) from None


def _debugging() -> bool:
    return logging.getLogger().getEffectiveLevel() <= logging.DEBUG


def _stage(until: str | None, **options: Any) -> None:
    with _sentences():
        from affectlens.pipeline import RunConfig
        from affectlens.pipeline.console import run_with_progress

        run_with_progress(RunConfig.checked(**options), until=until)


@app.command()
def run(
    model: Model = DEFAULT_MODEL,
    out: Out = DEFAULT_RUN,
    device: Device = None,
    dtype: Dtype = None,
    events: Events = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    force: Force = False,
) -> None:
    """Do all stages: from text to a steered model and a report."""
    _stage(
        None,
        model=model,
        out=out,
        device=device,
        dtype=dtype,
        events=events,
        seed=seed,
        force=force,
    )


def _add_stage(name: str, text: str) -> None:
    def command(
        model: Model = DEFAULT_MODEL,
        out: Out = DEFAULT_RUN,
        device: Device = None,
        dtype: Dtype = None,
        events: Events = None,
        seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
        force: Force = False,
    ) -> None:
        _stage(
            name,
            model=model,
            out=out,
            device=device,
            dtype=dtype,
            events=events,
            seed=seed,
            force=force,
        )

    app.command(name, help=f"{text} Does the stages it needs first, unless they are done.")(command)


_add_stage("express", "Let the model express each emotion.")
_add_stage("capture", "Cache activations of the corpora.")
_add_stage("probe", "Fit a probe per layer.")
_add_stage("directions", "Find the emotion directions.")
_add_stage("circuit", "Find the neurons and heads that write them.")
_add_stage("pack", "Fold directions and circuit into a steering pack.")
_add_stage("tune", "Choose strengths on the tuning scenarios.")
_add_stage("evaluate", "Compare the arms on the test scenarios.")
_add_stage("judge", "Measure the judges on texts they have not seen.")
_add_stage("report", "Write report.html and metrics.json.")


@app.command()
def steer(
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    emotion: Annotated[str, typer.Option("--emotion", "-e", help="anger=0.8,sadness=-0.2")],
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
    with _sentences():
        from affectlens.pipeline.console import print_steered

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


@models_app.command("list")
def models_list() -> None:
    """Built-in models, and whether they are on this machine."""
    with _sentences():
        from affectlens.models.registry import list_models
        from affectlens.pipeline.console import print_models

        print_models(list_models())


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument()] = DEFAULT_MODEL) -> None:
    """Fetch and convert a built-in model now."""
    with _sentences():
        from affectlens.models.registry import pull

        typer.echo(str(pull(name)))


@models_app.command("info")
def models_info(name: Annotated[str, typer.Argument()] = DEFAULT_MODEL) -> None:
    """Layers, widths, dtype and fingerprint of a model."""
    with _sentences():
        from affectlens.models import describe
        from affectlens.pipeline.console import print_facts

        print_facts(describe(name))


Columns = Annotated[
    list[str] | None, typer.Option("--column", help="For your own file: emotion=label, text=body.")
]


@datasets_app.command("list")
def datasets_list() -> None:
    """Corpora that can be loaded by name."""
    with _sentences():
        from affectlens.pipeline.console import print_corpora

        print_corpora()


@datasets_app.command("show")
def datasets_show(
    name: Annotated[str, typer.Argument(help="Corpus name, or a JSONL or CSV file.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many records.")] = 7,
    column: Columns = None,
    path: Annotated[
        Path | None, typer.Option("--path", help="Folder of a third-party corpus.")
    ] = None,
) -> None:
    """Print some records."""
    with _sentences():
        from affectlens.pipeline.console import print_records

        print_records(name, n, columns=column, path=path)


@datasets_app.command("check")
def datasets_check(
    name: Annotated[str, typer.Argument(help="Corpus name, or a JSONL or CSV file.")],
    column: Columns = None,
    path: Annotated[
        Path | None, typer.Option("--path", help="Folder of a third-party corpus.")
    ] = None,
) -> None:
    """Look for leakage: affect words, capitals, lengths, gaps. Exit 1 if there is any."""
    with _sentences():
        from affectlens.pipeline.console import print_leakage

        if not print_leakage(name, columns=column, path=path):
            raise typer.Exit(1)


def main() -> None:
    """Entry point of the console script; ``--debug`` may stand anywhere."""
    argv = sys.argv[1:]
    if "--debug" in argv:
        argv = ["--debug", *(a for a in argv if a != "--debug")]
    app(args=argv)
