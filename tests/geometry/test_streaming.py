"""Directions from sums alone, against `directions` of the stored rows."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.activations import ActivationStore, capture
from affectlens.core.emotions import EMOTIONS, NEUTRAL
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import Site
from affectlens.datasets.schema import Corpus
from affectlens.geometry import ESTIMATORS, Directions, bootstrap_cosine, directions
from affectlens.geometry.streaming import STREAMED, group_sums, stream_directions
from affectlens.models.loading import load_model
from tests.activations import grouped

FEW = EMOTIONS[:4]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return grouped.replies(5)


@pytest.fixture(scope="module")
def store(tiny_model: Any, corpus: Corpus) -> ActivationStore:
    return capture(tiny_model("llama"), corpus)


def _same(found: Directions, expected: Directions, tolerance: float = 1e-4) -> None:
    assert (found.emotions, found.sites) == (expected.emotions, expected.sites)
    assert found.estimator == expected.estimator
    assert found.provenance == expected.provenance
    assert found.vectors.dtype == found.norms.dtype == found.split_half.dtype == torch.float32
    difference = (found.vectors - expected.vectors).norm(dim=-1)
    assert float(difference.max()) < tolerance
    torch.testing.assert_close(found.norms, expected.norms, rtol=tolerance, atol=0)
    torch.testing.assert_close(found.split_half, expected.split_half, rtol=0, atol=tolerance)


def test_which_estimators_stream() -> None:
    assert STREAMED == ("group_centred", "diff_neutral", "diff_rest")


@pytest.mark.parametrize("estimator", STREAMED)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_directions_equal_those_of_stored_rows(
    estimator: str, family: str, tiny_model: Any, corpus: Corpus
) -> None:
    """The group is the scenario alone, so the key must hold the valence too."""
    model = tiny_model(family)
    found = stream_directions(model, corpus, estimator=estimator, splits=4, seed=3)
    expected = directions(capture(model, corpus), estimator=estimator, splits=4, seed=3)
    _same(found, expected)
    assert found.provenance.parameters["groups"] == 10


def test_one_pass_for_all_estimators_and_the_bootstrap(
    tiny_model: Any, corpus: Corpus, store: ActivationStore
) -> None:
    sums = group_sums(tiny_model("llama"), corpus, emotions=FEW, splits=3, draws=20, seed=5)
    for estimator in STREAMED:
        options: dict[str, Any] = {"emotions": FEW, "estimator": estimator, "seed": 5}
        _same(sums.directions(estimator), directions(store, splits=3, **options))
        expected = bootstrap_cosine(store, draws=20, **options)
        found = sums.bootstrap_cosine(estimator)
        assert found.shape == (20, len(store.sites), 4)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float(sums.bootstrap_cosine().std(0).min()) > 0


def test_contents_far_larger_than_emotions_cancel() -> None:
    """Sums of rows with a mean of 1e4 whose emotions differ by 1e-2, against float64 in numpy."""
    from affectlens.activations.streaming.sum_sinks import RowIndex
    from affectlens.geometry.group_sums import GroupSink, GroupWeights
    from affectlens.geometry.grouping import group_rows, resamplings

    rng = np.random.default_rng(0)
    n_groups, d = 60, 16
    labels = [e for _ in range(n_groups) for e in EMOTIONS]
    groups = [str(g) for g in range(n_groups) for _ in EMOTIONS]
    x = 1e4 + 100 * np.repeat(rng.normal(size=(n_groups, d)), 6, 0)
    x = (x + 1e-2 * np.tile(rng.normal(size=(6, d)), (n_groups, 1))).astype(np.float32)
    found = group_rows(labels, groups, [None] * len(labels), EMOTIONS)
    weights = GroupWeights.of(found, len(labels), 6, resamplings(n_groups, 1, 0))
    numbers = np.arange(len(x))
    index = {"last": RowIndex(numbers, numbers, numbers, numbers, str)}
    sink = GroupSink(index, weights, None)
    site = Site(0, "resid_post")
    for part in np.array_split(numbers, 7):
        sink.write(site, "last", int(part[0]), torch.from_numpy(x[part]))
    sink.end()
    method = ESTIMATORS["group_centred"]
    assert method.from_sums is not None
    moved = method.from_sums(weights.sums(sink.sums[site, "last"].total))[0]
    grid = x.astype(np.float64).reshape(n_groups, 6, d)
    expected = (grid - grid.mean(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_incomplete_groups(tiny_model: Any) -> None:
    model = tiny_model("llama")
    corpus = grouped.replies(4, without=[(1, "negative", "fear"), (3, "positive", NEUTRAL)])
    store = capture(model, corpus)
    with pytest.raises(DataError) as refused:
        stream_directions(model, corpus)
    with pytest.raises(DataError) as expected:
        directions(store)
    assert str(refused.value) == str(expected.value)
    assert "1 of 8 groups lack some of the emotions (s1:negative lacks fear)" in str(refused.value)
    found = stream_directions(model, corpus, estimator="diff_rest", splits=5)
    _same(found, directions(store, estimator="diff_rest", splits=5))
    without_fear = tuple(e for e in EMOTIONS if e != "fear")
    _same(
        stream_directions(model, corpus, emotions=without_fear),
        directions(store, emotions=without_fear),
    )
    with pytest.raises(DataError, match="diff_neutral needs the neutral tone in every group"):
        stream_directions(model, corpus, emotions=without_fear, estimator="diff_neutral")


def test_texts_without_part_in_it_change_nothing(tiny_model: Any, corpus: Corpus) -> None:
    """Unlabelled texts, and groups with the neutral tone alone."""
    model = tiny_model("llama")
    rest = grouped.replies(2, seed=9)
    more = [replace(r, id=f"u-{r.id}", emotion=None, group="none") for r in rest]
    more += [replace(r, id=f"n-{r.id}", group="alone") for r in rest if r.emotion == NEUTRAL]
    larger = replace(corpus, records=(*more[:5], *corpus.records, *more[5:]))
    found, plain = (stream_directions(model, c, splits=2) for c in (larger, corpus))
    _same(found, directions(capture(model, larger), splits=2))
    torch.testing.assert_close(found.vectors, plain.vectors, rtol=0, atol=1e-4)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_cleaning(elsewhere: bool, tiny_model: Any, corpus: Corpus, store: ActivationStore) -> None:
    model = tiny_model("llama")
    clean: Any = True
    if elsewhere:
        clean = capture(model, grouped.replies(8, tones=[NEUTRAL], seed=4))
    found = stream_directions(model, corpus, clean=clean, splits=2)
    _same(found, directions(store, clean=clean, splits=2), 1e-3)
    raw = stream_directions(model, corpus, splits=2)
    assert float((found.norms / raw.norms).max()) < 0.99


def test_cleaning_needs_neutral_rows(tiny_model: Any) -> None:
    model, corpus = tiny_model("llama"), grouped.replies(2, tones=EMOTIONS)
    with pytest.raises(DataError, match="Cleaning needs neutral rows, at least two"):
        stream_directions(model, corpus, clean=True)


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e not in STREAMED])
def test_estimators_that_need_every_row_are_refused(
    estimator: str, tiny_model: Any, corpus: Corpus
) -> None:
    sentence = f"Estimator {estimator} is no weighted sum of rows; capture them and use directions"
    with pytest.raises(DataError, match=sentence):
        stream_directions(tiny_model("llama"), corpus, estimator=estimator)


def test_wrong_requests_are_one_sentence(tiny_model: Any, corpus: Corpus) -> None:
    model = tiny_model("llama")
    with pytest.raises(UnknownNameError, match="estimator 'mean'"):
        stream_directions(model, corpus, estimator="mean")
    with pytest.raises(DataError, match="at least two different emotions"):
        group_sums(model, corpus, emotions=["fear", "fear"])
    with pytest.raises(DataError, match="There are no rows for boredom"):
        stream_directions(model, corpus, emotions=["fear", "boredom"])
    with pytest.raises(DataError, match="choose one of last, mean:reply"):
        stream_directions(model, corpus, position="last,mean:reply")
    with pytest.raises(DataError, match="Position all:reply has a row per token"):
        stream_directions(model, corpus, position="all:reply")
    with pytest.raises(DataError, match="different width"):
        stream_directions(model, corpus, sites="resid_post,mlp_post")
    with pytest.raises(DataError, match="at least two groups"):
        few = replace(corpus, records=tuple(r for r in corpus if r.group == "s0")).filter(
            valence="positive"
        )
        stream_directions(model, few)
    with pytest.raises(DataError, match=r"draws=100"):
        group_sums(model, corpus, sites="resid_post@0").bootstrap_cosine()
    with pytest.raises(UnknownNameError, match="engine"):
        stream_directions(model, corpus, engine="steam")


def test_a_site_without_difference_is_refused_as_from_a_store(
    tiny_model: Any, corpus: Corpus
) -> None:
    """The last token of every text is the same, and so is its embedding."""
    model = tiny_model("llama")
    with pytest.raises(DataError) as expected:
        directions(capture(model, corpus, sites="resid_pre@0", positions="last"))
    with pytest.raises(DataError) as refused:
        stream_directions(model, corpus, sites="resid_pre@0", position="last")
    assert str(refused.value) == str(expected.value)
    assert "is the same under" in str(refused.value)


def test_test_rows_are_warned_of(
    tiny_model: Any, corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("llama")
    tested = replace(corpus, records=tuple(replace(r, split="test") for r in corpus))
    with caplog.at_level(logging.WARNING):
        stream_directions(model, corpus, sites="resid_post@0")
        assert not caplog.records
        stream_directions(model, tested, sites="resid_post@0")
    assert "test rows" in caplog.text


def test_an_interrupt_leaves_no_hooks(tiny_model: Any, corpus: Corpus) -> None:
    clean = tiny_model("llama")
    model = load_model(copy.deepcopy(clean.hf), tokenizer=clean.tokenizer)

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.anatomy.blocks[1].block.register_forward_hook(interrupt)
    before = hooks()
    with pytest.raises(KeyboardInterrupt):
        stream_directions(model, corpus)
    assert hooks() == before
    handle.remove()


@pytest.mark.model
def test_real_directions_equal_those_of_stored_rows(real_model: Any) -> None:
    from affectlens.datasets import load

    corpus = load("replies").filter(role="direction", theme="work")
    chosen = corpus.groups()[:3]
    corpus = replace(corpus, records=tuple(r for r in corpus if r.group in chosen))
    sites = "resid_post@5,resid_post@15,resid_post@28"
    found = stream_directions(real_model, corpus, sites=sites, splits=2)
    _same(found, directions(capture(real_model, corpus, sites=sites), splits=2), 1e-3)
