"""``affectlens circuit evidence``, ``show`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import (
    AsJson,
    CircuitFile,
    Counts,
    Draws,
    DrawsSeed,
    MeansCorpus,
    MeansRole,
    Model,
    Out,
    Role,
    TaskCorpus,
    TaskName,
    circuit_file,
    numbers,
    whole_numbers,
)
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences

DECIDING = "ablation,faithfulness,stability"
COUNTS = (2, 8, 32, 128)

Folder = Annotated[
    Path | None,
    typer.Option("--save", help="Folder of the parts; default: NAME_evidence beside the circuit."),
]


def add_evidence_commands(app: typer.Typer) -> None:
    """Add the commands."""
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
    app.command(
        "compare",
        epilog=example(
            "affectlens circuit compare runs/mine/circuit.safetensors "
            "runs/mine/circuit_eap_ig.safetensors"
        ),
    )(compare)


def evidence(
    out: Out = DEFAULT_RUN,
    circuit: CircuitFile = None,
    task: TaskName = "carry_over",
    corpus: TaskCorpus = "replies",
    role: Role = "tune",
    means_corpus: MeansCorpus = "replies",
    means_role: MeansRole = "direction",
    parts: Annotated[
        str, typer.Option("--parts", help="Names with commas between, or all.")
    ] = DECIDING,
    counts: Counts = None,
    draws: Draws = 20,
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
        typer.Option(
            "--directions", help="The circuit was found with; default: its own, or the run's."
        ),
    ] = None,
    paraphrases: Annotated[
        str | None,
        typer.Option(
            "--paraphrases", help="For stability: the texts of the means in other words, a file."
        ),
    ] = None,
    seed: DrawsSeed = 0,
    model: Model = None,
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
        from affectlens.pipeline.circuit_task import TaskRequest, counts_within
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.pipeline.evidence import EvidenceRequest, circuit_evidence
        from affectlens.pipeline.find import directions_beside
        from affectlens.pipeline.stages.directions import DIRECTIONS

        file = circuit_file(circuit, out)
        many = (
            whole_numbers("--counts", counts) if counts else counts_within(file, "neurons", COUNTS)
        )
        beside = directions_beside(file)
        found_with = directions or (beside if beside.is_file() else None)
        found_with = found_with or (None if circuit else out / DIRECTIONS)
        folder = save or _folder(file)
        curve = {"counts": many, "draws": draws, "per_text": per_text, "seed": seed}
        few = min(draws, 5)
        settings = StudySettings(
            ablation=AblationSettings(**curve, others_per_text=per_text, by=by),  # pyright: ignore[reportArgumentType]
            enhancement=EnhancementSettings(**curve, others_per_text=per_text),  # pyright: ignore[reportArgumentType]
            faithfulness=FaithfulnessSettings(
                shares=numbers("--shares", shares), by=by, draws=few, seed=seed
            ),
            identity=IdentitySettings(draws=few, seed=seed),
            stability=StabilitySettings(seed=seed),
            minimality=MinimalitySettings(draws=few, seed=seed),
        )
        err = stderr()
        found = circuit_evidence(
            EvidenceRequest(
                TaskRequest(
                    circuit_file=file,
                    corpus=CorpusChoice(corpus, role=[role]),
                    means=CorpusChoice(means_corpus, role=[means_role]),
                    task=task,
                    items=groups,
                    model=model,
                    device=device,
                    dtype=dtype,
                ),
                settings,
                tuple(PARTS) if parts == "all" else tuple(parts.split(",")),
                folder,
                found_with,
                None if paraphrases is None else CorpusChoice(paraphrases),
            ),
            lambda name, what: err.print(f"{name:<13} {what}"),
        )
        print_evidence(found, folder, as_json=as_json)


def show(
    out: Out = DEFAULT_RUN,
    circuit: CircuitFile = None,
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
        from affectlens.pipeline.stages.evidence import FOLDER

        file = circuit_file(circuit, out)
        folder = save or _folder(file)
        if save is None and circuit is None and not folder.is_dir():
            folder = out / FOLDER
        if part is not None:
            print_part(folder, part, as_json=as_json)
            return
        print_circuit(shown_circuit(file, folder), file, folder, as_json=as_json)


def compare(
    first: Annotated[Path, typer.Argument(help="A circuit's file.")],
    second: Annotated[Path, typer.Argument(help="Another's, of the same model.")],
    as_json: AsJson = False,
) -> None:
    """Do two circuits have the same units, more than chance would give them?"""
    with sentences():
        from affectlens.circuits.units_in_common import UnitsInCommon
        from affectlens.cli.evidence_tables import print_table
        from affectlens.pipeline.circuit_task import circuit_of

        found = UnitsInCommon.of(circuit_of(first), circuit_of(second))
        title = "Units in both circuits, beside chance; p by Holm"
        print_table(found.table_rows(), title, as_json=as_json)


def _folder(file: Path) -> Path:
    return file.parent / f"{file.stem}_evidence"
