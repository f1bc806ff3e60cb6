"""``affectlens capture`` and ``affectlens store``: activations of a corpus, kept on disk."""

from __future__ import annotations

from typing import Annotated

import typer

from affectlens.cli.program import (
    PARTS,
    Columns,
    CorpusName,
    CorpusPath,
    Device,
    DeviceMap,
    Labels,
    Quantize,
    Several,
    TemplateVar,
    example,
    sentences,
)

store_app = typer.Typer(
    help="Stores of activations: look into, check, export.",
    no_args_is_help=True,
    epilog=example("affectlens store info acts/replies"),
)

Source = Annotated[str, typer.Argument(help="Built-in name, hub id, folder or GGUF file.")]
StorePath = Annotated[str, typer.Argument(help="Folder of a store, or its URL.")]
Split = Annotated[list[str] | None, typer.Option("--split", help="Keep fit, tune or test only.")]
Role = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        help="Keep records for direction, judge, tune or test only: the first two halve the split "
        "fit, so that no judge saw what gave a direction.",
    ),
]
Emotion = Annotated[
    list[str] | None, typer.Option("--emotion", "-e", help="Keep this emotion only.")
]


def add_capture_command(app: typer.Typer) -> None:
    """Add ``capture``."""
    shown = "affectlens capture smollm2-135m-instruct replies --sites resid_post --out acts/replies"
    app.command("capture", rich_help_panel=PARTS, epilog=example(shown))(capture)


def capture(
    model: Source,
    corpus: CorpusName,
    out: Annotated[str, typer.Option("--out", help="Folder of the store, or its URL (s3://…).")],
    sites: Annotated[
        str, typer.Option("--sites", help="resid_post, mlp_out@4-9, blocks.3.attn.hook_z, …")
    ] = "resid_post",
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            help="last, mean:reply, all, …; default: what suits. Means leave attention sinks out "
            "(the first token of a row is one); mean:text+sinks takes them in.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an unfinished store.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a store that something else made.")
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Of the numbers stored: float32, bfloat16, …, int8.")
    ] = "float32",
    model_dtype: Annotated[
        str | None, typer.Option("--model-dtype", help="Of the weights; default: what is fast.")
    ] = None,
    device: Device = None,
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    template_var: TemplateVar = None,
    max_tokens_per_batch: Annotated[
        int, typer.Option("--max-tokens-per-batch", min=1, help="Padded tokens of one pass.")
    ] = 4096,
    shard_mib: Annotated[
        int | None,
        typer.Option("--shard-mib", min=1, help="Of one file; default: 32, or 64 rows if more."),
    ] = None,
    overlong: Annotated[
        str, typer.Option("--overlong", help="Texts beyond the context: error, truncate, skip.")
    ] = "error",
    engine: Annotated[
        str, typer.Option("--engine", help="transformers, transformer_lens or nnsight.")
    ] = "transformers",
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
    split: Split = None,
    role: Role = None,
    emotion: Emotion = None,
    ray: Annotated[bool, typer.Option("--ray", help="Spread the work over Ray actors.")] = False,
    ray_workers: Annotated[
        int | None,
        typer.Option("--ray-workers", min=1, help="How many actors, each with a model: 2."),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="A running cluster; else one of its own.")
    ] = None,
) -> None:
    """Run a corpus through a model and keep activations on disk."""
    with sentences():
        from affectlens.cli.activation_tables import capture_with_progress
        from affectlens.models.chat.variables import parse_variables
        from affectlens.pipeline.corpus_choice import CorpusChoice

        capture_with_progress(
            model,
            CorpusChoice(corpus, column, path, labels, several, split, role, emotion),
            out=out,
            device=device,
            device_map=device_map,
            quantize=quantize,
            model_dtype=model_dtype,
            workers=(ray_workers or 2) if ray or ray_workers or ray_address else 0,
            address=ray_address,
            sites=sites,
            positions=positions,
            dtype=dtype,
            max_tokens_per_batch=max_tokens_per_batch,
            shard_bytes=None if shard_mib is None else shard_mib << 20,
            overlong=overlong,
            engine=engine,
            resume=resume,
            force=force,
            template_variables=parse_variables(template_var or ()) or None,
        )


@store_app.command("info", epilog=example("affectlens store info acts/replies"))
def store_info(store: StorePath) -> None:
    """What a store holds, how big it is, and what made it."""
    with sentences():
        from affectlens.cli.activation_tables import print_store

        print_store(store)


@store_app.command("verify", epilog=example("affectlens store verify acts/replies"))
def store_verify(store: StorePath) -> None:
    """Compare every file with its checksum. Exit 1 if one is damaged."""
    with sentences():
        from affectlens.cli.activation_tables import verify_store

        verify_store(store)


@store_app.command(
    "export",
    epilog=example("affectlens store export acts/replies anger.npy --site resid_post@8 -e anger"),
)
def store_export(
    store: StorePath,
    out: Annotated[str, typer.Argument(help="File to write, for example anger.npy.")],
    site: Annotated[str, typer.Option("--site", help="Hook name, or resid_post@8.")],
    position: Annotated[
        str | None, typer.Option("--position", help="Default: the one that suits.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="npy, parquet, safetensors; default: the file's ending."),
    ] = None,
    split: Split = None,
    role: Role = None,
    emotion: Emotion = None,
) -> None:
    """Write one site as a NumPy, Parquet or safetensors file."""
    with sentences():
        from affectlens.cli.activation_tables import export_store

        export_store(
            store,
            out,
            site=site,
            position=position,
            format=format,
            filters={"split": split, "role": role, "emotion": emotion},
        )
