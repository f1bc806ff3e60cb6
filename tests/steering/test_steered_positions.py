"""Masks by absolute position against a loop over tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from affectlens.core import UnknownNameError
from affectlens.steering.positions import (
    PADDING,
    absolute_positions,
    inside,
    interval,
    intervals,
)
from affectlens.steering.spec import POSITIONS
from tests.steering.oracle import steered_at


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 5), st.sampled_from(POSITIONS)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["left", "right"]),
    st.lists(st.integers(1, 11), max_size=3),
)
def test_any_cut_into_chunks_steers_the_same_tokens(
    rows: list[tuple[int, int, str]], side: str, cuts: list[int]
) -> None:
    """Rows of prompt and reply, padded, in chunks, against what each token is by name."""
    width = max(prompt + reply for prompt, reply, _ in rows)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    wanted = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (prompt, reply, positions) in enumerate(rows):
        length = prompt + reply
        start = width - length if side == "left" else 0
        mask[i, start : start + length] = 1
        for t in range(length):
            wanted[i, start + t] = steered_at(positions, t, prompt)
    bounds = intervals([p for _, _, p in rows], [n for n, _, _ in rows])
    edges = sorted({0, width, *(cut for cut in cuts if cut < width)})
    got = [
        inside(absolute_positions(mask[:, :stop], stop - start), bounds)
        for start, stop in pairwise(edges)
    ]
    assert torch.equal(torch.cat(got, dim=1), wanted)


def test_a_hole_in_the_mask_is_no_token() -> None:
    mask = torch.tensor([[1, 1, 0, 0, 1, 1]])
    assert absolute_positions(mask, 6).tolist() == [[0, 1, PADDING, PADDING, 2, 3]]
    assert absolute_positions(mask, 2).tolist() == [[2, 3]]


def test_padding_is_never_steered() -> None:
    """Not even by a prompt length that makes no sense."""
    bounds = intervals(["last_prompt+generated"], [0])
    assert inside(torch.tensor([[PADDING, 0, 1]]), bounds).tolist() == [[False, True, True]]


def test_unknown_positions() -> None:
    with pytest.raises(UnknownNameError, match="generated"):
        interval("generate", 3)
