"""System prompts: planted shifts are found, equal prompts move alike, readings are the model's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from affectlens.core.errors import AffectLensError, DataError
from affectlens.core.places import Site
from affectlens.datasets import load
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.reports.numbers import from_dict, to_dict
from affectlens.reports.page import render
from affectlens.sweeps.corpora import load_texts
from affectlens.sweeps.kept import KeptRows
from affectlens.sweeps.reading import Reader
from affectlens.sweeps.request import Fitting
from affectlens.sweeps.studies import answered, malleability, studied
from affectlens.sweeps.studies.answers import behind
from affectlens.sweeps.studies.rulers import Ruler, fit_rulers, shuffled_labels
from affectlens.sweeps.studies.system_prompts import (
    AGREES,
    ALONE,
    CHANGED,
    DISTANCE,
    FOLLOWS,
    NONE,
    REPLY,
    UNRELATED,
    USER,
    Seen,
    agreement_rows,
    moved_rows,
)
from affectlens.sweeps.studies.writing import report_data
from tests.geometry.synthetic import SITES, planted
from tests.sweeps.conftest import rows, save_rows
from tests.sweeps.studies.conftest import ANSWERS, asked, hidden

FITTING = Fitting(draws=2000)


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    """Probes of a store in which labels lie along known directions."""
    from affectlens.probes import fit_probe, sweep

    store = planted(n_scenarios=24, content=0.3, noise=0.25, signal=1.0)[0]
    wrong = shuffled_labels(store, SITES[0], store.positions[0], 0)
    swept = sweep(store, sites=SITES[:1], penalties=(0.01,), draws=10)
    assert swept.held is not None
    fits = [fit_probe(one, SITES[0], penalties=(0.01,)) for one in (store, wrong)]
    return Ruler(fits[0], fits[1], swept.held, 0, swept.majority)


def seen(ruler: Ruler, push: float, seed: int = 0) -> Seen:
    """Forty texts of a known label; a prompt pushes replies along the first label's direction."""
    generator = torch.Generator().manual_seed(seed)
    store = planted(n_scenarios=24, content=0.3, noise=0.25, signal=1.0, seed=seed)[0]
    x = store.to_torch(SITES[0])[:140]
    labels = [str(label) for label in store.column("emotion")[:140]]
    axis = torch.from_numpy(ruler.directions()[:, 0]).float()
    noise = 0.02 * torch.randn(3, *x.shape, generator=generator)
    at: dict[tuple[str, str], torch.Tensor] = {}
    for name in (NONE, "pushed", UNRELATED):
        moved = push * axis / axis.norm() if name == "pushed" else 0.0
        at[name, USER] = x + noise[0]
        at[name, REPLY] = x + noise[1 if name == NONE else 2] + moved
        at[name, ALONE] = x + noise[1 if name == NONE else 2]
    ids = tuple(map(str, range(len(x))))
    return Seen(ids, tuple(f"g{i // 7}" for i in range(len(x))), tuple(labels), ruler, at, {})


def test_a_planted_push_is_found_where_it_is_and_beside_its_controls(ruler: Ruler) -> None:
    found = moved_rows(seen(ruler, 3.0), "pushed", FITTING)
    first = ruler.classes[0]

    def one(series: str, x: str, measure: str) -> dict[str, Any]:
        (row,) = [r for r in found if (r["series"], r["x"], r["measure"]) == (series, x, measure)]
        return row

    change = one(REPLY, first, "change of probability")
    assert change["low"] > 0.05 and change["p"] < 0.05
    for still in (USER, ALONE):
        row = one(still, first, "change of probability")
        assert row["low"] <= 0.005 and abs(row["value"]) < 0.02
    far = one(REPLY, DISTANCE, "total variation")
    assert far["value"] > 3 * far["beside"] and far["p"] <= 0.01
    assert one(ALONE, DISTANCE, "total variation")["p"] > 0.01
    along = one(REPLY, first, "shift along the direction, SD")
    assert along["value"] > 3 * along["beside"] and along["p"] < 0.01
    shuffled = one(f"{REPLY}, probe of shuffled labels", DISTANCE, "total variation")
    assert shuffled["value"] < far["value"] / 2
    assert one(USER, CHANGED, "share of texts read otherwise")["value"] == 0
    changed = one(REPLY, CHANGED, "share of texts read otherwise")
    assert changed["value"] > 0.5 > changed["beside"] and changed["p"] < 0.01


def test_agreement_is_of_labels_and_a_probe_of_shuffled_ones_has_none(ruler: Ruler) -> None:
    found = agreement_rows(seen(ruler, 0.0), NONE, FITTING)
    by = {r["series"]: r for r in found if r["x"] == AGREES}
    assert by[REPLY]["value"] > 0.7 and by[REPLY]["p"] < 0.01
    assert by[REPLY]["beside"] == pytest.approx(1 / 7, abs=0.02)
    assert by[f"{REPLY}, probe of shuffled labels"]["value"] < 0.35
    (follows,) = [r for r in found if (r["series"], r["x"]) == (REPLY, FOLLOWS)]
    assert follows["value"] > 0.9 and follows["p"] < 0.01 and follows["beside"] < 0.3
    of_reply = {r["x"]: r["value"] for r in found if r["series"] == REPLY}
    recalls = [value for name, value in of_reply.items() if name.startswith("recall:")]
    assert np.mean(recalls) == pytest.approx(of_reply["balanced_accuracy"])


