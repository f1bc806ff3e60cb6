"""The algebra of plans, on random corpora, against plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affectlens.activations.forward import gather
from affectlens.activations.forward.buffers import Block
from affectlens.activations.forward.gather import make_batch
from affectlens.activations.forward.plan import CapturePlan, make_plan
from affectlens.activations.forward.tokenised import Texts
from affectlens.activations.positions import Position
from affectlens.core.places import Site
from affectlens.datasets.schema import Message, Record

WIDTHS = {Site(0, "resid_post"): 3, Site(1, "mlp_post"): 5}
POSITIONS = tuple(Position.parse(name) for name in ("last", "mean:reply", "all"))
ROW_BYTES = 4 * sum(WIDTHS.values())


def record(i: int) -> Record:
    words = (Message("user", f"q{i}"), Message("assistant", f"a{i}"))
    return Record(f"r{i}", words, "anger", None, f"g{i}", "", "fit")


def texts_of(lengths: Sequence[int], replies: Sequence[int]) -> Texts:
    """Texts whose reply is the last so many tokens; every token id is different."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    stop = np.array(lengths, np.int32)
    start = stop - np.minimum(stop, np.array(replies, np.int32))
    return Texts(
        records=tuple(record(i) for i in range(len(lengths))),
        ids=np.arange(1, offsets[-1] + 1, dtype=np.int32),
        offsets=offsets,
        spans={
            "last": np.stack([stop - 1, stop], 1),
            "mean:reply": np.stack([start, stop], 1),
            "all": np.stack([np.zeros_like(stop), stop], 1),
        },
        prompts=start,
        places=np.arange(len(lengths), dtype=np.int32),
        sinks=np.zeros(offsets[-1], np.bool_),
        counts={},
        tokens_fingerprint="",
        template_fingerprint="",
    )


corpora = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=40).map(
    lambda pairs: texts_of([a for a, _ in pairs], [b for _, b in pairs])
)
budgets = st.tuples(st.integers(1, 300), st.integers(1, 60).map(lambda rows: rows * ROW_BYTES))
some_positions = st.lists(st.sampled_from(POSITIONS), min_size=1, unique=True)
quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def plan_of(texts: Texts, budget: tuple[int, int], positions: Sequence[Position]) -> CapturePlan:
    return make_plan(
        texts,
        WIDTHS,
        positions,
        row_bytes=ROW_BYTES,
        max_tokens_per_batch=budget[0],
        shard_bytes=budget[1],
    )


def rows_of(plan: CapturePlan, text: int, position: Position) -> int:
    start, stop = plan.texts.spans[position.name][text]
    return 1 if position.pooled else int(stop - start)


@quick
@given(corpora, budgets, some_positions)
def test_batches_and_shards(
    texts: Texts, budget: tuple[int, int], positions: Sequence[Position]
) -> None:
    plan = plan_of(texts, budget, positions)
    max_tokens, shard_bytes = budget
    order = [int(i) for batch in plan.batches for i in batch]
    assert sorted(order) == list(range(len(texts)))
    lengths = [int(n) for n in texts.lengths]
    # Longest first, equal ones in corpus order.
    assert order == sorted(range(len(texts)), key=lambda i: (-lengths[i], i))

    def padded(batch: Sequence[int]) -> int:
        return len(batch) * max(lengths[i] for i in batch)

    def stored(batch: Sequence[int]) -> int:
        return ROW_BYTES * sum(rows_of(plan, int(i), p) for i in batch for p in positions)

    for i, batch in enumerate(plan.batches):
        one = len(batch) == 1
        assert one or (padded(batch) <= max_tokens and stored(batch) <= shard_bytes)
        if i + 1 < len(plan.batches):  # no batch ends earlier than it must
            longer = [*batch, plan.batches[i + 1][0]]
            assert padded(longer) > max_tokens or stored(longer) > shard_bytes
    assert [b for shard in plan.shards for b in shard] == list(range(len(plan.batches)))
    for i, shard in enumerate(plan.shards):
        size = sum(stored(plan.batches[b]) for b in shard)
        assert len(shard) == 1 or size <= shard_bytes
        if i + 1 < len(plan.shards):
            assert size + stored(plan.batches[plan.shards[i + 1][0]]) > shard_bytes
    again = plan_of(texts, budget, positions)
    assert again.shards == plan.shards
    assert [b.tolist() for b in again.batches] == [b.tolist() for b in plan.batches]


