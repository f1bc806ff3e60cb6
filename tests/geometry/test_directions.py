from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.activations import ActivationStore, capture
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.core.emotions import EMOTIONS, NEUTRAL
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.places import Site
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.geometry import ESTIMATORS, Directions, bootstrap_cosine, directions, group_centred
from affectlens.geometry.logistic import fit_logistic
from tests.geometry.synthetic import SITES, planted


def _reference(
    rows: list[tuple[Any, str, np.ndarray]], emotions: tuple[str, ...] = EMOTIONS
) -> np.ndarray:
    """Group-centred displacements from (group key, emotion, activation), in plain numpy."""
    groups: defaultdict[Any, dict[str, np.ndarray]] = defaultdict(dict)
    for key, emotion, h in rows:
        if emotion in emotions:
            groups[key][emotion] = h.astype(np.float64)
    total = {e: 0.0 for e in emotions}
    for cell in groups.values():
        mean = sum(cell.values()) / len(emotions)
        for e in emotions:
            total[e] = total[e] + (cell[e] - mean) / len(groups)
    c = np.stack([total[e] for e in emotions])
    return c - c.mean(0)


def _rows(store: ActivationStore, site: Site, *, with_valence: bool = True) -> list[Any]:
    keys = zip(store.column("group"), store.column("valence"), strict=True)
    return [
        (key if with_valence else key[0], emotion, h)
        for key, emotion, h in zip(keys, store.column("emotion"), store.to_numpy(site), strict=True)
    ]


def _cosine(a: Any, b: Any) -> np.ndarray:
    a, b = np.asarray(a), np.asarray(b)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_group_centred_equals_the_formula() -> None:
    store, _ = planted()
    found = directions(store)
    assert found.emotions == EMOTIONS and found.sites == SITES
    for i, site in enumerate(SITES):
        expected = _reference(_rows(store, site))
        np.testing.assert_allclose(found.centroid()[i], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.norms[i], np.linalg.norm(expected, axis=1), rtol=1e-3)


def test_without_valence_in_the_key_the_result_is_another() -> None:
    """The three events of a scenario would overwrite each other; the content would not cancel."""
    store, planted_directions = planted()
    expected = _reference(_rows(store, SITES[0]))
    overwritten = _reference(_rows(store, SITES[0], with_valence=False))
    assert np.abs(_cosine(expected, overwritten)).max() < 0.9
    assert _cosine(directions(store).vectors[0], planted_directions[0]).min() > 0.9
    assert _cosine(directions(store).vectors[0], overwritten).max() < 0.9


def test_centred_directions_sum_to_zero() -> None:
    store, _ = planted(noise=5.0)
    for estimator in ("group_centred", "diff_rest"):
        total = directions(store, estimator=estimator).centroid().sum(1)
        assert float(total.abs().max()) < 1e-3
    off = directions(store, splits=0).cosine_matrix(SITES[0])[~torch.eye(6, dtype=torch.bool)]
    assert float(off.mean()) == pytest.approx(-1 / 5, abs=0.05)
    assert float(group_centred(torch.randn(4, 6, 9)).sum(0).abs().max()) < 1e-5


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e != "leace"])
def test_every_estimator_finds_what_was_planted(estimator: str) -> None:
    store, truth = planted(n_scenarios=20, noise=0.3, signal=2.0, content=1.0)
    found = directions(store, estimator=estimator)
    for i in range(len(SITES)):
        assert _cosine(found.vectors[i], truth[i]).min() > 0.9
        # The planted displacement is 2 long from the mean, and 6/5 as long from the others' mean.
        length = 2.4 if estimator == "diff_rest" else 2.0
        np.testing.assert_allclose(found.norms[i], length, rtol=0.15)
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(2, 6))
    assert float(found.split_half.min()) > 0.75


