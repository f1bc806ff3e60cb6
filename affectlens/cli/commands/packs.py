"""``affectlens packs``: packs that people pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.program import example, sentences

packs_app = typer.Typer(
    help="Packs to pass on: list, look into, check, fetch, publish.",
    no_args_is_help=True,
    epilog=example("affectlens packs info box:NAME"),
)

PackName = Annotated[
    str, typer.Argument(help="box:NAME, hub:owner/repo/file, file:FOLDER/NAME, or a file.")
]


@packs_app.command(
    "list", epilog=example("affectlens packs list", "affectlens packs list file:/shared/packs")
)
def packs_list(
    where: Annotated[str, typer.Argument(help="box:, file:FOLDER or hub:owner/repo.")] = "box:",
) -> None:
    """Packs of a place, with their models and labels."""
    with sentences():
        from affectlens.cli.exchange_tables import print_packs
        from affectlens.steering.packs import packs_in

        print_packs(where, packs_in(where))


@packs_app.command("info", epilog=example("affectlens packs info runs/demo/pack.safetensors"))
def packs_info(name: PackName) -> None:
    """What a pack steers, where and how strongly, and what its card says of it."""
    with sentences():
        from affectlens.cli.exchange_tables import print_pack
        from affectlens.steering import SteeringPack
        from affectlens.steering.packs import existing
        from affectlens.steering.packs.card import check_card

        path = existing(name)
        print_pack(SteeringPack.load(path), check_card(path))


@packs_app.command("verify", epilog=example("affectlens packs verify anger.safetensors"))
def packs_verify(name: PackName) -> None:
    """Hold a pack against its card: checksum, contents, model, labels, doses."""
    with sentences():
        from affectlens.steering.packs import verify

        pack, card = verify(name)
        typer.echo(f"{name} is what its card says: {card.sha256} for {pack.provenance.model_name}")


@packs_app.command(
    "pull", epilog=example("affectlens packs pull hub:owner/repo/anger --out anger.safetensors")
)
def packs_pull(
    name: PackName,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; default: its own name, here.")
    ] = None,
) -> None:
    """Fetch a pack and its card, check them, and put them here."""
    with sentences():
        from affectlens.steering.packs import pull

        typer.echo(str(pull(name, out)))


@packs_app.command(
    "push",
    epilog=example(
        "affectlens packs push runs/demo/pack.safetensors file:/shared/packs --licence Apache-2.0"
    ),
)
def packs_push(
    file: Annotated[Path, typer.Argument(help="The pack.")],
    name: Annotated[
        str,
        typer.Argument(
            help="file:FOLDER, file:FOLDER/NAME, hub:owner/repo or hub:owner/repo/file."
        ),
    ],
    licence: Annotated[
        str | None, typer.Option("--licence", help="SPDX name, such as Apache-2.0.")
    ] = None,
    use: Annotated[str | None, typer.Option("--use", help="What it is meant for.")] = None,
    limits: Annotated[str | None, typer.Option("--limits", help="What it is not good for.")] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Of the model, as its hub names it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a pack of that name.")] = False,
) -> None:
    """Publish a pack with its card; scores are those of the run folder that it lies in."""
    with sentences():
        from affectlens.pipeline.pack_cards import told_of
        from affectlens.steering.packs import push

        told = told_of(file, licence=licence, use=use, limits=limits, revision=revision)
        typer.echo(push(file, name, told, force=force)[0])
