"""``affectlens circuit``: the stage, and what can be asked of a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.commands.efficiency import efficiency
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences

circuit_app = typer.Typer()
"""Its callback is the stage; see `affectlens.cli.commands.run`."""

_SHOWN = example(
    "affectlens circuit ablate --out runs/mine --counts 8,32,128",
    "affectlens circuit ablate --circuit my.safetensors --corpus replies --role test --kind heads",
)


circuit_app.command(
    "efficiency", epilog=example("affectlens circuit efficiency --out runs/mine --counts 16,32,64")
)(efficiency)


@circuit_app.command("ablate", epilog=_SHOWN)
def ablate(
    out: Annotated[Path, typer.Option("--out", help="Run folder with the circuit.")] = DEFAULT_RUN,
    circuit: Annotated[
        Path | None, typer.Option("--circuit", help="A circuit's file; default: the run's.")
    ] = None,
    corpus: Annotated[
        str, typer.Option("--corpus", help="Matched replies: a name, or a file.")
    ] = "replies",
    role: Annotated[str, typer.Option("--role", help="Replies that make the task.")] = "tune",
    means_role: Annotated[
        str, typer.Option("--means-role", help="Replies whose mean takes a unit's place.")
    ] = "direction",
    kind: Annotated[str, typer.Option("--kind", help="neurons or heads.")] = "neurons",
    counts: Annotated[
        str, typer.Option("--counts", help="How many units, the highest scores first.")
    ] = "8,32,128",
    by: Annotated[
        str, typer.Option("--by", help="What takes a unit's place: mean, resample or zero.")
    ] = "mean",
    draws: Annotated[
        int, typer.Option("--draws", min=2, help="Random sets of as many units beside each.")
    ] = 20,
    groups: Annotated[
        int | None, typer.Option("--groups", min=2, help="At most so many groups of replies.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the circuit's own, by name.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Default: ablation_KIND_BY.safetensors beside it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")] = False,
) -> None:
    """Does a tone carry over less without the circuit's units, and random ones beside?"""
    with sentences():
        from affectlens.circuits.evidence import AblationSettings
        from affectlens.cli.tables import print_ablation
        from affectlens.core.errors import DataError
        from affectlens.pipeline.ablate import AblationRequest, ablate_circuit
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.pipeline.stages.circuit import CIRCUIT

        try:
            many = tuple(int(part) for part in counts.split(","))
        except ValueError:
            raise DataError(
                f"--counts takes rising numbers with commas between them, not {counts!r}."
            ) from None
        file = circuit or out / CIRCUIT
        curve = ablate_circuit(
            AblationRequest(
                circuit_file=file,
                corpus=CorpusChoice(corpus, role=[role]),
                means=CorpusChoice(corpus, role=[means_role]),
                settings=AblationSettings(kind=kind, counts=many, by=by, draws=draws, seed=seed),
                groups=groups,
                model=model,
                device=device,
                dtype=dtype,
            )
        )
        target = save or file.parent / f"ablation_{kind}_{by}.safetensors"
        curve.save(target)
        print_ablation(curve, target, as_json=as_json)