def test_diff_neutral_and_diff_rest_equal_their_formulas() -> None:
    store, _ = planted()
    rows = _rows(store, SITES[1])
    neutral = {key: h for key, emotion, h in rows if emotion == NEUTRAL}
    for e, emotion in enumerate(EMOTIONS):
        own = [h - neutral[key] for key, label, h in rows if label == emotion]
        found = directions(store, estimator="diff_neutral").centroid()[1, e]
        np.testing.assert_allclose(found, np.mean(own, axis=0), rtol=1e-3, atol=1e-4)
        of = [h for _, label, h in rows if label == emotion]
        rest = [h for _, label, h in rows if label in EMOTIONS and label != emotion]
        found = directions(store, estimator="diff_rest").centroid()[1, e]
        expected = np.mean(of, axis=0) - np.mean(rest, axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        # With complete groups the difference to the rest is the centred one, 6/5 as long.
        centred = directions(store).centroid()[1, e]
        np.testing.assert_allclose(found, centred * 6 / 5, rtol=1e-3, atol=1e-3)


def test_pca_equals_the_svd_of_the_pairs() -> None:
    store, _ = planted(noise=2.0)
    keys = sorted({key for key, _, _ in _rows(store, SITES[0])})
    grid = {(key, e): h for key, e, h in _rows(store, SITES[0])}
    found = directions(store, estimator="pca")
    for i, emotion in enumerate(EMOTIONS):
        rest = [np.mean([grid[k, e] for e in EMOTIONS if e != emotion], axis=0) for k in keys]
        pairs = np.stack([grid[k, emotion] for k in keys]) - np.stack(rest)
        axis = np.linalg.svd(np.concatenate([pairs, -pairs]), full_matrices=False)[2][0]
        axis = axis * np.sign((pairs @ axis).mean())
        assert _cosine(found.vectors[0, i], axis) == pytest.approx(1, abs=1e-3)


def test_lda_equals_its_formula() -> None:
    from sklearn.covariance import ledoit_wolf

    store, _ = planted(noise=2.0)
    rows = [row for row in _rows(store, SITES[0]) if row[1] in EMOTIONS]
    mean = {k: np.mean([h for key, _, h in rows if key == k], axis=0) for k, _, _ in rows}
    x = np.stack([h - mean[key] for key, _, h in rows]).astype(np.float64)
    y = np.array([EMOTIONS.index(e) for _, e, _ in rows])
    classes = np.stack([x[y == i].mean(0) for i in range(6)])
    scale = (x - classes[y]).std(0)
    covariance, _ = ledoit_wolf((x - classes[y]) / scale, assume_centered=True)
    axes = np.linalg.solve(covariance, (classes / scale).T).T / scale
    found = directions(store, estimator="lda")
    assert _cosine(found.vectors[0], axes).min() > 0.9999
    unit = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    np.testing.assert_allclose(found.norms[0], (unit * classes).sum(1), rtol=1e-3)


def test_shrinkage_equals_sklearn() -> None:
    import importlib

    from sklearn.covariance import ledoit_wolf

    shrunk = importlib.import_module("affectlens.geometry.estimators.lda").shrunk_covariance
    torch.manual_seed(0)
    x = torch.randn(40, 25) @ torch.randn(25, 25)
    expected, amount = ledoit_wolf(x.numpy(), assume_centered=True)
    assert 0.05 < amount < 0.95
    found = shrunk(x, torch.ones(40))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    twice = shrunk(torch.cat([x, x]), torch.cat([torch.ones(20), torch.zeros(20)]).repeat(2) * 1.0)
    np.testing.assert_allclose(
        twice, shrunk(x[:20].repeat(2, 1), torch.ones(40)), rtol=1e-3, atol=1e-3
    )


def test_probe_is_the_logistic_weight() -> None:
    store, _ = planted(n_scenarios=6)
    kept = store.select(emotion=EMOTIONS)
    y = torch.tensor([EMOTIONS.index(e) for e in kept.column("emotion")])
    fit = fit_logistic(kept.to_torch(SITES[0])[None], y, (0.01,), n_classes=6)
    found = directions(store, estimator="probe").vectors[0]
    assert _cosine(found, fit.weights[0, 0, 0]).min() > 0.9999


def test_split_half_is_the_cosine_of_halves() -> None:
    store, _ = planted(n_scenarios=4, noise=3.0)
    found = directions(store, splits=400)
    rng = np.random.default_rng(0)
    rows = _rows(store, SITES[0])
    keys = sorted({key for key, _, _ in rows})
    cosines = []
    for _ in range(200):
        order = rng.permutation(len(keys))
        halves = [{keys[i] for i in part} for part in (order[:6], order[6:])]
        a, b = (_reference([r for r in rows if r[0] in half]) for half in halves)
        cosines.append(_cosine(a, b))
    np.testing.assert_allclose(found.split_half[0], np.mean(cosines, axis=0), atol=0.05)
    again = directions(store, splits=400)
    assert torch.equal(found.split_half, again.split_half)
    assert not torch.equal(found.split_half, directions(store, splits=400, seed=1).split_half)


def test_bootstrap_is_close_to_one_only_with_signal() -> None:
    strong, _ = planted(signal=3.0)
    weak, _ = planted(signal=0.0)
    sure, unsure = bootstrap_cosine(strong, draws=30), bootstrap_cosine(weak, draws=30)
    assert sure.shape == (30, 2, 6)
    assert float(sure.mean()) > 0.98
    assert float(unsure.mean()) < 0.85
    assert float(sure.std(0).min()) > 0


def test_cleaning_removes_what_varies_in_neutral_text() -> None:
    store, _ = planted(n_scenarios=20, content=0.5)
    nuisance = torch.zeros(24)
    nuisance[0] = 1.0
    neutral = torch.tensor([e == NEUTRAL for e in store.column("emotion")])
    anger = torch.tensor([e == "anger" for e in store.column("emotion")])
    x = store.to_torch(SITES[0])
    x[neutral] += 8 * torch.randn(int(neutral.sum()), 1) * nuisance
    x[anger] += 4 * nuisance
    labels = {n: store.column(n) for n in ("emotion", "valence", "group", "split")}
    confounded = ActivationStore.of({SITES[0]: x}, labels, position="last")
    raw, clean = directions(confounded), directions(confounded, clean=True)
    assert abs(float(raw.vector("anger", SITES[0]) @ nuisance)) > 0.9
    assert abs(float(clean.vector("anger", SITES[0]) @ nuisance)) < 0.15
    other = confounded.select(emotion=NEUTRAL)
    from_other = directions(confounded, clean=other)
    torch.testing.assert_close(from_other.vectors, clean.vectors)
    assert from_other.provenance.inputs["neutral"] == other.fingerprint
    with pytest.raises(DataError, match="needs neutral rows"):
        directions(confounded.select(emotion=EMOTIONS), clean=True)


def test_incomplete_groups_are_refused_by_name_and_number() -> None:
    store, _ = planted(n_scenarios=4)
    triples = zip(
        store.column("group"), store.column("valence"), store.column("emotion"), strict=True
    )
    gone = {("s01", "positive", "fear"), ("s02", "negative", "anger"), ("s02", "negative", "fear")}
    partial = store.select([t not in gone for t in triples])
    with pytest.raises(DataError, match=r"2 of 12 groups lack .*s02:negative lacks anger, fear"):
        directions(partial)
    assert directions(partial, emotions=("disgust", "sadness")).vectors.shape == (2, 2, 24)
    assert directions(partial, estimator="diff_rest").vectors.shape == (2, 6, 24)
    with pytest.raises(DataError, match="needs the neutral tone"):
        directions(planted(with_neutral=False)[0], estimator="diff_neutral")
    with pytest.raises(DataError, match="no rows for fear"):
        directions(store.select(emotion=("anger", "disgust")), emotions=("anger", "fear"))


def test_a_repeated_emotion_is_refused() -> None:
    x = {SITES[0]: torch.randn(4, 3)}
    labels = {"emotion": ["anger", "fear", "anger", "fear"], "group": ["a"] * 4}
    with pytest.raises(DataError, match="Group a has anger more than once"):
        directions(ActivationStore.of(x, labels), emotions=("anger", "fear"))


def test_wrong_requests() -> None:
    store, _ = planted(n_scenarios=2)
    with pytest.raises(UnknownNameError, match="group_centred"):
        directions(store, estimator="group_centered")
    with pytest.raises(UnknownNameError, match="position"):
        directions(store, position="mean:reply")
    with pytest.raises(DataError, match="two different emotions"):
        directions(store, emotions=("anger",))
    one = store.select(group="s00", valence="positive")
    with pytest.raises(DataError, match="two groups"):
        directions(one)
    same = {SITES[0]: torch.ones(3, 2, 4)}
    with pytest.raises(DataError, match="is the same under anger"):
        directions(same, emotions=("anger", "fear"))
    mixed = {SITES[0]: torch.randn(3, 2, 4), Site(0, "mlp_post"): torch.randn(3, 2, 9)}
    with pytest.raises(DataError, match="different width"):
        directions(mixed, emotions=("anger", "fear"))
    assert directions(mixed, emotions=("anger", "fear"), sites="mlp_post").vectors.shape[-1] == 9
    with pytest.raises(UnknownNameError, match="emotion"):
        directions(store).vector("awe", SITES[0])


def test_tensors_of_complete_groups_do_as_well() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 6, 5)
    found = directions({SITES[0]: x})
    torch.testing.assert_close(found.centroid()[0], group_centred(x), rtol=1e-4, atol=1e-5)
    assert found.vector("fear", SITES[0].hook_name).shape == (5,)
    assert found.norm("fear", SITES[0]) == pytest.approx(
        float(group_centred(x)[2].norm()), rel=1e-4
    )


