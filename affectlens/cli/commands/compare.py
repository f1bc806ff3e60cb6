"""``affectlens compare``: a model beside a fine-tune of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import Seed
from affectlens.cli.program import (
    PARTS,
    Columns,
    CorpusPath,
    Device,
    DeviceMap,
    Dtype,
    Labels,
    Quantize,
    Several,
    TemplateVar,
    example,
    sentences,
)

_SHOWN = example(
    "affectlens compare owner/model owner/model-tuned",
    "affectlens compare my-lora-folder",
)


def add_compare_command(app: typer.Typer) -> None:
    """Add ``compare``."""
    app.command("compare", rich_help_panel=PARTS, epilog=_SHOWN)(compare)


def compare(
    base: Annotated[
        str, typer.Argument(help="Name, hub id or folder; or a folder with an adapter alone.")
    ],
    tuned: Annotated[
        str | None, typer.Argument(help="What was made of it; not with an adapter alone.")
    ] = None,
    corpus: Annotated[
        str, typer.Option("--corpus", help="What both read: a corpus name, or a file.")
    ] = "replies",
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
    template: Annotated[
        str, typer.Option("--template", help="Whose chat template writes: tuned or base.")
    ] = "tuned",
    circuits: Annotated[
        bool, typer.Option("--circuits/--no-circuits", help="Find a circuit in each.")
    ] = True,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    template_var: TemplateVar = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as one JSON object.")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write that JSON to a file as well.")
    ] = None,
) -> None:
    """Probes, directions and circuits of two models, layer by layer, each beside its control."""
    with sentences():
        from affectlens.cli.comparison_table import print_comparison
        from affectlens.comparison import compare_sources
        from affectlens.models.chat.variables import parse_variables
        from affectlens.pipeline.corpus_choice import CorpusChoice

        found = compare_sources(
            base,
            tuned,
            CorpusChoice(corpus, column, path, labels, several).load(),
            load={
                "device": device,
                "device_map": device_map,
                "dtype": dtype,
                "quantization_config": quantize,
                "template_variables": parse_variables(template_var or ()) or None,
            },
            template=template,
            circuits=circuits,
            seed=seed,
        )
        if save is not None:
            found.save(save)
        print_comparison(found, as_json=as_json)
