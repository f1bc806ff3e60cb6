"""Which prompts are generated together, and what of them is run only once.

Prompts share their beginnings: the template and its system prompt, or all of it when one prompt is
steered in six ways. A batch is therefore fed level by level: what all rows have in common, what
groups of rows have in common, what is each row's own. Only what no listener touches is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from affectlens.models.batches import BatchLimits, cut

Ids = tuple[int, ...]

MIN_COMMON = 8
"""Shorter common beginnings are not worth a forward pass of their own."""


@dataclass(frozen=True)
class Level:
    """One forward pass of a prefill.

    Attributes:
        tokens: Per row of this pass, what to append. All empty if the level only repeats rows.
        parents: Per row, which row of the level before it continues.
        rows: Per row, one prompt (index in the caller's list) that it is the beginning of.
    """

    tokens: tuple[Ids, ...]
    parents: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Rows that are generated together, and how their prompts are fed."""

    rows: tuple[int, ...]
    levels: tuple[Level, ...]


def plan(
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    max_tokens: int,
    untouched: Callable[[int, int], int],
    share: bool = True,
    share_beginnings: bool = True,
    mix_lengths: bool = True,
) -> list[Batch]:
    """Sort rows by length, so that little is padding, and cut them into batches.

    Args:
        prompts: Token ids per row.
        new_tokens: Longest reply.
        max_tokens: Rows times longest row of a batch.
        untouched: Given a row and its length, how many leading tokens may be shared.
        share: Whether to share anything.
        share_beginnings: Whether prompts that differ may share their beginnings. Padding then
            lies between these and the rest.
        mix_lengths: Whether prompts of different lengths may run together, padded on the left.
    """
    kinds: dict[int | None, list[int]] = {}
    for row, ids in enumerate(prompts):
        shared = untouched(row, len(ids)) if share else 0
        kinds.setdefault(len(ids) - shared if shared > 0 else None, []).append(row)
    for own in [own for own in kinds if own]:
        if len({tuple(prompts[row][:-own]) for row in kinds[own]}) == len(kinds[own]):
            kinds.setdefault(None, []).extend(kinds.pop(own))  # no prompt occurs twice
    lengths = [len(ids) + new_tokens for ids in prompts]
    batches: list[Batch] = []
    for own, rows in kinds.items():
        rows.sort(key=lambda row: (len(prompts[row]), tuple(prompts[row]), row))
        for chunk in cut(rows, lengths, BatchLimits(max_tokens, mixed=mix_lengths)):
            texts = [tuple(prompts[row]) for row in chunk]
            levels = _levels(texts, chunk, own, share_beginnings)
            batches.append(Batch(tuple(chunk), levels))
    return batches


def _levels(
    texts: Sequence[Ids], rows: Sequence[int], own: int | None, beginnings: bool
) -> tuple[Level, ...]:
    if own is None:
        return (Level(tuple(texts), tuple(range(len(rows))), tuple(rows)),)
    trunks = [text[: len(text) - own] for text in texts]
    place = {trunk: i for i, trunk in enumerate(dict.fromkeys(trunks))}
    first = {place[trunk]: row for trunk, row in reversed(list(zip(trunks, rows, strict=True)))}
    levels: list[Level] = []
    common = _common(list(place)) if beginnings and len(place) > 1 else 0
    if common:
        levels.append(Level((trunks[0][:common],), (0,), (rows[0],)))
    levels.append(
        Level(
            tuple(trunk[common:] for trunk in place),
            tuple(0 if common else i for i in place.values()),
            tuple(first[i] for i in place.values()),
        )
    )
    if own or len(place) < len(rows):
        rest = tuple(text[len(text) - own :] for text in texts)
        levels.append(Level(rest, tuple(place[trunk] for trunk in trunks), tuple(rows)))
    return tuple(levels)


def _common(texts: Sequence[Ids]) -> int:
    """How many first tokens all texts share, leaving each at least one; 0 if too few to matter."""
    low, high = min(texts), max(texts)  # in dictionary order, so what these share all do
    longest = min(len(text) for text in texts) - 1
    length = next((i for i in range(longest) if low[i] != high[i]), longest)
    return length if length >= MIN_COMMON else 0
