"""The running cache and kept beginnings against plain tensors."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.serving.local.prefix_store import STEP, PrefixStore
from affectlens.serving.local.running_cache import RunningCache, plain_cache

Texts = list[list[tuple[Tensor, Tensor]]]


def random_part(length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(2, length, 4), torch.randn(2, length, 4)


def test_rows_come_and_go(tiny_model: Any) -> None:
    """Every row's columns, read through the mask, are its own, after any history."""
    hf = tiny_model("llama").hf
    cache = RunningCache(hf)
    layers = len(cache.layers)
    rng = random.Random(0)
    known: Texts = []
    moved = 0
    for turn in range(400):
        if len(known) < 9 and (not known or rng.random() < 0.25):
            length = rng.choice((1, 5, 40, 90))
            parts = [random_part(length) for _ in range(layers)]
            if turn == 50:  # what a row that broke leaves behind must not spread
                parts = [(k * torch.nan, v * torch.nan) for k, v in parts]
            cache.join(parts)
            known.append(parts)
        mask = cache.begin_step()
        width = mask.shape[1]
        assert width == max(part[0][0].shape[1] for part in known) + 1
        for i in range(layers):
            new = torch.randn(len(known), 2, 1, 4), torch.randn(len(known), 2, 1, 4)
            keys, values = cache.cache.update(*new, i)
            assert keys.shape == (len(known), 2, width, 4)
            for row, parts in enumerate(known):
                parts[i] = tuple(  # type: ignore[assignment]
                    torch.cat([old, one[row]], dim=1)
                    for old, one in zip(parts[i], new, strict=True)
                )
                real = mask[row].bool()
                torch.testing.assert_close(keys[row][:, real], parts[i][0], equal_nan=True)
                torch.testing.assert_close(values[row][:, real], parts[i][1], equal_nan=True)
                assert bool(keys[row][:, ~real].isfinite().all())
                assert bool(values[row][:, ~real].isfinite().all())
        cache.end_step()
        gone = [i for i in range(len(known)) if rng.random() < 0.06]
        if turn == 60:
            gone = list(range(len(known)))
        places = cache.leave(gone)
        assert sorted(places) == [i for i in range(len(known)) if i not in gone]
        moved += places != sorted(places)
        known = [known[place] for place in places]
    assert moved > 10


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_plain_caches(tiny_model: Any, family: str) -> None:
    assert plain_cache(tiny_model(family).hf, 8) is not None


def test_the_longest_kept_beginning_is_found() -> None:
    store = PrefixStore(200)
    text = list(range(100))
    part = [random_part(60)]
    store.put(text[:60], part)
    found = store.find(text, len(text))
    assert found is not None and found.length == 60 // STEP * STEP
    torch.testing.assert_close(found.beginning.layers[0][0], part[0][0])
    assert store.find(text, 20).length == 16  # type: ignore[union-attr]
    assert store.find(text[:16], 16).length == 8  # type: ignore[union-attr]
    assert store.find(text, STEP - 1) is None
    assert store.find([7, *text], 100) is None
    store.put(text[:58], [random_part(58)])  # as good as kept
    store.put(text[:90], [random_part(90)])  # continues what is kept
    assert len(store) == 1
    store.put([*text[:30], *range(1000, 1060)], [random_part(90)])
    assert len(store) == 2
    store.find(text, 90)
    store.put(list(range(500, 560)), [random_part(60)])  # the one used longest ago goes
    assert len(store) == 2
    assert store.find(text, 90).length == 88  # type: ignore[union-attr]


def test_kept_beginnings_are_copies() -> None:
    store = PrefixStore(100)
    keys, values = random_part(16)
    store.put(list(range(16)), [(keys, values)])
    keys.zero_()
    assert float(store.find(list(range(17)), 17).beginning.layers[0][0].abs().min()) > 0  # type: ignore[union-attr]
