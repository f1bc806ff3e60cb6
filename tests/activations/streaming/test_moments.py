"""Moments of a model's activations, against numpy in float64 over the rows `capture` stores."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.activations import capture
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.streaming.moments import Moments, moments, moments_of, weighted_sums
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.places import Site
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.models.loading import load_model
from tests.activations import grouped

SITES = "resid_pre@0,resid_post,mlp_post@1,z@2"
POSITIONS = ("last", "mean:reply", "all:reply")
RUN: dict[str, Any] = {"sites": SITES, "positions": POSITIONS, "max_tokens_per_batch": 300}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return grouped.replies(3)


@pytest.fixture(scope="module")
def store(tiny_model: Any, corpus: Corpus) -> ActivationStore:
    return capture(tiny_model("llama"), corpus, **RUN)


def _keys(store: ActivationStore, position: str, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    if not by:
        return [()] * len(store.column("id", position))
    return list(zip(*(store.column(name, position) for name in by), strict=True))


def _compare(found: Moments, store: ActivationStore, by: tuple[str, ...], per_class: bool) -> None:
    """Every number of every site, position and class."""
    for position in found.positions:
        keys = _keys(store, position, by)
        assert set(found.classes) >= set(keys)
        for site in found.sites:
            x = store.to_numpy(site, position).astype(np.float64)
            for of in (None, *dict.fromkeys(keys)):
                rows = x if of is None else x[[key == of for key in keys]]
                at: dict[str, Any] = {"position": position, "of": of}
                assert found.count(of, position=position) == len(rows)
                np.testing.assert_allclose(found.mean(site, **at), rows.mean(0), atol=1e-12)
                np.testing.assert_allclose(found.variance(site, **at), rows.var(0), atol=1e-12)
                np.testing.assert_allclose(
                    found.rms(site, **at), np.sqrt((rows**2).mean(0)), atol=1e-12
                )
                expected = np.sqrt((rows**2).mean(1)).mean()
                assert found.row_rms(site, **at) == pytest.approx(expected, rel=1e-12)
                if of is None or per_class:
                    expected = np.cov(rows.T, ddof=0)
                    np.testing.assert_allclose(found.covariance(site, **at), expected, atol=1e-11)
            means = {key: x[[k == key for k in keys]].mean(0) for key in set(keys)}
            around = x - np.stack([means[key] for key in keys])
            np.testing.assert_allclose(
                found.within_covariance(site, position=position, ddof=1),
                around.T @ around / (len(x) - 1),
                atol=1e-11,
            )
            np.testing.assert_allclose(
                found.means(site, position=position)[found.classes.index(keys[0])],
                means[keys[0]],
                atol=1e-12,
            )


@pytest.mark.parametrize(
    ("by", "per_class"), [((), True), (("emotion",), True), (("group", "emotion"), False)]
)
def test_moments_equal_those_of_the_stored_rows(
    by: tuple[str, ...], per_class: bool, tiny_model: Any, corpus: Corpus, store: ActivationStore
) -> None:
    asked = by[0] if len(by) == 1 else by
    found = moments(
        tiny_model("llama"), corpus, by=asked, covariance=True, class_covariance=per_class, **RUN
    )
    assert found.sites == store.sites and found.positions == POSITIONS
    assert found.by == by and found.facts["records"] == len(corpus)
    _compare(found, store, by, per_class)


def test_batches_padding_and_the_order_of_the_corpus_change_only_rounding(
    tiny_model: Any, corpus: Corpus
) -> None:
    model = tiny_model("llama")
    options: dict[str, Any] = {"by": "emotion", "covariance": True}
    first = moments(model, corpus, **RUN, **options)
    backwards = replace(corpus, records=corpus.records[::-1])
    others = (
        moments(model, corpus, **{**RUN, "max_tokens_per_batch": 1}, **options),
        moments(model, corpus, **{**RUN, "max_tokens_per_batch": 9999}, padding="left", **options),
        moments(model, backwards, **RUN, **options),
    )
    for other in others:
        for site in first.sites:
            for position in POSITIONS:
                for of in (None, "fear"):
                    at: dict[str, Any] = {"of": of, "position": position}
                    for name in ("mean", "variance", "rms"):
                        a, b = (getattr(m, name)(site, **at) for m in (first, other))
                        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
                a, b = (m.covariance(site, position=position) for m in (first, other))
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_a_model_in_bfloat16(tiny_model: Any, corpus: Corpus) -> None:
    clean = tiny_model("llama")
    model = load_model(copy.deepcopy(clean.hf).bfloat16(), tokenizer=clean.tokenizer)
    store = capture(model, corpus, **RUN)
    found = moments(model, corpus, by="emotion", covariance=True, class_covariance=True, **RUN)
    _compare(found, store, ("emotion",), True)


def test_covariances_only_where_asked_for(tiny_model: Any, corpus: Corpus) -> None:
    found = moments(tiny_model("llama"), corpus, covariance="resid_post@1", by="emotion")
    assert found.covariance("blocks.1.hook_resid_post").shape == (32, 32)
    with pytest.raises(DataError, match="No covariance was kept of this site"):
        found.covariance(Site(0, "resid_post"))
    with pytest.raises(DataError, match="class_covariance=True"):
        found.covariance(Site(1, "resid_post"), "anger")


def test_the_largest_rows_with_ties(
    tiny_model: Any, corpus: Corpus, store: ActivationStore
) -> None:
    """The same token has the same embedding, wherever it stands: ties by the dozen."""
    found = moments(tiny_model("llama"), corpus, top_k=9, **RUN)
    for position in POSITIONS:
        ids, tokens = (store.column(name, position) for name in ("id", "token"))
        for site in found.sites:
            x = store.to_numpy(site, position)
            for unit in (0, 3, x.shape[1] - 1):
                rows = np.lexsort((np.arange(len(x)), -x[:, unit]))[:9]
                expected = [(float(x[i, unit]), ids[i], tokens[i]) for i in rows]
                top = found.top(site, unit, position=position)
                assert [(e.value, e.record, e.token) for e in top] == expected
    tied = found.top("blocks.0.hook_resid_pre", 0, position="all:reply")
    assert len({example.value for example in tied}) < 5


def test_of_a_store_the_moments_are_the_same(
    tiny_model: Any, corpus: Corpus, tmp_path: Path
) -> None:
    model = tiny_model("gpt2")
    run: dict[str, Any] = {**RUN, "positions": "all:reply"}
    options: dict[str, Any] = {"by": "emotion", "covariance": True, "top_k": 4}
    direct = moments(model, corpus, **run, **options)
    stored = capture(model, corpus, out=tmp_path / "a", shard_bytes=200_000, **run)
    assert len(list(tmp_path.glob("a/shards/*.safetensors"))) > 2
    assert not np.array_equal(stored.storage_order(), np.arange(len(stored)))
    found = moments_of(stored, **options)
    assert found.provenance.fingerprint == direct.provenance.fingerprint
    assert (found.sites, found.classes, found.positions) == (
        direct.sites,
        direct.classes,
        direct.positions,
    )
    for site in found.sites:
        for of in (None, "anger"):
            torch.testing.assert_close(found.variance(site, of), direct.variance(site, of))
        torch.testing.assert_close(found.covariance(site), direct.covariance(site))
        assert found.top(site, 2) == direct.top(site, 2)
    kept = stored.select(emotion=("anger", "fear"))
    some = moments_of(kept, sites="resid_post@1", by=("emotion", "token"), covariance=True)
    _compare(some, kept, ("emotion", "token"), False)
    assert some.provenance.fingerprint != found.provenance.fingerprint
    torch.testing.assert_close(
        moments_of(kept, by="emotion").mean(Site(0, "resid_post"), "anger"),
        direct.mean(Site(0, "resid_post"), "anger"),
    )


def test_weighted_sums_are_the_product_with_the_stored_rows(
    tiny_model: Any, corpus: Corpus, store: ActivationStore
) -> None:
    weights = torch.randn(5, len(corpus), generator=torch.Generator().manual_seed(0))
    found = weighted_sums(tiny_model("llama"), corpus, weights, **RUN)
    number = {record.id: i for i, record in enumerate(corpus)}
    for position in POSITIONS:
        of_row = weights[:, [number[i] for i in store.column("id", position)]].double()
        for site in store.sites:
            expected = of_row @ store.to_torch(site, position).double()
            torch.testing.assert_close(found[site, position], expected, rtol=1e-9, atol=1e-9)


def test_a_skipped_text_adds_nothing(tiny_model: Any, corpus: Corpus) -> None:
    model = tiny_model("llama")
    long = Record(
        "long",
        (Message("user", "Hello"), Message("assistant", "I am happy about it today. " * 60)),
        "happiness", "neutral", "s9", "home", "fit",
    )  # fmt: skip
    longer = replace(corpus, records=(long, *corpus.records))
    weights = torch.randn(2, len(longer), generator=torch.Generator().manual_seed(0))
    a = weighted_sums(model, longer, weights, overlong="skip")
    b = weighted_sums(model, corpus, weights[:, 1:])
    for key, total in b.items():
        torch.testing.assert_close(a[key], total, rtol=1e-5, atol=1e-4)
    found = moments(model, longer, overlong="skip")
    assert found.count() == len(corpus) and found.facts["skipped"] == 1
    with pytest.raises(DataError, match="Record long has"):
        moments(model, longer)


def test_a_batch_run_in_halves_is_counted_once(tiny_model: Any, corpus: Corpus) -> None:
    clean = tiny_model("llama")
    model = load_model(copy.deepcopy(clean.hf), tokenizer=clean.tokenizer)
    options: dict[str, Any] = {"sites": "resid_post@0", "positions": "all", "by": "emotion"}
    expected = moments(model, corpus, **options)
    sizes: list[int] = []

    def full(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("out of memory")

    model.anatomy.base.register_forward_pre_hook(full, with_kwargs=True)
    found = moments(model, corpus, **options)
    assert max(sizes) > 4
    for of in (None, *expected.classes):
        assert found.count(of) == expected.count(of)
    for site in found.sites:
        torch.testing.assert_close(found.variance(site), expected.variance(site), rtol=1e-4, atol=0)


def _hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


@pytest.mark.parametrize("positions", ["all", "mean:reply"])
def test_nan_is_refused_by_site_and_record(positions: str, tiny_model: Any) -> None:
    clean = tiny_model("llama")
    model = load_model(copy.deepcopy(clean.hf), tokenizer=clean.tokenizer)
    strange = Record(
        "odd", (Message("user", "Hello"), Message("assistant", "I see {} there.")),
        "fear", "neutral", "s9", "home", "fit",
    )  # fmt: skip
    corpus = grouped.replies(1)
    corpus = replace(corpus, records=(*corpus.records[:5], strange, *corpus.records[5:]))
    with torch.no_grad():
        only = model.tokenizer("{", add_special_tokens=False)["input_ids"][-1]
        model.hf.get_input_embeddings().weight[only] = float("nan")
    before = _hooks(model)
    message = r"blocks\.0\.hook_resid_pre of record odd holds NaN"
    options: dict[str, Any] = {"sites": "resid_pre@0,resid_post", "positions": positions}
    with pytest.raises(DataError, match=message):
        moments(model, corpus, top_k=3, by="emotion", **options)
    with pytest.raises(DataError, match=message):
        weighted_sums(model, corpus, torch.zeros(1, len(corpus)), **options)
    assert _hooks(model) == before


def test_an_interrupt_leaves_no_hooks(tiny_model: Any, corpus: Corpus) -> None:
    clean = tiny_model("llama")
    model = load_model(copy.deepcopy(clean.hf), tokenizer=clean.tokenizer)
    passes: list[int] = []

    def interrupt(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt

    handle = model.anatomy.blocks[1].block.register_forward_hook(interrupt)
    before = _hooks(model)
    with pytest.raises(KeyboardInterrupt):
        moments(model, corpus, **RUN)
    assert len(passes) == 3 and _hooks(model) == before
    handle.remove()
    assert moments(model, corpus, **RUN).count(position="last") == len(corpus)


def test_save_and_load(tiny_model: Any, corpus: Corpus, tmp_path: Path) -> None:
    found = moments(
        tiny_model("llama"),
        corpus,
        sites="resid_post,mlp_post@0",
        positions="last,mean:reply",
        by=("valence", "emotion"),
        covariance="mlp_post@0",
        top_k=3,
    )
    path = tmp_path / "m.safetensors"
    found.save(path)
    loaded = Moments.load(path)
    for name in ("sites", "positions", "by", "classes", "records", "facts", "provenance"):
        assert getattr(loaded, name) == getattr(found, name)
    for key, sums in found.sums.items():
        for name, value in vars(sums).items():
            other = getattr(loaded.sums[key], name)
            assert (other is None and value is None) or torch.equal(other, value)
    of = ("negative", "fear")
    assert loaded.count(of, position="last") == 3
    site = Site(0, "mlp_post")
    assert loaded.top(site, 5, position="last") == found.top(site, 5, position="last")
    file = read_tensors(path)
    cut = {**file.tensors, "last/count": file.tensors["last/count"][1:]}
    write_tensors(tmp_path / "cut.safetensors", cut, file.provenance, file.extra)
    with pytest.raises(ArtefactError, match="do not fit"):
        Moments.load(tmp_path / "cut.safetensors")
    few = {**file.extra, "records": file.extra["records"][:1]}
    write_tensors(tmp_path / "few.safetensors", file.tensors, file.provenance, few)
    with pytest.raises(ArtefactError, match="do not fit"):
        Moments.load(tmp_path / "few.safetensors")
    write_tensors(tmp_path / "none.safetensors", {}, file.provenance, file.extra)
    with pytest.raises(ArtefactError, match="lacks 'last/count'"):
        Moments.load(tmp_path / "none.safetensors")
    from affectlens.geometry import Directions

    with pytest.raises(MismatchError, match="holds a moments, not a directions"):
        Directions.load(path)


def test_wrong_requests_are_one_sentence(tiny_model: Any, corpus: Corpus) -> None:
    model = tiny_model("llama")
    with pytest.raises(UnknownNameError, match="column 'emotions'; choose one of: emotion"):
        moments(model, corpus, by="emotions")
    with pytest.raises(UnknownNameError, match="site"):
        moments(model, corpus, sites="resid_post@0", covariance="resid_pre@0")
    with pytest.raises(DataError, match="class_covariance needs covariance"):
        moments(model, corpus, class_covariance=True)
    with pytest.raises(DataError, match="0 or more, not -1"):
        moments(model, corpus, top_k=-1)
    with pytest.raises(DataError, match=r"weights \[k, 42\], one per record, not \[2, 3\]"):
        weighted_sums(model, corpus, torch.zeros(2, 3))
    found = moments(model, corpus, positions="last,mean:reply", by="emotion")
    site = Site(0, "resid_post")
    with pytest.raises(UnknownNameError, match="position"):
        found.mean(site)
    with pytest.raises(UnknownNameError, match="class 'angre'; choose one of: anger"):
        found.mean(site, "angre", position="last")
    with pytest.raises(UnknownNameError, match="site"):
        found.mean("blocks.0.hook_resid_pre", position="last")
    with pytest.raises(DataError, match="No examples were kept"):
        found.top(site, 0, position="last")
    one = moments(model, replace(corpus, records=corpus.records[:1]), top_k=2)
    with pytest.raises(DataError, match="more than 1 rows; there are 1"):
        one.variance(site, ddof=1)
    with pytest.raises(UnknownNameError, match="unit"):
        one.top(site, 32)
    assert len(one.top(site, 31)) == 1