def test_test_rows_are_warned_of_and_recorded(caplog: pytest.LogCaptureFixture) -> None:
    store, _ = planted()
    with caplog.at_level(logging.WARNING):
        found = directions(store.select(split="fit"))
        assert not caplog.records
        everything = directions(store)
        assert "test rows" in caplog.text
    assert set(found.provenance.parameters["rows"]) == {"fit"}
    assert set(everything.provenance.parameters["rows"]) == {"fit", "test"}
    assert found.provenance.fingerprint != everything.provenance.fingerprint


def test_save_and_load(tmp_path: Path) -> None:
    store, _ = planted()
    found = directions(store, estimator="diff_neutral")
    found.save(tmp_path / "d.safetensors")
    loaded = Directions.load(tmp_path / "d.safetensors")
    assert (loaded.emotions, loaded.sites, loaded.estimator) == (EMOTIONS, SITES, "diff_neutral")
    assert loaded.provenance == found.provenance
    for name in ("vectors", "norms", "split_half"):
        assert torch.equal(getattr(loaded, name), getattr(found, name))
    file = read_tensors(tmp_path / "d.safetensors")
    write_tensors(
        tmp_path / "bad.safetensors",
        {**file.tensors, "norms": file.tensors["norms"][:1]},
        file.provenance,
        file.extra,
    )
    with pytest.raises(ArtefactError, match="do not fit"):
        Directions.load(tmp_path / "bad.safetensors")
    write_tensors(tmp_path / "none.safetensors", {}, file.provenance, file.extra)
    with pytest.raises(ArtefactError, match="lacks 'vectors'"):
        Directions.load(tmp_path / "none.safetensors")
    from affectlens.probes import Sweep

    with pytest.raises(MismatchError, match="holds a directions, not a sweep"):
        Sweep.load(tmp_path / "d.safetensors")


