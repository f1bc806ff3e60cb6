"""The program itself: global options, options several commands share, and how failures end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_RUN = Path("runs/demo")
DEFAULT_MODEL = "smollm2-135m-instruct"

FIRST = "Start here"
STAGE = "Stages of a run, each with those it needs first"
PARTS = "Activations, models, corpora"
"""Groups of the commands, in the order of ``--help``."""


_FOREIGN = ("torchao", "torchao.kernel.intmm", "torch.utils._pytree")
"""Libraries that warn at import of what no command of ours uses."""


def example(*lines: str) -> str:
    """What ``--help`` ends with."""
    return f"Example{'s' if len(lines) > 1 else ''}: {'; '.join(lines)}"


app = typer.Typer(
    help="Find where emotion lives in open language models, and turn it like a dial.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; default: the best.")]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", help="auto: over all devices, main memory and the disk."),
]
Quantize = Annotated[
    str | None,
    typer.Option("--quantize", help="While loading: int8, int4, bnb8, bnb4, hqq8, hqq4."),
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="bfloat16, float16, float32; default: what is fast.")
]
TemplateVar = Annotated[
    list[str] | None,
    typer.Option(
        "--template-var",
        help="NAME=VALUE for the chat template, such as enable_thinking=true; repeatable.",
    ),
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="For your own file: emotion=label, text=body.")
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Labels of your file: plutchik, joy,trust,…, a file, or any."),
]
Several = Annotated[
    str | None,
    typer.Option("--several", help="Rows of your file with several labels: refuse, first, drop."),
]
CorpusPath = Annotated[Path | None, typer.Option("--path", help="Folder of a third-party corpus.")]
CorpusName = Annotated[str, typer.Argument(help="Corpus name, or a JSON, JSONL or CSV file.")]


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
    for name in _FOREIGN if level == logging.WARNING else ():
        logging.getLogger(name).setLevel(logging.ERROR)
    # Hours of work that nobody watches leave a line every half minute, asked for or not.
    logging.getLogger("affectlens.core.progress").setLevel(min(level, logging.INFO))


@contextmanager
def sentences() -> Generator[None, None, None]:
    """End every failure in one sentence and a non-zero exit; tracebacks only with ``--debug``."""
    from affectlens.core import AffectLensError
    from affectlens.core.extras import lacking

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
        elif (lacks := lacking(error)) is not None:
            message = lacks
        else:
            message = f"{type(error).__name__}: {error} (--debug shows where)"
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(1) from None


def _debugging() -> bool:
    return logging.getLogger().getEffectiveLevel() <= logging.DEBUG


def main() -> None:
    """Entry point of the console script; ``--debug`` may stand anywhere."""
    argv = sys.argv[1:]
    if "--debug" in argv:
        argv = ["--debug", *(a for a in argv if a != "--debug")]
    app(args=argv)
