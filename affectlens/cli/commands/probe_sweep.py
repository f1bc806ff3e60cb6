"""``affectlens probe sweep``: any models, corpora and targets, beside their controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, Seed, names, numbers
from affectlens.cli.program import (
    Columns,
    CorpusPath,
    Device,
    Dtype,
    Labels,
    Several,
    example,
    sentences,
)

_SHOWN = example(
    "affectlens probe sweep --model smollm2-135m-instruct --corpus replies --corpus tones "
    "--controls all --transfer --out sweeps/depth",
    "affectlens probe sweep --model smollm2-135m-instruct --corpus emobank --path data/emobank "
    "--target valence --group id --out sweeps/valence",
)
_FEW = "Repeatable."


def add_sweep_command(app: typer.Typer) -> None:
    """Add ``sweep``."""
    app.command("sweep", epilog=_SHOWN)(sweep)


def sweep(
    model: Annotated[
        list[str], typer.Option("--model", help=f"Name, hub id, folder or GGUF file. {_FEW}")
    ],
    corpus: Annotated[
        list[str], typer.Option("--corpus", help=f"A name, or your own file. {_FEW}")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder; what is finished there is kept.")],
    sites: Annotated[
        str, typer.Option("--sites", help="resid_post, mlp_out@4-9, …")
    ] = "resid_post",
    positions: Annotated[
        str | None, typer.Option("--positions", help="last, mean:reply, …; default: what suits.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help=f"emotion, valence, arousal, dominance, intensity, or a column. {_FEW}",
        ),
    ] = None,
    group: Annotated[
        str, typer.Option("--group", help="What is never both fitted on and scored by: a column.")
    ] = "scenario",
    probe: Annotated[
        list[str] | None, typer.Option("--probe", help=f"See `affectlens list probes`. {_FEW}")
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option("--controls", help="a,b or all; see `affectlens list controls`."),
    ] = None,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Also every corpus's probes on every other corpus.")
    ] = False,
    curves: Annotated[
        bool, typer.Option("--curves", help="Also learning curves: how many texts are enough.")
    ] = False,
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", help=f"LABEL=LABEL names it alike, LABEL= leaves it out. {_FEW}"),
    ] = None,
    penalties: Annotated[
        str | None, typer.Option("--penalties", help="Values of C: 0.001,0.01,… .")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Folds of groups.")] = 5,
    draws: Annotated[int, typer.Option("--draws", min=2, help="Bootstrap draws.")] = 2000,
    permutations: Annotated[
        int, typer.Option("--permutations", min=1, help="Of labels, for that control.")
    ] = 99,
    seed: Seed = 0,
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Read any target of any corpora in any models, layer by layer, beside its controls."""
    with sentences():
        from affectlens.cli.sweep_display import sweep_with_progress
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.sweeps import SweepRequest
        from affectlens.sweeps.request import Fitting, parse_names

        fitting = Fitting(folds=folds, draws=draws, permutations=permutations, seed=seed)
        if penalties is not None:
            given = numbers("--penalties", penalties)
            fitting = Fitting(given, given, folds, draws, permutations, seed)
        request = SweepRequest(
            models=tuple(model),
            corpora=tuple(
                CorpusChoice.among(name, corpus, column, path, labels, several) for name in corpus
            ),
            out=out,
            sites=sites,
            positions=positions,
            targets=tuple(target or ("emotion",)),
            group=group,
            probes=tuple(probe or ()),
            controls=names(controls),
            transfer=transfer,
            names=parse_names(rename or ()),
            curves=curves,
            fitting=fitting,
            device=device,
            dtype=dtype,
        )
        sweep_with_progress(request, as_json=as_json)
