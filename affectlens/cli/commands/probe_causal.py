"""``affectlens probe causal``: do directions that detect also steer and silence?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, DrawsSeed, Model, Role, names, whole_numbers
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences


def add_causal_command(app: typer.Typer) -> None:
    """Add ``causal``."""
    shown = "affectlens probe causal --run runs/mine --layers 10,15,20 --items 8"
    app.command("causal", epilog=example(shown))(causal)


def causal(
    run: Annotated[
        Path, typer.Option("--run", help="Run folder with probes and their store.")
    ] = DEFAULT_RUN,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Blocks; default: the best one.")
    ] = None,
    emotions: Annotated[
        str | None, typer.Option("--emotions", help="Names with commas between; default: all.")
    ] = None,
    tasks: Annotated[
        str, typer.Option("--tasks", help="Of continuations; pushes are judged by the first.")
    ] = "carry_over,recognition",
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Texts of the tasks; default: each one's own.")
    ] = None,
    role: Role = "test",
    items: Annotated[
        int | None, typer.Option("--items", min=2, help="At most so many items of each task.")
    ] = None,
    orders: Annotated[
        int | None, typer.Option("--orders", min=1, help="Orders of options; default: balanced.")
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=2, help="Random directions beside each.")
    ] = 3,
    seed: DrawsSeed = 0,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Its file; default: causal.json of the run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Detect, steer, silence: what a probe's directions do, beside random ones."""
    with sentences():
        from affectlens.circuits.tasks import TASKS
        from affectlens.cli.causal_table import print_causal
        from affectlens.pipeline.causal import TABLE, CausalRequest
        from affectlens.pipeline.corpus_choice import CorpusChoice

        texts = {
            name: CorpusChoice(corpus or TASKS[name].corpus, role=[role]) for name in names(tasks)
        }
        found = CausalRequest(
            run=run,
            tasks=texts,
            layers=() if layers is None else whole_numbers("--layers", layers),
            items=items,
            draws=draws,
            orders=orders,
            emotions=names(emotions),
            model=model,
            device=device,
            dtype=dtype,
            seed=seed,
        ).table()
        file = save or run / TABLE
        found.save(file)
        print_causal(found, file, as_json=as_json)
