"""``affectlens circuit find``, ``patch`` and ``edges``: what units and edges are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli.commands.circuit import circuit_app
from affectlens.cli.options import (
    AsJson,
    CircuitFile,
    MeansCorpus,
    MeansRole,
    Model,
    Out,
    Role,
    TaskCorpus,
    TaskName,
    circuit_file,
)
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences

if TYPE_CHECKING:
    from affectlens.pipeline.circuit_task import TaskRequest

Items = Annotated[int | None, typer.Option("--items", min=1, help="At most so many items.")]
Emotions = Annotated[
    str | None, typer.Option("--emotions", help="Commas between; default: the circuit's.")
]
Save = Annotated[Path | None, typer.Option("--save", help="Default: beside the circuit.")]


@circuit_app.command(
    "find",
    epilog=example("affectlens circuit find --strategy eap_ig --neurons 64 --heads 4"),
)
def find(
    strategy: Annotated[
        str, typer.Option("--strategy", help="See `affectlens list strategies`.")
    ] = "attribution_patching",
    neurons: Annotated[int, typer.Option("--neurons", min=0, help="Of each emotion.")] = 64,
    heads: Annotated[int, typer.Option("--heads", min=0, help="Of each emotion.")] = 4,
    delta: Annotated[
        str, typer.Option("--delta", help="What is added: group, or carried.")
    ] = "group",
    out: Out = DEFAULT_RUN,
    circuit: CircuitFile = None,
    task: TaskName = "carry_over",
    corpus: TaskCorpus = "replies",
    role: Role = "direction",
    means: MeansCorpus = "replies",
    means_role: MeansRole = "tune",
    items: Items = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """A circuit by another way of choosing its units, from the run's own."""
    with sentences():
        from affectlens.cli.tables import print_rows
        from affectlens.pipeline.attribute import find_by_strategy

        request = _request(
            out, circuit, (task, corpus, role, items), (means, means_role), (model, device, dtype)
        )
        found = find_by_strategy(request, strategy, neurons, heads, delta=delta)
        target = save or request.circuit_file.parent / f"circuit_{strategy}.safetensors"
        found.save(target)
        print_rows(found.table(top=neurons + heads), target, as_json=as_json)


@circuit_app.command(
    "patch", epilog=example("affectlens circuit patch --out runs/mine --items 4 --emotions anger")
)
def patch(
    out: Out = DEFAULT_RUN,
    circuit: CircuitFile = None,
    emotions: Emotions = None,
    task: TaskName = "carry_over",
    corpus: TaskCorpus = "replies",
    role: Role = "tune",
    means: MeansCorpus = "replies",
    means_role: MeansRole = "direction",
    items: Items = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """What every head is worth to a task's margin, exactly, beside what it writes directly."""
    with sentences():
        from affectlens.cli.tables import print_rows
        from affectlens.pipeline.attribute import patch_maps, rows_of, save_patch_figures

        request = _request(
            out, circuit, (task, corpus, role, items), (means, means_role), (model, device, dtype)
        )
        scores, direct = patch_maps(request, _names(emotions))
        target = save or request.circuit_file.parent / f"patch_{task}.safetensors"
        scores.save(target)
        save_patch_figures(scores, direct, target)
        print_rows(rows_of(scores, direct), target, as_json=as_json)


@circuit_app.command(
    "edges", epilog=example("affectlens circuit edges --out runs/mine --items 8 --emotions anger")
)
def edges(
    out: Out = DEFAULT_RUN,
    circuit: CircuitFile = None,
    emotions: Emotions = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="1: EAP; more: EAP-IG between pairs of texts.")
    ] = 1,
    corrected: Annotated[
        bool, typer.Option("--corrected", help="Run attention on what it would read.")
    ] = False,
    count: Annotated[int, typer.Option("--count", min=1, help="Edges shown an emotion.")] = 40,
    task: TaskName = "carry_over",
    corpus: TaskCorpus = "replies",
    role: Role = "tune",
    means: MeansCorpus = "replies",
    means_role: MeansRole = "direction",
    items: Items = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Save = None,
    as_json: AsJson = False,
) -> None:
    """What every edge between heads, MLPs and the unembedding is worth to a task's margin."""
    with sentences():
        from affectlens.cli.tables import print_rows
        from affectlens.pipeline.attribute import edges_of, save_edge_figures

        request = _request(
            out, circuit, (task, corpus, role, items), (means, means_role), (model, device, dtype)
        )
        scores, written = edges_of(request, _names(emotions), steps=steps, corrected=corrected)
        target = save or request.circuit_file.parent / f"edges_{task}.safetensors"
        scores.save(target)
        save_edge_figures(scores, written, target, count)
        rows: list[dict[str, Any]] = scores.table_rows(count)
        print_rows(rows, target, as_json=as_json)


def _request(
    out: Path,
    circuit: Path | None,
    task: tuple[str, str, str, int | None],
    means: tuple[str, str],
    model: tuple[str | None, str | None, str | None],
) -> TaskRequest:
    from affectlens.pipeline.circuit_task import TaskRequest
    from affectlens.pipeline.corpus_choice import CorpusChoice

    name, corpus, role, items = task
    return TaskRequest(
        circuit_file=circuit_file(circuit, out),
        corpus=CorpusChoice(corpus, role=[role]),
        means=CorpusChoice(means[0], role=[means[1]]),
        task=name,
        items=items,
        model=model[0],
        device=model[1],
        dtype=model[2],
    )


def _names(emotions: str | None) -> list[str] | None:
    return None if emotions is None else [name.strip() for name in emotions.split(",")]
