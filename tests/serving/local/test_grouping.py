"""Which prompts are run in one pass, beside what each would have cost alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from affectlens.models.anatomy.padding import Padding
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.serving.local.generation import Generation
from affectlens.serving.local.grouping import WORTH, Grouping
from affectlens.serving.local.prefix_store import STEP, PrefixStore
from affectlens.serving.local.row import Row

ANY = Padding(left=True, between=True, chunks=True)
TEMPLATE = tuple(range(100, 132))  # 32 tokens that every prompt begins with


def row(*prompt: int) -> Row:
    asked = Generation(prompt, GenerationSettings(max_new_tokens=4))
    return Row(str(prompt), asked, lambda _: None, lambda _: "", ())


def kept(*texts: Sequence[int]) -> PrefixStore:
    store = PrefixStore(10_000)
    for text in texts:
        part = torch.zeros(1, len(text), 2)
        store.put(text, [(part, part)])
    return store


def test_prompts_that_agree_on_most_of_what_is_kept_are_run_together() -> None:
    store = kept((*TEMPLATE, *range(200, 208)), (*TEMPLATE, *range(300, 316)))
    rows = [
        row(*TEMPLATE, *range(200, 212)),  # knows 40 tokens
        row(*TEMPLATE, *range(300, 312)),  # knows 40 of another
        row(*TEMPLATE, 1, 2, 3),
        row(*TEMPLATE, 4, 5),
    ]
    group = Grouping(store, ANY, shares=True)(rows)
    assert group is not None and group.shared is not None
    assert list(group.rows) == rows
    assert group.shared.length == len(TEMPLATE) == 32
    for one in group.rows:  # what they are given is how their prompts begin
        assert one.asked.prompt[:32] == tuple(group.shared.beginning.ids[:32])


def test_a_long_kept_beginning_is_not_run_again_for_company() -> None:
    far = (*TEMPLATE, *range(200, 200 + WORTH + STEP))
    store = kept(far, TEMPLATE)
    near, continued = row(*TEMPLATE, 1, 2, 3), row(*far, 7)
    for rows in ([near, continued], [continued, near]):
        group = Grouping(store, ANY, shares=True)(rows)
        assert group is not None and list(group.rows) == rows[:1]
    both = Grouping(store, ANY, shares=True)([continued, row(*far, 8, 9)])
    assert both is not None and both.shared is not None
    assert len(both.rows) == 2 and both.shared.length == len(far)


def test_giving_way_counts_for_everybody_in_the_group() -> None:
    eight = tuple(range(200, 208))
    store = kept((*TEMPLATE, *eight, 1, 2, 3, 4, 5, 6, 7, 8))
    knowing = [row(*TEMPLATE, *eight, i, i) for i in range(10, 10 + WORTH // STEP + 1)]
    group = Grouping(store, ANY, shares=True)([*knowing, row(*TEMPLATE, 50)])
    assert group is not None and list(group.rows) == knowing  # five would run 8 tokens again
    few = [knowing[0], row(*TEMPLATE, 50)]
    group = Grouping(store, ANY, shares=True)(few)
    assert group is not None and list(group.rows) == few


def test_strangers_are_not_run_from_a_beginning_that_they_do_not_share() -> None:
    store = kept(TEMPLATE)
    group = Grouping(store, ANY, shares=True)([row(*TEMPLATE, 1), row(5, 6, 7)])
    assert group is not None and len(group.rows) == 1
    group = Grouping(store, ANY, shares=True)([row(5, 6, 7), row(*TEMPLATE, 1)])
    assert group is not None and group.shared is None  # 32 tokens again cost less than a pass
    assert len(group.rows) == 2


def test_rows_that_notice_each_other_or_padding_stay_apart() -> None:
    store = kept(TEMPLATE)
    rows = [row(*TEMPLATE, 1), row(*TEMPLATE, 2, 3), row(*TEMPLATE, 4)]
    assert len(Grouping(store, ANY, shares=False)(rows).rows) == 1  # type: ignore[union-attr]
    strict = Padding(left=True, between=False, chunks=True)
    group = Grouping(store, strict, shares=True)(rows)
    assert group is not None and list(group.rows) == [rows[0], rows[2]]
    assert Grouping(store, ANY, shares=True)([]) is None
