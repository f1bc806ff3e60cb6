"""``affectlens probe fit`` and ``affectlens probe read``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affectlens.cli.options import MAX_SEED, AsJson
from affectlens.cli.program import DEFAULT_RUN, Device, Dtype, example, sentences

Run = Annotated[Path, typer.Option("--run", help="Run folder with a store of activations.")]
Store = Annotated[Path | None, typer.Option("--store", help="A store instead.")]
Where = Annotated[str | None, typer.Option("--site", help="Default: the best, cross-validated.")]
Position = Annotated[str | None, typer.Option("--position", help="Which tokens are read.")]
Kind = Annotated[str, typer.Option("--probe", help="See `affectlens list probes`.")]
How = Annotated[str, typer.Option("--calibration", help="See `affectlens list calibrations`.")]
HeldOut = Annotated[float, typer.Option("--held-out", help="Share of the groups that calibrate.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of groups and folds.")]


def add_reading_commands(app: typer.Typer) -> None:
    """Add both commands."""
    fits = "affectlens probe fit --run runs/mine --save mine.safetensors"
    packs = "affectlens probe fit --run runs/mine --pack runs/mine/pack.safetensors --pack-out p.safetensors"  # noqa: E501
    app.command("fit", epilog=example(fits, packs))(fit)
    reads = 'affectlens probe read --run runs/mine --text "My train was cancelled."'
    pages = "affectlens probe read --probe mine.safetensors --file texts.txt --html read.html"
    app.command("read", epilog=example(reads, pages))(read)


def fit(
    run: Run = DEFAULT_RUN,
    store: Store = None,
    site: Where = None,
    position: Position = None,
    probe: Kind = "logistic",
    calibration: How = "temperature",
    held_out: HeldOut = 0.25,
    seed: Seed = 0,
    save: Annotated[
        Path | None, typer.Option("--save", help="Its file; default: probe.safetensors of the run.")
    ] = None,
    pack: Annotated[
        Path | None, typer.Option("--pack", help="A pack that takes the probe along to servers.")
    ] = None,
    pack_out: Annotated[
        Path | None, typer.Option("--pack-out", help="File of the pack with the probe in it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit one probe, calibrate it on groups of its own, and say how far it can be believed."""
    with sentences():
        from affectlens.cli.reading_tables import print_probe
        from affectlens.core.errors import DataError
        from affectlens.pipeline.probe_reading import PROBE, ProbeRequest, into_pack

        if (pack is None) != (pack_out is None):
            raise DataError("A pack takes a probe along with both --pack and --pack-out.")
        request = ProbeRequest(run, store, site, position, probe, calibration, held_out, seed)
        found = request.fitted()
        if pack is not None and pack_out is not None:
            into_pack(found, pack, pack_out)
        file = save or run / PROBE
        found.save(file)
        print_probe(found, file, as_json=as_json)


def read(
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A text a line, or a JSONL or CSV corpus.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option("--probe", help="Of `probe fit`; default: the run's.")
    ] = None,
    run: Run = DEFAULT_RUN,
    store: Store = None,
    position: Position = None,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="Also labels that hold the true one so often."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="A page with coloured tokens.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the one the probe was fitted on.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Annotated[bool, typer.Option("--force", help="Use a probe of another model.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read texts with a calibrated probe: every token coloured, every text with probabilities."""
    with sentences():
        from affectlens.cli.reading_tables import print_readings
        from affectlens.core.artefact import write_text
        from affectlens.pipeline.probe_reading import ProbeRequest, ReadRequest
        from affectlens.reports.reading_page import reading_page

        request = ReadRequest(
            probe=ProbeRequest(run, store),
            file=probe,
            text=tuple(text or ()),
            text_file=file,
            model=model,
            position=position,
            coverage=coverage,
            device=device,
            dtype=dtype,
            force=force,
        )
        used, found = request.read()
        if html is not None:
            write_text(html, reading_page(used, found))
        print_readings(found, html, as_json=as_json)