def _asked(n: int) -> Corpus:
    """Scenarios under system prompts; the group is the scenario alone."""
    endings = {"positive": "I won.", "negative": "I lost it all that day.", "neutral": "It was so."}
    records = [
        Record(
            f"{scenario}-{valence}-{emotion}",
            (
                Message("system", f"You feel {emotion}."),
                Message("user", f"{'The dark way home. ' * scenario}{ending}"),
            ),
            emotion,
            valence,
            f"s{scenario}",
            "work",
            "fit",
        )
        for scenario in range(n)
        for valence, ending in endings.items()
        for emotion in EMOTIONS
    ]
    return Corpus("asked", "elicited", tuple(records))


def test_from_texts_to_directions_one_text_at_a_time(tiny_model: Any) -> None:
    """Plain transformers, one text per pass, no batch, no hooks, against capture + directions."""
    model, corpus = tiny_model("llama"), _asked(3)
    found = directions(capture(model, corpus), splits=0)
    rows: list[tuple[Any, str, np.ndarray]] = []
    for record in corpus:
        text = model.tokenizer.apply_chat_template(
            [dict(turn) for turn in record.chat], tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            states = model.hf(ids, output_hidden_states=True).hidden_states
        rows.append(((record.group, record.valence), record.emotion, states[2][0, -1].numpy()))
    expected = _reference(rows)
    i = found.site_index(Site(1, "resid_post"))
    difference = np.linalg.norm(found.centroid()[i].numpy() - expected, axis=1)
    assert (difference <= 1e-3 * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.model
def test_real_directions_one_text_at_a_time(real_model: Any) -> None:
    """The same on the default model in float32, teacher-forced replies, mean over the reply."""
    from affectlens.datasets import load
    from affectlens.models.loading import load_model

    model = load_model("smollm2-135m-instruct", dtype="float32")
    assert model.fingerprint == real_model.fingerprint
    corpus = load("replies").filter(role="direction", theme="work", emotion=EMOTIONS)
    chosen = corpus.groups()[:2]
    corpus = Corpus("few", "replies", tuple(r for r in corpus if r.group in chosen))
    found = directions(capture(model, corpus), splits=0)
    rows: dict[int, list[tuple[Any, str, np.ndarray]]] = {3: [], 15: [], 28: []}
    for record in corpus:
        chat = [dict(turn) for turn in record.chat]
        text = model.tokenizer.apply_chat_template(chat, tokenize=False)
        before = text[: text.rindex(record.text)]
        start, end = (len(model.tokenizer(t)["input_ids"]) for t in (before, before + record.text))
        with torch.no_grad():
            out = model.hf(
                torch.tensor([model.tokenizer(text)["input_ids"]]), output_hidden_states=True
            )
        for layer, kept in rows.items():
            h = out.hidden_states[layer + 1][0, start:end].mean(0).numpy()
            kept.append(((record.group, record.valence), record.emotion, h))
    for layer, kept in rows.items():
        expected = _reference(kept)
        i = found.site_index(Site(layer, "resid_post"))
        difference = np.linalg.norm(found.centroid()[i].numpy() - expected, axis=1)
        assert (difference <= 1e-3 * np.linalg.norm(expected, axis=1)).all()


def test_leace_equals_its_formula() -> None:
    """Of each emotion the oblique projection that the rows of the others demand, in numpy."""
    store, _ = planted(noise=2.0)
    rows = [row for row in _rows(store, SITES[0]) if row[1] in EMOTIONS]
    mean = {k: np.mean([h for key, _, h in rows if key == k], axis=0) for k, _, _ in rows}
    x = np.stack([h - mean[key] for key, _, h in rows]).astype(np.float64)
    y = np.array([EMOTIONS.index(e) for _, e, _ in rows])
    found = directions(store, estimator="leace").centroid()[0]
    plain = directions(store).centroid()[0].double().numpy()
    for e in range(len(EMOTIONS)):
        others, label = x[y != e], y[y != e]
        centred = others - others.mean(0)
        z = np.eye(len(EMOTIONS))[label]
        cross = centred.T @ (z - z.mean(0)) / len(centred)
        size, axes = np.linalg.eigh(centred.T @ centred / len(centred))
        white = axes / np.sqrt(size) @ axes.T
        inside = np.linalg.svd(white @ cross, full_matrices=False)[0][:, : len(EMOTIONS) - 2]
        erased = np.linalg.inv(white) @ inside @ inside.T @ white
        np.testing.assert_allclose(found[e], plain[e] - erased @ plain[e], rtol=1e-3, atol=1e-3)
        # Along it the other emotions have one mean, which they have not along the plain direction.
        means = np.stack([others[label == k].mean(0) for k in np.unique(label)])
        kept = means @ (np.eye(len(erased)) - erased).T
        assert np.ptp(kept, axis=0).max() < 1e-6 < np.ptp(means, axis=0).max()