@quick
@given(corpora, budgets, some_positions)
def test_rows_are_numbered_in_the_order_they_are_run(
    texts: Texts, budget: tuple[int, int], positions: Sequence[Position]
) -> None:
    plan = plan_of(texts, budget, positions)
    table = plan.table().to_pydict()
    place = 0
    for position in positions:
        # By hand: which record and token every stored row comes from, and where it starts.
        spans = texts.spans[position.name]
        wanted = [
            (int(i), int(spans[i][0]) + k)
            for batch in plan.batches
            for i in batch
            for k in range(rows_of(plan, int(i), position))
        ]
        n = plan.rows[position.name]
        assert n == len(wanted)
        stored = table["stored"][place : place + n]
        assert sorted(stored) == list(range(n))
        found = [(table["id"][place + k], table["token"][place + k]) for k in range(n)]
        assert [found[k] for k in np.argsort(stored)] == [(f"r{i}", t) for i, t in wanted]
        assert found == [(f"r{i}", t) for i, t in sorted(wanted)]  # corpus order
        counts = [
            int(b - a) if position.pooled else 1
            for (a, b) in spans
            for _ in range(1 if position.pooled else b - a)
        ]
        assert table["tokens"][place : place + n] == counts
        assert set(table["position"][place : place + n]) == {position.name}
        for row in {0, n - 1, n // 2}:
            assert plan.record_of(position.name, row) == f"r{wanted[row][0]}"
        edges = [plan.shard_rows(i)[position.name] for i in range(len(plan.shards))]
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
        assert edges[-1][1] == n
        place += n
    assert place == len(table["id"])
    tokens = [plan.shard_tokens(i) for i in range(len(plan.shards))]
    assert sum(tokens) == len(texts.ids)


@quick
@given(corpora, budgets, some_positions, st.sampled_from(["left", "right"]), st.booleans())
def test_a_batch_holds_its_tokens_and_gathers_its_rows(
    texts: Texts,
    budget: tuple[int, int],
    positions: Sequence[Position],
    padding: str,
    fused: bool,
) -> None:
    plan = plan_of(texts, budget, positions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_FUSED", ("cpu",) if fused else ())
        for texts_of_batch in plan.batches:
            batch = make_batch(plan, texts_of_batch, torch.device("cpu"), padding)
            _check_batch(plan, texts_of_batch, batch, padding)


def _check_batch(plan: CapturePlan, chosen: Any, batch: gather.Batch, padding: str) -> None:
    texts = plan.texts
    rows = [texts.ids[texts.offsets[i] : texts.offsets[i + 1]].tolist() for i in chosen]
    longest = max(map(len, rows))
    for i, row in enumerate(rows):
        pad = [0] * (longest - len(row))
        ones = [1] * len(row)
        left = padding == "left"
        assert batch.ids[i].tolist() == (pad + row if left else row + pad)
        assert batch.mask[i].tolist() == (pad + ones if left else ones + pad)
    # Every value is a function of the token alone; what no position reads is not a number.
    value = torch.stack([batch.ids.float(), batch.ids.float().sqrt()], dim=-1)
    for position in plan.positions:
        spans = texts.spans[position.name]
        read = {int(rows[i][t]) for i, c in enumerate(chosen) for t in range(*spans[c])}
        holes = value.clone()
        holes[~torch.isin(batch.ids, torch.tensor(sorted(read)))] = float("nan")
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
            block = Block(plan.rows_per_batch * 2, 1)
            found = batch.picks[position.name](holes.to(dtype), block).float()
            expected = []
            for i, c in enumerate(chosen):
                ids = torch.tensor(rows[i][slice(*spans[c])]).float()
                one = torch.stack([ids, ids.sqrt()], dim=-1)
                expected.append(one.mean(0, keepdim=True) if position.pooled else one)
            torch.testing.assert_close(found, torch.cat(expected), rtol=tolerance, atol=0)
        start = batch.picks[position.name].start
        assert start == plan.starts[position.name][chosen[0]]


def test_labels_do_not_change_what_is_run() -> None:
    texts = texts_of([5, 9, 2, 9], [1, 2, 1, 3])
    other = replace(texts, records=tuple(replace(r, emotion="fear") for r in texts.records))
    plans = [plan_of(t, (20, 3 * ROW_BYTES), POSITIONS[:2]) for t in (texts, other)]
    assert plans[0].shards == plans[1].shards
    assert plans[0].order.tolist() == plans[1].order.tolist() == [1, 3, 0, 2]


def test_batches_use_the_same_memory_again() -> None:
    block, cpu = Block(numbers=24, tensors=2), torch.device("cpu")
    first, second = block.take(4, 3, torch.float32, cpu), block.take(4, 3, torch.bfloat16, cpu)
    first.fill_(1)
    second.fill_(2)
    assert bool((first == 1).all()) and first.data_ptr() != second.data_ptr()
    block.clear()
    assert block.take(8, 3, torch.float32, cpu).data_ptr() == first.data_ptr()
    beyond = block.take(100, 3, torch.float32, cpu)  # more than it was made for
    beyond.fill_(3)
    assert bool((first == 1).all())
