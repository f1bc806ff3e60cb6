"""What ``affectlens capture`` and ``affectlens store`` print."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from affectlens.cli.consoles import stdout
from affectlens.cli.tables import print_facts
from affectlens.core.errors import DataError
from affectlens.pipeline.corpus_choice import CorpusChoice, Names

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.activations.store.info import StoreInfo
    from affectlens.core import Site


@dataclass
class _Pace:
    """Counts what is run, from now on."""

    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def __call__(self, _texts: int, tokens: int) -> None:
        self.tokens += tokens

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.started
        return f"{self.tokens / seconds:,.0f} tokens/s in {seconds:.1f} s"


def capture_with_progress(
    model: str,
    corpus: CorpusChoice,
    *,
    out: str,
    device: str | None,
    device_map: str | None,
    quantize: str | None,
    model_dtype: str | None,
    workers: int,
    address: str | None,
    **options: Any,
) -> None:
    """Capture and say in one line what was written.

    Args:
        model: What to load.
        corpus: What to run.
        out: Folder or URL.
        device, device_map, model_dtype: As `load_model`.
        quantize: Name of a quantiser.
        workers: Ray actors; 0 to do it in this process.
        address: Of a Ray cluster.
        **options: As `affectlens.activations.capture`.
    """
    from affectlens.activations import capture
    from affectlens.activations.distributed.ray_capture import capture_with_ray

    if workers and device_map is not None:
        raise DataError("Ray gives each actor one device; leave out --ray or --device-map.")
    if workers and quantize is not None:
        raise DataError("Ray's actors load models unquantised; leave out --ray or --quantize.")
    texts = corpus.load()  # before the model: a slip of the pen should not cost a minute
    pace = _Pace()
    if workers:
        # Ray reports lost workers on stdout, which is for the result.
        with redirect_stdout(sys.stderr):
            store = capture_with_ray(
                model,
                texts,
                out=out,
                workers=workers,
                address=address,
                device=device,
                model_dtype=model_dtype,
                advance=pace,
                **options,
            )
    else:
        from affectlens.models import load_model

        loaded = load_model(
            model,
            device=device,
            dtype=model_dtype,
            device_map=device_map,
            quantization_config=quantize,
        )
        pace = _Pace()
        store = capture(loaded, texts, out=out, advance=pace, **options)
    ran = f"wrote {out}" if pace.tokens else f"{out} was finished before"
    how_fast = f", {pace}" if pace.tokens else ""
    stdout().print(f"{ran}: {_size(store)}{how_fast}", soft_wrap=True, markup=False)


def print_store(where: str) -> None:
    """What a store says of itself, one fact a line."""
    from affectlens.activations import ActivationStore

    info = ActivationStore.open(where).info()
    made = info.provenance
    print_facts(
        {
            "store": info.where,
            "size": f"{_bytes(info.bytes)} in {_shards(info)}",
            "dtype": info.dtype,
            "sites": _sites(info.widths),
            "rows": ", ".join(f"{n:,} at {position}" for position, n in info.rows.items()),
            "model": f"{made.model_name} ({made.model})",
            **{name: _plain(fact) for name, fact in info.facts.items() if name != "n_heads"},
            **_made_by(made.parameters),
            "layout": ", ".join(f"{name} {value}" for name, value in info.layout.items()),
            "fingerprint": made.fingerprint,
            "written by": f"affectlens {info.package_version}",
        }
    )


def verify_store(where: str) -> None:
    """Check every file of a store; a damaged one is an error."""
    from affectlens.activations import ActivationStore

    store = ActivationStore.open(where)
    store.verify()
    said = f"{where}: {_shards(store.info())} and the labels are as they were written"
    stdout().print(said, soft_wrap=True, markup=False)


def export_store(
    where: str,
    out: str,
    *,
    site: str,
    position: str | None,
    format: str | None,
    filters: Mapping[str, Names],
) -> None:
    """Write the rows of one site to a file and say what it holds."""
    from affectlens.activations import ActivationStore
    from affectlens.activations.store.export import export
    from affectlens.core.errors import unknown

    store = ActivationStore.open(where)
    one, *more = store.default_sites(site)
    if more:
        raise unknown("single site", site, [found.hook_name for found in (one, *more)])
    chosen = store.default_position(position)
    wanted = _given(**filters)
    kept = store.select(**wanted) if wanted else store
    written = export(kept, out, one, chosen, format or Path(out).suffix.lstrip(".") or "npy")
    rows = len(kept.storage_order(chosen))
    stdout().print(
        f"wrote {written}: {rows:,} rows × {store.width(one)} of {one.hook_name} at {chosen}",
        soft_wrap=True,
        markup=False,
    )


def _given(**filters: Names) -> dict[str, Any]:
    return {name: list(values) for name, values in filters.items() if values}


def _size(store: ActivationStore) -> str:
    info = store.info()
    rows = " + ".join(f"{n:,} rows at {position}" for position, n in info.rows.items())
    return f"{rows}, {len(info.widths)} sites, {_bytes(info.bytes)}"


def _plain(fact: Any) -> Any:
    return ", ".join(map(str, cast("list[Any]", fact))) if isinstance(fact, list) else fact


def _bytes(n: int) -> str:
    size, unit = float(n), "bytes"
    for bigger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, bigger
    return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def _sites(widths: Mapping[Site, int]) -> str:
    """By kind: ``resid_post 0-29 (576)``."""
    layers: dict[tuple[str, int], list[int]] = {}
    for site, width in widths.items():
        layers.setdefault((site.kind, width), []).append(site.layer)
    return ", ".join(
        f"{kind}@{_ranges(found)} ({width} wide)" for (kind, width), found in layers.items()
    )


def _ranges(layers: Sequence[int]) -> str:
    """``0-3,7`` for 0, 1, 2, 3 and 7."""
    first = [layer for layer in layers if layer - 1 not in layers]
    last = [layer for layer in layers if layer + 1 not in layers]
    return ",".join(
        str(a) if a == b else f"{a}-{b}" for a, b in zip(sorted(first), sorted(last), strict=True)
    )


def _shards(info: StoreInfo) -> str:
    return f"{info.shards} shard{'' if info.shards == 1 else 's'}"


def _made_by(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is not said elsewhere; of template and tokens there are fingerprints only."""
    elsewhere = ("sites", "positions", "dtype")
    names = {"template": "template hash", "tokens": "tokens hash", "model_dtype": "model dtype"}
    return {names.get(k, k): v for k, v in parameters.items() if v and k not in elsewhere}
