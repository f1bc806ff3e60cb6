"""Ridge maps to valence, arousal and dominance: against scikit-learn, and planted ratings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.activations import ActivationStore, capture
from affectlens.core import ArtefactError, DataError, MismatchError, Site, UnknownNameError
from affectlens.datasets import Corpus, Message, Record
from affectlens.probes import VadMap, vad_map
from affectlens.probes.estimators.ridge import fit_ridge
from affectlens.probes.vad_map import weighted_pearson

SITES = (Site(0, "resid_post"), Site(1, "resid_post"))


def rated(n: int = 120, noise: float = 0.1, d: int = 8) -> tuple[ActivationStore, Corpus]:
    """Ratings are linear in the second site; the first is noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, d, generator=generator)
    w = torch.randn(d, 3, generator=generator) / d**0.5
    ratings = 3 + 0.4 * x[1] @ w + noise * torch.randn(n, 3, generator=generator)
    splits = ["fit"] * (n // 2) + ["tune"] * (n // 4) + ["test"] * (n - n // 2 - n // 4)
    records = tuple(
        Record(
            f"r{i}", (Message("text", f"text {i}"),), None, None, f"g{i}", "all", splits[i],
            dict(zip(("valence", "arousal", "dominance"), ratings[i].tolist(), strict=True)),
        )
        for i in range(n)
    )  # fmt: skip
    corpus = Corpus("rated", "texts", records, {"scale": [1, 5]})
    order = torch.randperm(n, generator=generator).tolist()  # rows need not come in that order
    labels = {
        "id": [f"r{i}" for i in order],
        "group": [f"g{i}" for i in order],
        "split": [splits[i] for i in order],
    }
    return ActivationStore.of({s: x[k][order] for k, s in enumerate(SITES)}, labels), corpus


def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(30, 6, generator=generator, dtype=torch.float64) * torch.arange(1, 7) + 2
    y = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    c = [1 / (30 * penalty) for penalty in (0.01, 1.0)]
    made = fit_ridge(x[None], y, c, n_classes=2, weight=torch.ones(1, 30))
    weights, bias = made.weights[0, 0], made.bias[0, 0]
    for i, penalty in enumerate((0.01, 1.0)):
        reference: Any = make_pipeline(StandardScaler(), Ridge(alpha=30 * penalty))
        expected = reference.fit(x.numpy(), y.numpy()).predict(x.numpy())
        np.testing.assert_allclose(x @ weights[i].T + bias[i], expected, atol=1e-9)


def test_planted_ratings_are_read_where_they_lie() -> None:
    store, corpus = rated()
    found = vad_map(store, corpus)
    assert {found.best(name) for name in ("valence", "arousal", "dominance")} == {SITES[1]}
    assert bool((found.pearson[1] > 0.9).all()) and bool((found.pearson[0].abs() < 0.5).all())
    assert bool((found.r2[1] > 0.8).all())
    low, high = found.ci[1].T
    assert bool((low <= found.pearson[1]).all()) and bool((found.pearson[1] <= high).all())
    assert "resid_post" in found.table_rows()[0]["site"] and len(found.table_rows()) == 6


def test_what_is_told_is_on_rows_that_decided_nothing() -> None:
    store, corpus = rated(noise=0.5)
    found = vad_map(store, corpus, draws=500)
    meta = {r.id: r for r in corpus}
    ids = store.column("id")
    test = [i for i, id_ in enumerate(ids) if meta[id_].split == "test"]
    names = ("valence", "arousal", "dominance")
    true = np.array([[meta[ids[i]].meta[name] for name in names] for i in test])
    said = found.read_rows(store.to_torch(SITES[1])[test], SITES[1]).double().numpy() * 2 + 3
    for d in range(3):
        r = np.corrcoef(said[:, d], true[:, d])[0, 1]
        assert float(found.pearson[1, d]) == pytest.approx(r, abs=1e-5)
        r2 = 1 - ((true - said)[:, d] ** 2).sum() / ((true[:, d] - true[:, d].mean()) ** 2).sum()
        assert float(found.r2[1, d]) == pytest.approx(r2, abs=1e-4)


def test_weighted_correlation_is_that_of_repeated_rows() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    times = torch.randint(0, 4, (3, 9), generator=generator).double()
    for draw, told in zip(times, weighted_pearson(a, b, times), strict=True):
        rows = torch.arange(9).repeat_interleave(draw.long())
        assert float(told) == pytest.approx(np.corrcoef(a[rows], b[rows])[0, 1])
    assert bool(weighted_pearson(a, torch.ones(9, dtype=a.dtype), times).isnan().all())


def test_a_map_is_applied_to_texts(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    _, corpus = rated(24)
    short = replace(corpus.records[0], id="short", messages=(Message("text", "a"),))
    found = vad_map(model, replace(corpus, records=(*corpus, short)), draws=20)
    assert [site.layer for site in found.sites] == [0, 1, 2]
    found.save(tmp_path / "map.safetensors")
    again = VadMap.load(tmp_path / "map.safetensors")
    texts = [r.text for r in corpus][:5]
    store = capture(model, corpus, sites="resid_post")
    site = found.sites[1]
    expected = found.read_rows(store.to_torch(site)[:5], site)
    torch.testing.assert_close(again.read(model, texts, site=site), expected, atol=1e-4, rtol=1e-4)
    best = again.read(model, texts)
    for d, name in enumerate(("valence", "arousal", "dominance")):
        one = again.read(model, texts, site=again.best(name))
        torch.testing.assert_close(best[:, d], one[:, d])
    with pytest.raises(MismatchError):
        again.read(tiny_model("gpt2"), texts)
    with pytest.raises(UnknownNameError, match="layer"):
        again.read(model, texts, site="blocks.9.hook_resid_post")
    with pytest.raises(UnknownNameError, match="dimension"):
        again.best("joy")


def test_what_cannot_be_fitted(tmp_path: Path) -> None:
    store, corpus = rated(24)
    with pytest.raises(DataError, match="no record of corpus"):
        vad_map(store, corpus.filter(split="fit"))
    bare = Corpus("bare", "texts", (Record("r0", (Message("text", "a"),), None, None, "g", "all",
                  "fit"),))  # fmt: skip
    with pytest.raises(DataError, match="without ratings"):
        vad_map(store, bare)
    only = store.select(split=["fit", "test"])
    with pytest.raises(DataError, match="0 rows of the split tune"):
        vad_map(only, corpus)
    rows = {s: store.to_torch(s).clone() for s in SITES}
    rows[SITES[0]][3, 2] = float("nan")
    labels = {name: store.column(name) for name in ("id", "group", "split")}
    with pytest.raises(DataError, match="NaN or infinity"):
        vad_map(ActivationStore.of(rows, labels), corpus)
    with pytest.raises(ArtefactError):
        VadMap.load(tmp_path / "none.safetensors")
