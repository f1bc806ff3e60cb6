"""``affectlens models``: names, weights and anatomy."""

from __future__ import annotations

from typing import Annotated

import typer

from affectlens.cli.program import (
    DEFAULT_MODEL,
    Device,
    DeviceMap,
    Dtype,
    Quantize,
    example,
    sentences,
)

ModelName = Annotated[
    str, typer.Argument(help="Of `affectlens models list`, a hub id, or a folder.")
]

models_app = typer.Typer(
    help="Names, weights and anatomy of models.",
    no_args_is_help=True,
    epilog=example("affectlens models info"),
)


@models_app.command("list", epilog=example("affectlens models list"))
def models_list() -> None:
    """Built-in models, and whether they are on this machine."""
    with sentences():
        from affectlens.cli.tables import print_models
        from affectlens.models.registry import list_models

        print_models(list_models())


@models_app.command("pull", epilog=example("affectlens models pull smollm2-135m-instruct"))
def models_pull(
    name: ModelName = DEFAULT_MODEL,
) -> None:
    """Fetch and convert a built-in model now."""
    with sentences():
        from affectlens.models.registry import pull

        typer.echo(str(pull(name)))


@models_app.command("info", epilog=example("affectlens models info smollm2-135m-instruct"))
def models_info(
    name: ModelName = DEFAULT_MODEL,
) -> None:
    """Layers, widths, dtype and fingerprint of a model, and what can be read in each layer."""
    with sentences():
        from affectlens.cli.tables import print_facts
        from affectlens.models import describe

        print_facts(describe(name))


@models_app.command("check", epilog=example("affectlens models check smollm2-135m-instruct"))
def models_check(
    name: ModelName = DEFAULT_MODEL,
    prompt: Annotated[
        str | None, typer.Option(help="Text to run; default: an English sentence.")
    ] = None,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
) -> None:
    """Run a model on a prompt and hold every sum that is relied on against its own numbers."""
    with sentences():
        from affectlens.cli.tables import print_facts
        from affectlens.models import load_model
        from affectlens.models.anatomy.prompt_check import check

        model = load_model(
            name,
            device=device,
            device_map=device_map,
            dtype=dtype,
            quantization_config=quantize,
        )
        print_facts(check(model, prompt))
