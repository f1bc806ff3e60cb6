"""Mini-batches: every row once, in an order that follows from the seed, with its labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.activations import ActivationStore
from affectlens.activations.store import minibatches as batches_module
from affectlens.core.errors import DataError, UnknownNameError
from tests.activations.store.made_up import SITES, made_up

SITE = SITES[2]


@pytest.fixture(params=["memory", "disk", "int8"], scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: Any) -> ActivationStore:
    made = made_up(150, texts_per_shard=40, dtype="int8" if request.param == "int8" else "float32")
    if request.param == "memory":
        return ActivationStore.in_memory(
            made.values, made.table, made.spec.provenance, made.spec.facts
        )
    written = made.write(tmp_path_factory.mktemp("stores") / "acts")
    assert written is not None
    return written


@pytest.fixture(params=["one pool", "many pools"])
def pools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The pool is larger than these stores, unless it is made small."""
    if request.param == "many pools":
        monkeypatch.setattr(batches_module, "_POOL_BYTES", 4 * 7 * 40)  # 40 rows of this site
        monkeypatch.setattr(batches_module, "_BLOCKS", 8)
    yield request.param


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_every_row_comes_once_with_its_labels(
    store: ActivationStore, pools: str, shuffle: bool, selected: bool, size: int
) -> None:
    if selected:
        store = store.select(split="fit", emotion=("anger", "fear", None))
    every = store.to_torch(SITE, "all")
    columns = ("token", "id", "emotion")
    expected = {name: store.column(name, "all") for name in columns}
    assert None in expected["emotion"]
    found = list(
        store.batches(SITE, "all", batch_size=size, shuffle=shuffle, seed=3, columns=columns)
    )
    lengths = [len(batch.values) for batch in found]
    assert lengths[:-1] == [size] * (len(found) - 1) and 0 < lengths[-1] <= size
    rows = np.concatenate([batch.rows for batch in found])
    assert sorted(rows) == list(range(len(every)))
    assert (rows.tolist() == list(range(len(every)))) == (not shuffle)
    for values, labels, numbers in found:
        assert values.dtype == torch.float32
        assert torch.equal(values, every[torch.from_numpy(numbers)])
        assert labels == {name: [expected[name][i] for i in numbers] for name in columns}


def test_the_order_follows_from_the_seed(store: ActivationStore, pools: str) -> None:
    def order(seed: int) -> list[int]:
        found = store.batches(SITE, "all", batch_size=16, seed=seed)
        return [row for batch in found for row in batch.rows]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_a_batch_mixes_places_far_apart(store: ActivationStore, pools: str) -> None:
    """Neighbours in a batch lie about as far apart as in a random order, a third of the rows."""
    lies = np.empty(len(store.column("id", "all")), int)
    lies[store.storage_order("all")] = np.arange(len(lies))
    found = list(store.batches(SITE, "all", batch_size=24))
    apart = np.concatenate([np.abs(np.diff(lies[batch.rows])) for batch in found])
    assert apart.mean() > len(lies) / 4
    assert len(set(lies[found[0].rows] // 5)) >= 5  # blocks of five rows where pools are small


def test_selected_blocks_alone_are_read(tmp_path: Path, pools: str) -> None:
    made = made_up(150, texts_per_shard=40)
    made.write(tmp_path / "acts")
    store = ActivationStore.open(tmp_path / "acts")
    last_shard = store.storage_order("all")[made.spec.shards[3]["all"][0] :]
    mask = np.zeros(len(store), bool)
    mask[150 + last_shard] = True  # after the rows of "last"
    for shard in range(3):
        (tmp_path / "acts" / "shards" / f"{shard:05d}.safetensors").unlink()
    found = list(store.select(mask).batches(SITE, "all", batch_size=8))
    assert sum(len(batch.rows) for batch in found) == len(last_shard)


def test_wrong_requests(store: ActivationStore) -> None:
    with pytest.raises(DataError, match="at least one row"):
        store.batches(SITE, "all", batch_size=0)
    with pytest.raises(UnknownNameError, match="column"):
        store.batches(SITE, "all", columns=("feeling",))
    with pytest.raises(UnknownNameError, match="position"):
        store.batches(SITE)
