"""Reading a store: what comes back, in which order, and what is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from affectlens.activations import ActivationStore
from affectlens.activations.store import label_table as table
from affectlens.activations.store.manifest import LABELS
from affectlens.core.artefact import Provenance
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.places import Site
from tests.activations.store.made_up import SITES, WIDTHS, MadeUp, contents, made_up

POSITIONS = ("last", "all")


def _memory(made: MadeUp) -> ActivationStore:
    return ActivationStore.in_memory(made.values, made.table, made.spec.provenance, made.spec.facts)


def _opened(out: Path, **options: Any) -> tuple[MadeUp, ActivationStore]:
    made = made_up(**options)
    store = made.write(out)
    assert store is not None
    return made, store


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_come_back_in_corpus_order(dtype: str, tmp_path: Path) -> None:
    made, store = _opened(tmp_path / "acts", dtype=dtype)
    assert len(made.spec.shards) == 5
    for rows in made.stored.values():  # the texts did lie in another order
        assert (np.diff(rows) < 0).any()
    assert store.sites == SITES and store.positions == POSITIONS
    assert store.design == "replies" and store.dtype == dtype
    assert store.rows.equals(made.table.drop_columns("stored"))
    assert len(store) == store.rows.num_rows
    kind = getattr(torch, dtype)
    for (site, position), values in made.values.items():
        expected = values.to(kind)
        assert store.width(site) == values.shape[1]
        assert torch.equal(store.tensor(site, position), expected)
        assert torch.equal(store.to_torch(site.hook_name, position), expected.float())
        np.testing.assert_array_equal(store.to_numpy(site, position), expected.float().numpy())
        array = store.array(site, position)
        assert array.dtype == (np.float16 if dtype == "float16" else np.float32)
        np.testing.assert_array_equal(array, expected.float().numpy().astype(array.dtype))


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_eight_bits_are_off_by_half_a_step_at_most(scale: float, tmp_path: Path) -> None:
    made, store = _opened(tmp_path / "acts", dtype="int8", scale=scale)
    files = [load_file(path) for path in sorted((tmp_path / "acts" / "shards").iterdir())]
    for (site, position), values in made.values.items():
        name = f"{position}/{site.hook_name}"
        steps = torch.cat(
            [
                f[f"{name}/row_scale"][:, None] * f[f"{name}/column_scale"]
                for f in files
                if name in f
            ]
        )
        codes = torch.cat([f[name] for f in files if name in f])
        assert codes.dtype == torch.int8 and bool((codes.abs().amax(1) == 127).all())
        bound = steps[torch.from_numpy(made.stored[position])] / 2
        found = store.tensor(site, position)
        assert found.dtype == torch.float32
        error = (found - values).abs()
        assert bool((error <= bound * (1 + 1e-4)).all())
        assert float(error.max()) > 0.2 * float(bound.max())  # the bound is no trifle


def test_eight_bits_of_zeros_and_equal_rows(tmp_path: Path) -> None:
    made = made_up(dtype="int8")
    for (site, _), values in made.values.items():
        values.fill_(0.0 if site == SITES[0] else -3.0)
        values[0] = 0
    store = made.write(tmp_path / "acts")
    assert store is not None
    for (site, position), values in made.values.items():
        torch.testing.assert_close(store.to_torch(site, position), values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_some_rows(on_disk: bool, dtype: str, tmp_path: Path) -> None:
    made, store = _opened(tmp_path / "acts", dtype=dtype)
    store = store if on_disk else _memory(made)
    generator = np.random.default_rng(1)
    for site in SITES:
        for position in POSITIONS:
            every = store.tensor(site, position)
            n = len(every)
            for rows in (
                slice(None),
                slice(3, 9),
                slice(None, None, -2),
                slice(n, n + 5),
                [0],
                [5, 5, 2],
                [-1, 0],
                [],
                generator.permutation(n),
                np.array([n - 1], np.int32),
            ):
                expected = every.numpy()[np.array(rows, int) if isinstance(rows, list) else rows]
                for found in (
                    store.tensor(site, position, rows).numpy(),
                    store.to_torch(site, position, rows).numpy(),
                    store.to_numpy(site, position, rows=rows),
                    store.array(site, position, rows),
                ):
                    np.testing.assert_array_equal(found, expected)
    some = store.select(split="fit", position="all")
    np.testing.assert_array_equal(
        some.to_numpy(SITES[0], rows=[4, 0]), some.to_numpy(SITES[0])[[4, 0]]
    )
    for bad in ([n], [-n - 1], [0.5], [[1]]):
        with pytest.raises(DataError, match=r"row"):
            store.tensor(SITES[0], "all", bad)  # type: ignore[arg-type]


def test_one_site_is_read_without_the_others(tmp_path: Path) -> None:
    made, store = _opened(tmp_path / "acts")
    site, position = SITES[1], "all"
    for shard, path in enumerate(sorted((tmp_path / "acts" / "shards").iterdir())):
        whole = bytearray(path.read_bytes())
        data = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:data])
        keep = header[f"{position}/{site.hook_name}"]["data_offsets"]
        spared = bytes(whole[data + keep[0] : data + keep[1]])
        whole[data:] = b"\xff" * (len(whole) - data)
        whole[data + keep[0] : data + keep[1]] = spared
        path.write_bytes(whole)
        assert made.spec.shards[shard][position]
    opened = ActivationStore.open(tmp_path / "acts")
    assert torch.equal(opened.to_torch(site, position), made.values[site, position])
    assert bool(opened.to_torch(SITES[0], position).isnan().all())
    with pytest.raises(ArtefactError, match="is not what was written"):
        opened.verify()
    del store


def test_opening_reads_the_manifest_alone(tmp_path: Path) -> None:
    _, whole = _opened(tmp_path / "acts")
    (tmp_path / "acts" / "rows.parquet").unlink()
    for path in (tmp_path / "acts" / "shards").iterdir():
        path.unlink()
    store = ActivationStore.open(tmp_path / "acts")
    assert (store.sites, store.positions, len(store)) == (SITES, POSITIONS, len(whole))
    with pytest.raises(ArtefactError, match=r"rows\.parquet is missing"):
        store.column("id", "last")
    with pytest.raises(ArtefactError, match=r"rows\.parquet is missing"):
        store.tensor(SITES[0], "last")


def test_changing_what_was_read_changes_no_file(tmp_path: Path) -> None:
    made, store = _opened(tmp_path / "acts")
    before = contents(tmp_path / "acts")
    for read in (store.tensor, store.to_torch, store.to_numpy, store.array):
        values: Any = read(SITES[0], "last")
        values[:] = 0
    values, _, _ = next(store.batches(SITES[0], "last"))
    values.zero_()
    assert torch.equal(store.to_torch(SITES[0], "last"), made.values[SITES[0], "last"])
    assert contents(tmp_path / "acts") == before


def test_shards_are_files_that_safetensors_reads(tmp_path: Path) -> None:
    made, _ = _opened(tmp_path / "acts", dtype="bfloat16")
    for shard, rows in enumerate(made.spec.shards):
        file = load_file(tmp_path / "acts" / "shards" / f"{shard:05d}.safetensors")
        assert set(file) == {f"{p}/{s.hook_name}" for p in POSITIONS for s in SITES}
        for (site, position), values in made.values.items():
            start, stop = rows[position]
            lies = torch.from_numpy(np.argsort(made.stored[position])[start:stop])
            expected = values[lies].bfloat16()
            assert torch.equal(file[f"{position}/{site.hook_name}"], expected)


@pytest.mark.parametrize("on_disk", [False, True])
def test_select_equals_brute_force(on_disk: bool, tmp_path: Path) -> None:
    made, disk = _opened(tmp_path / "acts")
    store = disk if on_disk else _memory(made)
    every = store.rows.to_pylist()
    flags = np.random.default_rng(2).random(len(store)) < 0.6
    emotions = ("anger", None, "fear")
    kept = [
        flag and row["emotion"] in emotions and row["split"] == "fit" and row["token"] in (0, 2)
        for row, flag in zip(every, flags, strict=True)
    ]
    expected_rows = [row for row, keep in zip(every, kept, strict=True) if keep]
    assert 0 < sum(kept) < len(kept)
    found = store.select(flags, emotion=emotions, split="fit", token=(0, 2))
    steps = store.select(emotion=emotions)
    steps = steps.select(flags[[row["emotion"] in emotions for row in every]])
    steps = steps.select(split="fit").select(token=(2, 0))
    for some in (found, steps):
        assert some.rows.to_pylist() == expected_rows
        assert len(some) == sum(kept) and some.fingerprint == found.fingerprint
        for position in POSITIONS:
            here = [
                keep for row, keep in zip(every, kept, strict=True) if row["position"] == position
            ]
            ids = [
                r["id"] for r, k in zip(every, kept, strict=True) if k and r["position"] == position
            ]
            assert some.column("id", position) == ids
            for site in SITES:
                expected = made.values[site, position][torch.tensor(here)]
                assert torch.equal(some.tensor(site, position), expected)
    only = store.select(position="all", emotion="anger")
    assert only.positions == ("all",) and only.default_position() == "all"
    assert found.fingerprint != store.fingerprint
    assert store.select(split=("fit", "test")).fingerprint == store.fingerprint
    for bad, error, message in (
        ({"emotion": "angr"}, UnknownNameError, "anger"),
        ({"feeling": "anger"}, UnknownNameError, "emotion"),
        ({"stored": 3}, UnknownNameError, "column"),
        ({"emotion": "fear", "id": "r0"}, DataError, "No activations are left"),
        ({"mask": [True]}, DataError, "one value per row"),
    ):
        with pytest.raises(error, match=message):
            store.select(**bad)


def test_a_table_of_many_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their borders are not those of the positions, and each has its own dictionary."""
    monkeypatch.setattr(table, "_GROUP_ROWS", 9)
    made, store = _opened(tmp_path / "acts")
    memory = _memory(made)
    assert pq.ParquetFile(tmp_path / "acts" / "rows.parquet").num_row_groups > 5
    assert store.rows.equals(memory.rows)
    for position in POSITIONS:
        for name in LABELS:
            assert store.column(name, position) == memory.column(name, position)
        for site in SITES:
            assert torch.equal(store.tensor(site, position), memory.tensor(site, position))
    for labels in ({"emotion": None}, {"group": ("g0", "g5")}, {"id": "r3"}, {"token": (1, 2)}):
        some, same = store.select(**labels), memory.select(**labels)
        assert some.rows.equals(same.rows)
        found = list(some.batches(SITES[0], "all", batch_size=5, columns=LABELS))
        for _, columns, rows in found:
            expected = same.labels(position="all").take(rows).to_pydict()
            assert columns == expected
        assert sum(len(batch.rows) for batch in found) == len(same.column("id", "all"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_saved_selection_is_a_store_of_its_own(dtype: str, tmp_path: Path) -> None:
    _, store = _opened(tmp_path / "acts", dtype=dtype)
    some = store.select(emotion=("anger", "fear"), split="fit")
    saved = some.save(tmp_path / "some")
    assert saved.rows.equals(some.rows)
    for site in SITES:
        for position in POSITIONS:
            found, expected = saved.to_torch(site, position), some.to_torch(site, position)
            atol = 0 if dtype != "int8" else 0.02 * float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert saved.provenance.model == store.provenance.model
    assert saved.fingerprint not in {store.fingerprint, some.fingerprint}
    other = store.select(emotion="happiness").save(tmp_path / "some")
    assert set(other.column("emotion", "last")) == {"happiness"}
    assert other.fingerprint != saved.fingerprint
    with pytest.raises(ArtefactError, match="this store itself"):
        some.save(tmp_path / "acts")
    store.verify()


def test_a_store_in_memory_is_saved_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arrays = {s: torch.randn(6, WIDTHS[s]).bfloat16() for s in SITES}
    labels = {"emotion": ["anger", "fear", None, "anger", "fear", "anger"], "group": list("aaabbc")}
    memory = ActivationStore.of(arrays, labels, design="replies")
    assert memory.path is None and memory.info().bytes == 6 * 15 * 2
    disk = memory.save(tmp_path / "acts")
    assert disk.path == tmp_path / "acts" and disk.positions == ("mean:reply",)
    assert disk.provenance == memory.provenance and disk.fingerprint == memory.fingerprint
    assert disk.rows.equals(memory.rows)
    for site in SITES:
        assert torch.equal(disk.tensor(site), arrays[site])


def test_what_info_says(tmp_path: Path) -> None:
    made, store = _opened(tmp_path / "acts", dtype="float16")
    info = store.info()
    assert info.where == str(tmp_path / "acts") and info.dtype == "float16"
    assert info.widths == WIDTHS and info.shards == 5
    assert info.rows == {name: len(rows) for name, rows in made.stored.items()}
    files = contents(tmp_path / "acts")
    assert info.bytes == sum(len(v) for k, v in files.items() if not k.startswith(("man", "wri")))
    assert info.provenance == made.spec.provenance and info.facts["design"] == "replies"
    assert info.layout == {"texts_per_shard": 5}


def test_attention_patterns_have_their_shape(tmp_path: Path) -> None:
    site = Site(0, "pattern")
    made = made_up(widths={site: 6, SITES[0]: 4})
    made.spec.facts["n_heads"] = 2  # type: ignore[index]
    store = made.write(tmp_path / "acts")
    assert store is not None
    expected = made.values[site, "all"].view(-1, 2, 3)
    assert torch.equal(store.pattern(site, "all"), expected)
    assert torch.equal(store.pattern(site.hook_name, "all", rows=[3]), expected[3:4])
    with pytest.raises(DataError, match="no attention pattern"):
        store.pattern(SITES[0], "all")


def test_defaults_and_unknown_names(tmp_path: Path) -> None:
    _, store = _opened(tmp_path / "acts")
    assert store.default_sites("resid_post") == SITES[:2]
    assert store.select(position="last").default_position() == "last"
    for call in (
        lambda: store.default_position(),  # several, and none that suits the design
        lambda: store.to_torch(SITES[0], "first:2"),
        lambda: store.column("id"),
    ):
        with pytest.raises(UnknownNameError, match="position"):
            call()
    for read in (
        lambda: store.to_torch(Site(2, "resid_post"), "last"),
        lambda: next(store.batches(Site(2, "resid_post"), "last")),
    ):
        with pytest.raises(UnknownNameError, match=r"blocks\.1\.hook_resid_post"):
            read()
    with pytest.raises(UnknownNameError):
        store.default_sites("resid_pre@0")
    with pytest.raises(UnknownNameError, match="column"):
        store.column("feeling", "last")


def test_rows_from_elsewhere_are_checked() -> None:
    x = {SITES[0]: torch.ones(2, 3)}
    with pytest.raises(DataError, match="lengths"):
        ActivationStore.of(x, {"emotion": ["anger"]})
    with pytest.raises(DataError, match="NaN"):
        ActivationStore.of({SITES[0]: torch.tensor([[1.0, float("inf")]])}, {"emotion": ["fear"]})
    with pytest.raises(UnknownNameError, match="float64"):
        ActivationStore.of({SITES[0]: torch.ones(1, 2).double()}, {"emotion": ["fear"]})
    first = ActivationStore.of(x, {"emotion": ["anger", "fear"]})
    second = ActivationStore.of(x, {"emotion": ["fear", "anger"]})
    assert first.fingerprint != second.fingerprint
    named = ActivationStore.of(
        x, {"emotion": ["anger", "fear"]}, provenance=Provenance("activations", model="m")
    )
    assert named.provenance.model == "m"


def _edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.update(format_version=99), ArtefactError, "newer than the 2 .* upgrade"),
        (lambda m: m.update(format_version=1), ArtefactError, "older version.* capture again"),
        (lambda m: m["provenance"].update(kind="pack"), MismatchError, "holds a pack"),
        (lambda m: m["provenance"].update(mood="x"), ArtefactError, "damaged"),
        (lambda m: m["shards"][0].update(file="../x"), ArtefactError, "not of the store"),
        (lambda m: m["shards"][0].update(file="/etc/passwd"), ArtefactError, "not of the store"),
        (lambda m: m["shards"].reverse(), ArtefactError, "not of the store"),
        (lambda m: m["table"].update(file="/etc/passwd"), ArtefactError, "not of the store"),
        (lambda m: m["shards"][0].update(sha256="0"), ArtefactError, "damaged"),
        (lambda m: m["shards"][0].update(bytes=10), ArtefactError, "too small"),
        (lambda m: m["shards"][0].update(bytes=-1), ArtefactError, "damaged"),
        (lambda m: m["shards"][0].update(bytes="9"), ArtefactError, "damaged"),
        (lambda m: m["shards"][0]["rows"].update(last=6), ArtefactError, "damaged"),
        (lambda m: m["shards"][0]["rows"].update(last=10**30), ArtefactError, "damaged"),
        (lambda m: m["shards"][0]["rows"].update(last=-1), ArtefactError, "damaged"),
        (lambda m: m["shards"][0]["rows"].update(first=1), ArtefactError, "unknown positions"),
        (lambda m: m["shards"].pop(), ArtefactError, "damaged"),
        (lambda m: m["shards"].append(None), ArtefactError, "lacks shards"),
        (lambda m: m.update(shards=7), ArtefactError, "damaged"),
        (lambda m: m.update(shards={}), ArtefactError, "damaged"),
        (lambda m: m["sites"].update({"blocks.0.nothing": 3}), ArtefactError, "damaged"),
        (lambda m: m.update(sites={}), ArtefactError, "damaged"),
        (lambda m: m["sites"].update({SITES[0].hook_name: 1 << 40}), ArtefactError, "too small"),
        (lambda m: m["positions"].update(last=0), ArtefactError, "damaged"),
        (lambda m: m["positions"].update(last=24), ArtefactError, "have not 24 rows of last"),
        (lambda m: m.pop("positions"), ArtefactError, "damaged"),
        (lambda m: m.update(dtype="float64"), ArtefactError, "damaged"),
        (lambda m: m.update(complete=False), ArtefactError, r"not finished \(5 of 5 shards\)"),
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_refused(
    change: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    _opened(tmp_path / "acts")
    _edit(tmp_path / "acts", change)
    with pytest.raises(error, match=message):
        ActivationStore.open(tmp_path / "acts")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(dtype="float16"),
        lambda m: m["sites"].update({"blocks.0.hook_resid_post": 3}),
        lambda m: m.update(fingerprint="0" * 16),
        lambda m: m["shards"][0].update(bytes=m["shards"][0]["bytes"] + 8),
        lambda m: [m["shards"][i]["rows"].update(last=5 + d) for i, d in ((0, -1), (1, 1))],
    ],
)
def test_shapes_that_lie_are_refused_when_read(change: Any, tmp_path: Path) -> None:
    _opened(tmp_path / "acts")
    _edit(tmp_path / "acts", change)
    store = ActivationStore.open(tmp_path / "acts")
    with pytest.raises(ArtefactError, match=r"00000\.safetensors is not the shard"):
        store.array(SITES[0], "last")


