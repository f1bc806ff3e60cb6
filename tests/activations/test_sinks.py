"""Means without attention sinks, against rows read one text at a time and averaged by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.activations import capture, moments
from affectlens.activations.positions import DEFAULT_POSITIONS
from affectlens.circuits import unit_means
from affectlens.circuits.attribution.unit_means import store_means
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.datasets.schema import Corpus, Message, Record
from tests.activations import plain
from tests.models.test_sinks import planted

SITES = (Site(0, "resid_pre"), Site(1, "mlp_post"), Site(2, "resid_post"))


def mean(values: Tensor, ids: list[int], span: tuple[int, int], spared: set[int]) -> Tensor:
    read = [i for i in range(*span) if i and ids[i] not in spared]
    assert 0 < len(read) < span[1] - span[0]  # something is left out, and something left
    return values[read].mean(0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_means_leave_them_out(family: str, padding: str) -> None:
    model, corpus = planted(family, "."), plain.texts()
    (stop,) = model.tokenizer(".", add_special_tokens=False)["input_ids"]
    names = ("mean:text", "mean:text+sinks", "first:4:text", "last", "all")
    store = capture(
        model, corpus, sites=SITES, positions=names, padding=padding, max_tokens_per_batch=90
    )
    assert store.provenance.parameters["sinks"] == {"first": True, "always": [stop], "once": []}
    assert store.facts["means_without"] == "the first token of a row, '.' everywhere"
    place = 0
    for i, record in enumerate(corpus):
        ids, _, end = plain.chat_ids(model.tokenizer, record)
        values = plain.site_values(family, model, record)
        kept = [k for k in range(1, end) if ids[k] != stop]
        for site in SITES:
            expected = {
                "mean:text": values[site][kept].mean(0),
                "first:4:text": values[site][kept[:4]].mean(0),
                "mean:text+sinks": values[site].mean(0),
                "last": values[site][-1],
            }
            for name, row in expected.items():
                torch.testing.assert_close(store.to_torch(site, name)[i], row, rtol=1e-4, atol=1e-3)
            every = store.to_torch(site, "all")[place : place + end]
            torch.testing.assert_close(every, values[site], rtol=1e-4, atol=1e-3)
        rows = store.select(position="mean:text")
        assert (rows.column("token")[i], rows.column("tokens")[i]) == (1, len(kept))
        place += end
    assert stop in plain.chat_ids(model.tokenizer, corpus.records[0])[0]  # the case occurs


def test_prompts_too_and_replies_but_for_sinks_inside() -> None:
    model, corpus = planted("llama", "."), plain.replies()
    (stop,) = model.tokenizer(".", add_special_tokens=False)["input_ids"]
    store = capture(model, corpus, sites=SITES, positions="mean:prompt,mean:reply")
    for i, record in enumerate(corpus):
        ids, start, end = plain.chat_ids(model.tokenizer, record)
        values = plain.site_values("llama", model, record)
        for site in SITES:
            for name, span in (("mean:prompt", (0, start)), ("mean:reply", (start, end))):
                expected = mean(values[site], ids, span, {stop})
                found = store.to_torch(site, name)[i]
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_a_store_without_means_does_not_ask(tiny_model: Any, monkeypatch: Any) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(type(model), "sinks", property(lambda _: pytest.fail("asked")))
    store = capture(model, plain.texts(), sites=SITES, positions="last,all,mean:text+sinks")
    assert "sinks" not in store.provenance.parameters and "means_without" not in store.facts


def test_moments_and_circuits_average_what_a_store_averages() -> None:
    model = planted("llama", ".")
    emotions = ("anger", "happiness")
    said = (
        "I am so angry. It is over.",
        "What a lovely day. I feel happy.",
        "So angry.",
        "Happy. I",
    )
    corpus = Corpus(
        "said",
        "texts",
        tuple(
            Record(f"t{i}", (Message("text", text),), emotions[i % 2], None, f"g{i}", "", "fit")
            for i, text in enumerate(said)
        ),
    )
    position = DEFAULT_POSITIONS["texts"]
    store = capture(model, corpus, sites="z,mlp_post,resid_post")
    site = Site(1, "resid_post")
    summed = moments(model, corpus, sites=[site]).mean(site)
    torch.testing.assert_close(
        summed.float().squeeze(), store.to_torch(site).mean(0), rtol=1e-4, atol=1e-4
    )
    found = unit_means(model, corpus, emotions, max_tokens_per_batch=40)
    assert found.position == position
    neurons, heads = store_means(store, emotions, model.anatomy, grouped=False)
    torch.testing.assert_close(found.mean("neurons"), neurons, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mean("heads"), heads, rtol=1e-4, atol=1e-4)


def test_a_text_of_one_token_is_refused_by_name_before_anything_runs(
    tiny_model: Any, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    one = Record("short", (Message("text", "I"),), "anger", None, "g", "", "fit")
    corpus = Corpus("said", "texts", (*plain.texts().records, one))
    with pytest.raises(DataError, match="Record short has nothing but attention sinks"):
        capture(model, corpus, out=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(DataError, match="Record short has nothing but attention sinks"):
        unit_means(model, corpus, ("anger", "happiness"))
    store = capture(model, corpus, sites=SITES, positions="mean:text+sinks")
    assert all(bool(store.to_torch(site).isfinite().all()) for site in SITES)


def test_a_run_reads_anew_what_an_older_version_read(monkeypatch: Any) -> None:
    from affectlens.pipeline.fingerprints import versions

    before = versions()
    monkeypatch.setattr(sys.modules["affectlens.activations.capture"], "CAPTURE_VERSION", 2)
    assert versions() != before
