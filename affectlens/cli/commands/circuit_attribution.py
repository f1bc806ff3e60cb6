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
from affectlens.cli.program import (
    DEFAULT_MODEL,
    DEFAULT_RUN,
    Device,
    Dtype,
    example,
    sentences,
)

if TYPE_CHECKING:
    from affectlens.pipeline.circuit_task import TaskRequest

Items = Annotated[int | None, typer.Option("--items", min=1, help="At most so many items.")]
Emotions = Annotated[
    str | None, typer.Option("--emotions", help="Commas between; default: the circuit's.")
]
Save = Annotated[Path | None, typer.Option("--save", help="Default: beside the circuit.")]


@circuit_app.command(
    "find",
    epilog=example(
        "affectlens circuit find --model smollm2-135m-instruct --save mine.safetensors",
        "affectlens circuit find --out runs/mine --strategy eap_ig",
    ),
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
    out: Annotated[
        Path | None, typer.Option("--out", help="Begin with the circuit of this run folder.")
    ] = None,
    circuit: Annotated[
        Path | None, typer.Option("--circuit", help="Begin with the circuit of this file.")
    ] = None,
    task: TaskName = "carry_over",
    corpus: Annotated[
        str, typer.Option("--corpus", help="Texts that units are chosen on: a name, or a file.")
    ] = "replies",
    role: Annotated[str, typer.Option("--role", help="Which of them.")] = "direction",
    means: Annotated[
        str | None, typer.Option("--means-corpus", help="Of units' means; default: the same texts.")
    ] = None,
    means_role: Annotated[
        str, typer.Option("--means-role", help="With --means-corpus: which of them.")
    ] = "direction",
    items: Items = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help=f"Default: that of --out or --circuit, else {DEFAULT_MODEL}."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Default: circuit_STRATEGY.safetensors, beside --circuit."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A circuit from a model and a corpus alone, or by another choice of a circuit's units."""
    with sentences():
        from affectlens.cli.tables import print_rows
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.pipeline.find import FindRequest, find_by_strategy

        begin = None if circuit is None and out is None else circuit_file(circuit, out or Path())
        target = save or (begin or Path()).parent / f"circuit_{strategy}.safetensors"
        found = find_by_strategy(
            FindRequest(
                corpus=CorpusChoice(corpus, role=[role]),
                strategy=strategy,
                neurons=neurons,
                heads=heads,
                delta=delta,
                task=task,
                items=items,
                means=None if means is None else CorpusChoice(means, role=[means_role]),
                begin=begin,
                model=model or (DEFAULT_MODEL if begin is None else None),
                device=device,
                dtype=dtype,
            )
        )
        found.save(target)
        print_rows(found.circuit.table(top=neurons + heads), target, as_json=as_json)


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
    into: Annotated[
        str, typer.Option("--into", help="Where edges end: attention, heads, or qkv of heads.")
    ] = "attention",
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
        scores, written = edges_of(
            request, _names(emotions), steps=steps, corrected=corrected, into=into
        )
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
