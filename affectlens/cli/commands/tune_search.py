"""``affectlens tune search``: where and how strongly to steer, and why there is no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import AsJson, names, numbers
from affectlens.cli.pack_options import PackModel
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences


def add_search_command(app: typer.Typer) -> None:
    """Add ``search``."""
    shown = (
        "affectlens tune search anger --out runs/mine",
        "affectlens tune search fear --out runs/mine --modes residual --layers all,10-14 "
        "--strengths 0.5,1,2 --budget 8000",
    )
    app.command("search", epilog=example(*shown))(search)


def search(
    emotion: Annotated[str, typer.Argument(help="That is to be heard.")],
    out: Annotated[
        Path, typer.Option("--out", help="Run folder; replies are kept there.")
    ] = DEFAULT_RUN,
    pack: Annotated[
        Path | None, typer.Option("--pack", help="Pack file; default: the run's.")
    ] = None,
    modes: Annotated[
        str | None, typer.Option("--modes", help="circuit,residual; default: all of the pack.")
    ] = None,
    layers: Annotated[
        str, typer.Option("--layers", help="Bands: all, early, middle, late, or such as 10-14.")
    ] = "all,early,middle,late",
    strengths: Annotated[
        str, typer.Option("--strengths", help="Shares of the recommended dose, in total length.")
    ] = "0.5,0.75,1,1.4",
    operators: Annotated[
        str, typer.Option("--operators", help="That add; see `affectlens list operators`.")
    ] = "add",
    positions: Annotated[
        str | None, typer.Option("--positions", help="Of steered tokens; default: the pack's.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option("--gate", help="Of all candidates, such as sadness>0.4.")
    ] = None,
    budget: Annotated[
        int, typer.Option("--budget", min=1, help="Tokens generated in all.")
    ] = 16_000,
    keep: Annotated[int, typer.Option("--keep", min=2, help="Of so many one goes on.")] = 3,
    events: Annotated[
        int, typer.Option("--events", min=1, help="Tuning events there are to answer.")
    ] = 24,
    max_ratio: Annotated[
        float, typer.Option("--max-ratio", help="Perplexity ratio that drops a candidate.")
    ] = 4.0,
    kl_events: Annotated[
        int, typer.Option("--kl-events", min=1, help="Events for the distance to unsteered.")
    ] = 4,
    model: PackModel = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Default: pack_EMOTION.safetensors beside the pack."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The way to steer an emotion that is heard best for what it costs, on an equal budget."""
    with sentences():
        from affectlens.cli.tuning_tables import print_search
        from affectlens.pipeline.tuning_candidates import SearchSettings
        from affectlens.pipeline.tuning_commands import PackChoice, search_tuning

        settings = SearchSettings(
            emotion=emotion,
            modes=names(modes),
            bands=names(layers),
            strengths=numbers("--strengths", strengths),
            operators=names(operators),
            positions=names(positions),
            gate=gate,
            budget=budget,
            keep=keep,
            max_perplexity_ratio=max_ratio,
            kl_events=kl_events,
        )
        choice = PackChoice(out, pack, model, device, dtype)
        found, file = search_tuning(choice, settings, events, save)
        print_search(found, file, as_json=as_json)
