"""Options that commands of `affectlens circuit` and `probe` share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

_N = TypeVar("_N", int, float)
MAX_SEED = 2**32 - 1

Out = Annotated[Path, typer.Option("--out", help="Run folder with the circuit.")]
CircuitFile = Annotated[
    Path | None, typer.Option("--circuit", help="A circuit's file; default: the run's.")
]
TaskName = Annotated[str, typer.Option("--task", help="See `affectlens list tasks`.")]
TaskCorpus = Annotated[str, typer.Option("--corpus", help="Texts of the task: a name, or a file.")]
Role = Annotated[str, typer.Option("--role", help="Texts that make the task.")]
MeansCorpus = Annotated[
    str, typer.Option("--means-corpus", help="Replies that units' means are taken of.")
]
MeansRole = Annotated[
    str, typer.Option("--means-role", help="Replies whose mean takes a unit's place.")
]
Counts = Annotated[
    str | None,
    typer.Option(
        "--counts", help="How many units, the highest scores first; default: up to 128 or all."
    ),
]
Draws = Annotated[int, typer.Option("--draws", min=2, help="Random sets of units beside each.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of everything random.")]
DrawsSeed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the draws.")]
Model = Annotated[str | None, typer.Option("--model", help="Default: the circuit's own, by name.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")]


def circuit_file(circuit: Path | None, out: Path) -> Path:
    """The file that is named, or the run's."""
    from affectlens.pipeline.stages.circuit import CIRCUIT

    return circuit or out / CIRCUIT


def names(text: str | None) -> tuple[str, ...]:
    """Names with commas between them; none if nothing is given."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        DataError: If one is none.
    """
    return _parts(option, text, float, "")


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them.

    Raises:
        DataError: If one is none.
    """
    return _parts(option, text, int, ", whole ones")


def _parts(option: str, text: str, kind: Callable[[str], _N], more: str) -> tuple[_N, ...]:
    from affectlens.core.errors import DataError

    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise DataError(
            f"{option} takes rising numbers with commas between them{more}, not {text!r}."
        ) from None
