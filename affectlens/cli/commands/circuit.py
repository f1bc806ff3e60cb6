"""``affectlens circuit``: the stage, and what can be asked of a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.commands.efficiency import efficiency
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
    whole_numbers,
)
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences

circuit_app = typer.Typer()
"""Its callback is the stage; see `affectlens.cli.commands.run`."""

_SHOWN = example(
    "affectlens circuit ablate --out runs/mine --counts 8,32,128",
    "affectlens circuit ablate --circuit my.safetensors --corpus replies --role test --kind heads",
)


COUNTS = (8, 32, 128)

circuit_app.command(
    "efficiency", epilog=example("affectlens circuit efficiency --out runs/mine --counts 16,32,64")
)(efficiency)


@circuit_app.command("ablate", epilog=_SHOWN)
def ablate(
    out: Out = DEFAULT_RUN,
    circuit: CircuitFile = None,
    task: TaskName = "carry_over",
    corpus: TaskCorpus = "replies",
    role: Role = "tune",
    means_corpus: MeansCorpus = "replies",
    means_role: MeansRole = "direction",
    kind: Annotated[str, typer.Option("--kind", help="neurons or heads.")] = "neurons",
    counts: Counts = None,
    by: Annotated[
        str, typer.Option("--by", help="What takes a unit's place: mean, resample or zero.")
    ] = "mean",
    draws: Draws = 20,
    groups: Annotated[
        int | None, typer.Option("--groups", min=2, help="At most so many items of the task.")
    ] = None,
    seed: DrawsSeed = 0,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Default: ablation_KIND_BY.safetensors beside it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Does a task suffer without the circuit's units, and without random ones beside?"""
    with sentences():
        from affectlens.circuits.evidence import AblationSettings
        from affectlens.cli.tables import print_ablation
        from affectlens.pipeline.ablate import ablate_circuit
        from affectlens.pipeline.circuit_task import TaskRequest, counts_within
        from affectlens.pipeline.corpus_choice import CorpusChoice

        file = circuit_file(circuit, out)
        many = whole_numbers("--counts", counts) if counts else counts_within(file, kind, COUNTS)
        curve = ablate_circuit(
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
            AblationSettings(kind=kind, counts=many, by=by, draws=draws, seed=seed),
        )
        target = save or file.parent / f"ablation_{kind}_{by}.safetensors"
        curve.save(target)
        print_ablation(curve, target, as_json=as_json)
