"""``affectlens circuit evidence`` and ``affectlens circuit show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences

DECIDING = "ablation,faithfulness,stability"

Out = Annotated[Path, typer.Option("--out", help="Run folder with the circuit.")]
Own = Annotated[
    Path | None, typer.Option("--circuit", help="A circuit's file; default: the run's.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--save", help="Folder of the parts; default: NAME_evidence beside the circuit."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")]


def add_evidence_commands(app: typer.Typer) -> None:
    """Add both commands."""
    app.command(
        "evidence",
        epilog=example(
            "affectlens circuit evidence --out runs/mine --groups 8 --draws 10",
            "affectlens circuit evidence --circuit my.safetensors --corpus replies --role test",
        ),
    )(evidence)
    app.command(
        "show",
        epilog=example(
            "affectlens circuit show --out runs/mine",
            "affectlens circuit show --circuit my.safetensors --part faithfulness",
        ),
    )(show)


def evidence(
    out: Out = DEFAULT_RUN,
    circuit: Own = None,
    task: Annotated[
        str, typer.Option("--task", help="See `affectlens list tasks`.")
    ] = "carry_over",
    corpus: Annotated[
        str, typer.Option("--corpus", help="Texts of the task: a name, or a file.")
    ] = "replies",
    role: Annotated[str, typer.Option("--role", help="Texts that make the task.")] = "tune",
    means_corpus: Annotated[
        str, typer.Option("--means-corpus", help="Replies that units' means are taken of.")
    ] = "replies",
    means_role: Annotated[
        str, typer.Option("--means-role", help="Which of these replies.")
    ] = "direction",
    parts: Annotated[
        str, typer.Option("--parts", help="Names with commas between, or all.")
    ] = DECIDING,
    counts: Annotated[
        str, typer.Option("--counts", help="How many units, the highest scores first.")
    ] = "2,8,32,128",
    draws: Annotated[
        int, typer.Option("--draws", min=2, help="Random sets of units beside each.")
    ] = 20,
    per_text: Annotated[
        int | None, typer.Option("--per-text", min=1, help="Draws each text has; default: all.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="What takes a unit's place: mean or resample.")
    ] = "mean",
    shares: Annotated[
        str, typer.Option("--shares", help="Percent of all units that are left, rising.")
    ] = "0.1,0.5,1,2,5,10,20,50,100",
    groups: Annotated[
        int | None, typer.Option("--groups", min=2, help="At most so many items of the task.")
    ] = None,
    directions: Annotated[
        Path | None,
        typer.Option("--directions", help="The circuit was found with; default: the run's."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the circuit's own, by name.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Put a circuit to all tests: necessary, sufficient, specific, stable? Resumable by part."""
    with sentences():
        from affectlens.circuits.evidence import (
            AblationSettings,
            EnhancementSettings,
            FaithfulnessSettings,
            IdentitySettings,
            MinimalitySettings,
            StabilitySettings,
        )
        from affectlens.circuits.evidence.parts import PARTS
        from affectlens.circuits.evidence.study import StudySettings
        from affectlens.cli.consoles import stderr
        from affectlens.cli.evidence_tables import print_evidence
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.pipeline.evidence import EvidenceRequest, circuit_evidence
        from affectlens.pipeline.stages.circuit import CIRCUIT
        from affectlens.pipeline.stages.directions import DIRECTIONS

        many = tuple(int(n) for n in numbers(counts, "--counts"))
        file = circuit or out / CIRCUIT
        found_with = directions or (None if circuit else out / DIRECTIONS)
        folder = save or _folder(file)
        curve = {"counts": many, "draws": draws, "per_text": per_text, "seed": seed}
        few = min(draws, 5)
        settings = StudySettings(
            ablation=AblationSettings(**curve, others_per_text=per_text, by=by),  # pyright: ignore[reportArgumentType]
            enhancement=EnhancementSettings(**curve, others_per_text=per_text),  # pyright: ignore[reportArgumentType]
            faithfulness=FaithfulnessSettings(
                shares=tuple(numbers(shares, "--shares")), by=by, draws=few, seed=seed
            ),
            identity=IdentitySettings(draws=few, seed=seed),
            stability=StabilitySettings(seed=seed),
            minimality=MinimalitySettings(draws=few, seed=seed),
        )
        err = stderr()
        found = circuit_evidence(
            EvidenceRequest(
                circuit_file=file,
                corpus=CorpusChoice(corpus, role=[role]),
                means=CorpusChoice(means_corpus, role=[means_role]),
                settings=settings,
                parts=list(PARTS) if parts == "all" else parts.split(","),
                folder=folder,
                task=task,
                groups=groups,
                directions_file=found_with,
                model=model,
                device=device,
                dtype=dtype,
            ),
            lambda name, what: err.print(f"{name:<13} {what}"),
        )
        print_evidence(found, folder, as_json=as_json)


def show(
    out: Out = DEFAULT_RUN,
    circuit: Own = None,
    part: Annotated[
        str | None, typer.Option("--part", help="The numbers of one part of the evidence.")
    ] = None,
    save: Folder = None,
    as_json: AsJson = False,
) -> None:
    """What a circuit is, what may be said of it, and the numbers each word rests on."""
    with sentences():
        from affectlens.cli.evidence_tables import print_circuit, print_part
        from affectlens.pipeline.evidence import shown_circuit
        from affectlens.pipeline.stages.circuit import CIRCUIT
        from affectlens.pipeline.stages.evidence import FOLDER

        file = circuit or out / CIRCUIT
        folder = save or _folder(file)
        if save is None and circuit is None and not folder.is_dir():
            folder = out / FOLDER
        if part is not None:
            print_part(folder, part, as_json=as_json)
            return
        print_circuit(shown_circuit(file, folder), file, folder, as_json=as_json)


def numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them.

    Raises:
        DataError: If one is none.
    """
    from affectlens.core.errors import DataError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DataError(
            f"{option} takes rising numbers with commas between them, not {text!r}."
        ) from None


def _folder(file: Path) -> Path:
    return file.parent / f"{file.stem}_evidence"
