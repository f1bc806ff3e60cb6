from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.activations import ActivationStore, capture
from affectlens.core.errors import ArtefactError, DataError, UnknownNameError
from affectlens.core.sites import KINDS, Site, expand_sites
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.models.loading import load_model
from tests.activations import plain
from tests.conftest import FAMILIES

POSITIONS = (
    "last",
    "last:reply",
    "mean:reply",
    "mean:prompt",
    "all",
    "all:reply",
    "from:2",
    "first:3:reply",
    "first:99:reply",
)


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def _expected(position: str, values: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """Rows of one text ``[pos, width]`` whose reply is ``[start, end)``."""
    reply = values[start:end]
    match position:
        case "last":
            return values[-1:]
        case "last:reply":
            return values[end - 1 : end]
        case "mean:reply" | "first:99:reply":
            return reply.mean(0, keepdim=True)
        case "mean:prompt":
            return values[:start].mean(0, keepdim=True)
        case "all":
            return values
        case "all:reply":
            return reply
        case "from:2":
            return reply[2:].mean(0, keepdim=True)
        case _:
            return reply[:3].mean(0, keepdim=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_one_text_at_a_time(family: str, tiny_model: Any) -> None:
    model, corpus = tiny_model(family), plain.replies()
    kinds = [k for k in KINDS if k != "resid_mid" or family != "gpt_neox"]
    store = capture(model, corpus, sites=kinds, positions=POSITIONS, max_tokens_per_batch=200)
    assert store.sites == expand_sites(kinds, model.n_layers)
    references = [plain.site_values(family, model, record) for record in corpus]
    spans = [plain.chat_ids(model.tokenizer, record)[1:] for record in corpus]
    for site in store.sites:
        for position in POSITIONS:
            expected = [
                _expected(position, values[site], *span)
                for values, span in zip(references, spans, strict=True)
            ]
            _close(store.to_torch(site, position), torch.cat(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_side_batching_and_order_change_nothing(family: str, tiny_model: Any) -> None:
    model, corpus = tiny_model(family), plain.replies()
    positions = ("last", "mean:reply", "all")
    stores = [
        capture(model, corpus, positions=positions, padding=padding, max_tokens_per_batch=budget)
        for padding, budget in (("right", 1), ("right", 10_000), ("left", 10_000), ("left", 170))
    ]
    alone = stores[0]
    for store in stores[1:]:
        assert store.rows.equals(alone.rows)
        for site in store.sites:
            for position in positions:
                _close(store.to_torch(site, position), alone.to_torch(site, position))
    # The texts do differ in length, and the rows are in corpus order, not in order of length.
    lengths = alone.select(position="all").column("id")
    assert [lengths.count(r.id) for r in corpus] != sorted(lengths.count(r.id) for r in corpus)
    assert alone.column("id", "last") == [r.id for r in corpus]


@pytest.mark.parametrize(
    ("corpus", "position"),
    [(plain.elicited(), "last"), (plain.texts(), "mean:text"), (plain.replies(), "mean:reply")],
)
def test_each_design_has_its_position(corpus: Corpus, position: str, tiny_model: Any) -> None:
    model = tiny_model("llama")
    store = capture(model, corpus, sites="resid_post@1")
    assert store.positions == (position,)
    site = Site(1, "resid_post")
    for i, record in enumerate(corpus):
        _, start, end = plain.chat_ids(model.tokenizer, record)
        values = plain.site_values("llama", model, record)[site]
        expected = values[-1] if position == "last" else values[start:end].mean(0)
        _close(store.to_torch(site)[i], expected)


def test_table_names_every_row(tiny_model: Any) -> None:
    model, corpus = tiny_model("llama"), plain.replies()
    store = capture(model, corpus, sites="resid_post@0", positions="mean:reply,all")
    pooled, every = store.select(position="mean:reply"), store.select(position="all")
    for name in ("id", "emotion", "valence", "group", "theme", "split", "role", "scenario"):
        assert pooled.column(name) == [getattr(record, name) for record in corpus]
    spans = [plain.chat_ids(model.tokenizer, r) for r in corpus]
    assert pooled.column("token") == [start for _, start, _ in spans]
    assert pooled.column("tokens") == [end - start for _, start, end in spans]
    assert every.column("token") == [i for ids, _, _ in spans for i in range(len(ids))]
    assert set(every.column("tokens")) == {1}


def test_the_pass_ends_after_the_deepest_site_and_makes_no_logits(tiny_model: Any) -> None:
    model = tiny_model("llama")
    ran: list[str] = []
    parts = {f"block {i}": part.block for i, part in enumerate(model.anatomy.blocks)}
    handles = [
        module.register_forward_hook(lambda *_, n=name: ran.append(n))
        for name, module in {**parts, "logits": model.hf.get_output_embeddings()}.items()
    ]
    capture(model, plain.replies(), sites="resid_post@0,resid_pre@1")
    for handle in handles:
        handle.remove()
    assert set(ran) == {"block 0"}


def _hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def _poisoned(tiny_model: Any, value: float) -> tuple[Any, Corpus]:
    """A model in which one token, which only record r2 has, gives ``value``."""
    corpus, clean = plain.replies(), tiny_model("llama")
    model = load_model(copy.deepcopy(clean.hf), tokenizer=clean.tokenizer)
    rows = [set(plain.chat_ids(model.tokenizer, record)[0]) for record in corpus]
    only = min(rows[2].difference(*rows[:2], *rows[3:]))
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[only] = value
    return model, corpus


@pytest.mark.parametrize("padding", ["left", "right"])
def test_nan_is_refused_by_site_and_record(padding: str, tiny_model: Any, tmp_path: Path) -> None:
    model, corpus = _poisoned(tiny_model, float("nan"))
    before = _hooks(model)
    with pytest.raises(DataError, match=r"blocks\.0\.hook_resid_pre of record r2 holds NaN"):
        capture(
            model,
            corpus,
            sites="resid_pre@0",
            positions="all",
            out=tmp_path / "acts",
            padding=padding,
        )
    assert not list(tmp_path.iterdir())
    assert _hooks(model) == before


def test_what_float16_cannot_hold_is_refused(tiny_model: Any) -> None:
    model, corpus = _poisoned(tiny_model, 1e6)
    with pytest.raises(DataError, match="record r2 does not fit float16"):
        capture(model, corpus, sites="resid_pre@0", positions="all", dtype="float16")


def test_a_store_on_disk_holds_what_one_in_memory_holds(tiny_model: Any, tmp_path: Path) -> None:
    model, corpus, out = tiny_model("gpt2"), plain.replies(), tmp_path / "deep" / "acts"
    options: dict[str, Any] = {"sites": ["resid_post", "mlp_post@1"], "positions": "last,all"}
    memory = capture(model, corpus, **options)
    disk = capture(model, corpus, out=out, **options)
    assert disk.path == out and memory.path is None
    assert [p.name for p in out.parent.iterdir()] == ["acts"]
    assert disk.rows.equals(memory.rows)
    assert disk.fingerprint == memory.fingerprint
    for site in disk.sites:
        for position in disk.positions:
            torch.testing.assert_close(
                disk.to_torch(site, position), memory.to_torch(site, position), rtol=0, atol=0
            )
    disk.verify()
    # A second capture replaces the store; something else in that place is left alone.
    again = capture(model, corpus, out=out, **{**options, "positions": "last"})
    assert again.positions == ActivationStore.open(out).positions == ("last",)
    assert [p.name for p in out.parent.iterdir()] == ["acts"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes(dtype: str, tiny_model: Any, tmp_path: Path) -> None:
    model, corpus = tiny_model("llama"), plain.replies()
    exact = capture(model, corpus, sites="resid_post@2")
    store = capture(model, corpus, sites="resid_post@2", dtype=dtype, out=tmp_path / "acts")
    site = Site(2, "resid_post")
    assert store.tensor(site).dtype == getattr(torch, dtype)
    expected = exact.to_torch(site).to(getattr(torch, dtype)).float()
    assert torch.equal(store.to_torch(site), expected)
    assert torch.equal(torch.tensor(store.array(site)).float(), expected)
    assert store.provenance.parameters["dtype"] == dtype


def test_provenance_tells_runs_apart(tiny_model: Any) -> None:
    model, corpus = tiny_model("llama"), plain.replies()
    first = capture(model, corpus)
    assert first.provenance.model == model.fingerprint
    assert first.provenance.corpus == corpus.fingerprint
    assert capture(model, corpus, max_tokens_per_batch=99).fingerprint == first.fingerprint
    others = (
        capture(model, corpus, positions="last"),
        capture(model, corpus, sites="resid_pre"),
        capture(model, corpus.filter(split="fit")),
        capture(tiny_model("llama", seed=1), corpus),
        first.select(split="fit"),
    )
    assert len({first.fingerprint, *(store.fingerprint for store in others)}) == 6


def _with_long_record() -> Corpus:
    long = Record(
        "long",
        (Message("user", "Hello"), Message("assistant", "I am happy about it today. " * 60)),
        "happiness", "neutral", "s9:neutral", "home", "fit",
    )  # fmt: skip
    corpus = plain.replies()
    return replace(corpus, records=(corpus.records[0], long, corpus.records[1]))


def test_texts_beyond_the_context(tiny_model: Any) -> None:
    model, corpus = tiny_model("llama"), _with_long_record()
    with pytest.raises(DataError, match=r"Record long has .* tokens, the context of"):
        capture(model, corpus)
    skipped = capture(model, corpus, overlong="skip")
    assert skipped.column("id") == ["r0", "r1"] and skipped.facts["skipped"] == 1
    cut = capture(model, corpus, sites="resid_post@0", positions="all", overlong="truncate")
    assert cut.facts["truncated"] == 1 and cut.facts["skipped"] == 0
    assert cut.column("id").count("long") == model.context_length
    with pytest.raises(UnknownNameError, match="policy"):
        capture(model, corpus, overlong="ignore")
    with pytest.raises(DataError, match="Nothing to read"):
        capture(model, replace(corpus, records=corpus.records[1:2]), overlong="skip")


def test_wrong_requests_are_one_sentence(tiny_model: Any, tmp_path: Path) -> None:
    model, corpus = tiny_model("llama"), plain.replies()
    with pytest.raises(DataError, match="Record e0 has no reply"):
        capture(model, plain.elicited(), positions="mean:reply")
    with pytest.raises(DataError, match=r"Record r2 has only .* 'from:5' skips 5"):
        capture(model, corpus, positions="from:5")
    for bad in ("mean", "mean:answer", "first:0:reply", "from:x", "lst", ""):
        with pytest.raises(UnknownNameError):
            capture(model, corpus, positions=bad)
    with pytest.raises(UnknownNameError, match="dtype"):
        capture(model, corpus, dtype="float8")
    with pytest.raises(UnknownNameError, match="layer"):
        capture(model, corpus, sites="resid_post@3")
    with pytest.raises(UnknownNameError, match="resid_mid"):
        capture(tiny_model("gpt_neox"), corpus, sites="resid_mid")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="is no activation store"):
        capture(model, corpus, out=tmp_path / "file")
    with pytest.raises(ArtefactError, match="Could not write"):
        capture(model, corpus, out=tmp_path / "file" / "acts")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.model
def test_real_model_one_text_at_a_time(real_model: Any) -> None:
    """Against output_hidden_states of transformers, one text per pass, in the model's own dtype."""
    from affectlens.datasets import load

    corpus = load("replies")
    corpus = replace(corpus, records=corpus.records[:4])
    store = capture(real_model, corpus, sites="resid_post,resid_pre@0", positions="last,mean:reply")
    tokenizer, hf = real_model.tokenizer, real_model.hf
    for i, record in enumerate(corpus):
        chat = [dict(turn) for turn in record.chat]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prefix = text[: text.rindex(record.text)]
        start = len(tokenizer(prefix, add_special_tokens=False)["input_ids"])
        end = start + len(tokenizer(record.text, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            states = hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in (0, 7, 15, 28):
            site, values = Site(layer, "resid_post"), states[layer + 1][0].float()
            rows = {"last": values[-1], "mean:reply": values[start:end].mean(0)}
            for position, expected in rows.items():
                found = store.to_torch(site, position)[i]
                assert float((found - expected).norm() / expected.norm()) < 0.02