@pytest.mark.parametrize("stored", ["twice", "beyond", "negative"])
def test_a_table_that_lies_is_refused_when_read(stored: str, tmp_path: Path) -> None:
    import pyarrow as pa

    made = made_up()
    column = made.table.column("stored").to_numpy().copy()
    column[0] = {"twice": column[1], "beyond": 10**6, "negative": -1}[stored]
    index = made.table.column_names.index("stored")
    changed = made.table.set_column(index, "stored", pa.array(column))
    object.__setattr__(made, "table", changed)
    store = made.write(tmp_path / "acts")
    assert store is not None
    with pytest.raises(ArtefactError, match="does not say where the rows of last are"):
        store.tensor(SITES[0], "last")
    assert len(store.tensor(SITES[0], "all")) == len(made.stored["all"])


def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no activation store"):
        ActivationStore.open(tmp_path / "nowhere")
    for text in ("{", "[]", "7", "null", "\x80"):
        (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(ArtefactError, match="damaged"):
            ActivationStore.open(tmp_path)


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    _, store = _opened(tmp_path / "acts")
    store.verify()
    shards = tmp_path / "acts" / "shards"
    flipped = bytearray((shards / "00001.safetensors").read_bytes())
    flipped[-5] ^= 1
    (shards / "00001.safetensors").write_bytes(flipped)
    cut = (shards / "00003.safetensors").read_bytes()
    (shards / "00003.safetensors").write_bytes(cut[:-1])
    (shards / "00004.safetensors").unlink()
    with pytest.raises(ArtefactError) as caught:
        store.verify()
    said = str(caught.value)
    assert "00001.safetensors is not what was written" in said
    assert f"00003.safetensors is cut short ({len(cut) - 1} of {len(cut)} bytes)" in said
    assert "00004.safetensors is missing" in said
    assert "00000" not in said and "00002" not in said and "rows.parquet" not in said
    with pytest.raises(ArtefactError, match=r"00003\.safetensors is cut short"):
        ActivationStore.open(tmp_path / "acts").tensor(SITES[2], "all")
    labels = bytearray((tmp_path / "acts" / "rows.parquet").read_bytes())
    labels[len(labels) // 2] ^= 1
    (tmp_path / "acts" / "rows.parquet").write_bytes(labels)
    with pytest.raises(ArtefactError, match=r"rows\.parquet is not what was written"):
        store.verify()