def test_shuffled_labels_stay_in_their_groups_or_else_in_their_split() -> None:
    store = planted(n_scenarios=6, content=0.3, noise=0.25, signal=1.0)[0]
    wrong = shuffled_labels(store, SITES[0], store.positions[0], 0)
    before, after = ([s.column(n) for n in ("group", "emotion")] for s in (store, wrong))
    assert before[0] == after[0] and before[1] != after[1]
    for group in set(before[0]):
        mine = [i for i, g in enumerate(before[0]) if g == group]
        assert sorted(before[1][i] for i in mine) == sorted(after[1][i] for i in mine)


@pytest.fixture(scope="module")
def whole(files: dict[str, str], known: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("malleability") / "out"
    request = asked(files, known, out)
    return request, studied(lambda: malleability(request), out)


def test_equal_prompts_move_alike_and_all_lies_in_the_folder(whole: Any) -> None:
    request, found = whole
    for row in found.where(panel="glad"):
        (twin,) = found.where(panel="same", **{k: row[k] for k in ("series", "x", "measure")})
        assert twin["value"] == pytest.approx(row["value"], nan_ok=True)
    said = json.loads((request.out / "malleability.json").read_text())
    table = pq.read_table(request.out / "malleability.parquet").to_pylist()
    assert len(said["rows"]) == len(table) == len(found.rows)
    replies = pq.read_table(request.out / "replies.parquet").to_pylist()
    assert len(replies) == 3 * found.facts["texts"] and {r["system"] for r in replies} == {
        NONE, "glad", "same",
    }  # fmt: skip
    page = (request.out / "report.html").read_text()
    assert "What a system prompt moves" in page and "You are glad." in page
    assert (request.out / "figures" / "malleability.html").is_file()
    data = report_data(found)
    assert render(from_dict(json.loads(json.dumps(to_dict(data))))) == render(data)


def test_replies_and_readings_are_those_of_the_plain_model(whole: Any, model: Any) -> None:
    """Against a forward pass of Transformers over the chat as its template writes it."""
    request, found = whole
    tokenizer, hf = model.tokenizer, model.hf
    probe_site = int(found.facts["site"].split(".")[1])
    assert probe_site == 1  # blocks.1.hook_resid_post
    row = found.tables["replies"][-1]
    turns = [("system", "You are glad."), ("user", row["user"])]
    chat = [{"role": role, "content": text} for role, text in turns]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    made = hf.generate(
        ids, max_new_tokens=6, do_sample=False, repetition_penalty=1.1, pad_token_id=0
    )
    again = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert again == row["reply_text"]
    record = Record("a", (Message("user", row["user"]),), "fear", None, "a", "", "test")
    texts = [
        Corpus("c", "replies", (behind(record, again, system),
                                behind(replace(record, id="b"), "Oh.", system)))
        for system in (None, "You are glad.")
    ]  # fmt: skip
    at_block_1: Any = SimpleNamespace(true=SimpleNamespace(site=Site(1, "resid_post")))
    read = Seen.of(model, at_block_1, {NONE: texts[0], "glad": texts[1]}).at
    chat.append({"role": "assistant", "content": again})
    for turns_, content, what in (
        (chat, row["user"], USER),
        (chat, again, REPLY),
        (chat[1:], again, ALONE),
    ):
        wanted = hidden(request.model, turns_)(content)
        assert torch.allclose(read["glad", what][0], wanted, atol=1e-4), what


def test_replies_are_generated_once(
    whole: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, _ = whole
    corpus = load(request.corpus.name, emotions=request.corpus.labels.split(","))
    corpus = replace(corpus, records=corpus.records[:3])
    kept = KeptRows(request.out)
    first = answered(model, corpus, "Be brief.", ANSWERS, kept)
    monkeypatch.setattr("affectlens.sweeps.studies.answers._generated", None)
    assert answered(model, corpus, "Be brief.", ANSWERS, kept) == first
    assert [m.role for m in first.records[0].messages] == ["system", "user", "assistant"]


def test_one_site_is_read(files: dict[str, str], known: Any, model: Any, tmp_path: Path) -> None:
    both = asked(files, known, tmp_path, site="resid_post@1-2")
    reader = Reader(both.sweep(known), files["model"])
    reader.__dict__["model"] = model
    (texts,) = load_texts(both.sweep(known))
    with pytest.raises(DataError, match="resid_post@1-2 names 2"):
        fit_rulers(reader, texts, both.site, both.fitting)


def test_bad_input_is_one_sentence_before_a_model(
    files: dict[str, str], known: Any, tmp_path: Path
) -> None:
    other = [{**r, "emotion": {"fear": "awe"}.get(r["emotion"], r["emotion"])} for r in rows()]
    path = save_rows(tmp_path / "awe.jsonl", other)
    awe = replace(known, name=path, labels="anger,awe,happiness")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"systems": {}}, "Name one system prompt or more"),
        ({"systems": {"none": "x"}}, "'none'"),
        ({"systems": {"blank": " "}}, "'blank' is empty"),
        ({"texts": 1}, "two texts"),
        ({"corpus": awe}, "has no awe of awe"),
        ({"ruler": asked(files, known, tmp_path).corpus}, "fitted on the texts that it reads"),
    ]
    for changes, sentence in cases:
        with pytest.raises(AffectLensError, match=sentence) as caught:
            malleability(
                asked({**files, "model": "no/such-model"}, known, tmp_path / "out", **changes)
            )
        assert "\n" not in str(caught.value)
