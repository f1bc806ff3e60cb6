from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.activations import ActivationStore, CaptureSettings, capture
from affectlens.activations.capture import prepare
from affectlens.core.errors import (
    ArtefactError,
    DataError,
    MismatchError,
    ModelError,
    UnknownNameError,
)
from affectlens.core.places import KINDS, Site, expand_sites
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
            return values[1:start].mean(0, keepdim=True)  # without the first token of the row
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
        expected = values[-1] if position == "last" else values[max(start, 1) : end].mean(0)
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
    with pytest.raises(ArtefactError):
        ActivationStore.open(tmp_path / "acts")
    assert not list(tmp_path.rglob("*.safetensors"))
    assert _hooks(model) == before
    with pytest.raises(DataError, match=r"blocks\.0\.hook_resid_pre of record r2 holds NaN"):
        capture(model, corpus, sites="resid_pre@0", positions="all", padding=padding)


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_float16_cannot_hold_is_refused(
    on_disk: bool, tiny_model: Any, tmp_path: Path
) -> None:
    model, corpus = _poisoned(tiny_model, 1e6)
    options: dict[str, Any] = {"sites": "resid_pre@0", "positions": "all"}
    out = tmp_path / "acts" if on_disk else None
    with pytest.raises(DataError, match="record r2 does not fit float16"):
        capture(model, corpus, dtype="float16", out=out, **options)
    assert len(capture(model, corpus, dtype="bfloat16", out=out, force=True, **options))


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
    # Of other positions it is another store, which takes the place of this one only if told to.
    with pytest.raises(MismatchError, match="positions"):
        capture(model, corpus, out=out, **{**options, "positions": "last"})
    again = capture(model, corpus, out=out, force=True, **{**options, "positions": "last"})
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
    with pytest.raises(ArtefactError, match="is a file; choose another"):
        capture(model, corpus, out=tmp_path / "file")
    with pytest.raises(ArtefactError, match="Could not write"):
        capture(model, corpus, out=tmp_path / "file" / "acts")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_bfloat16_is_float32_within_its_rounding(tiny_model: Any) -> None:
    exact, corpus = tiny_model("llama"), plain.replies()
    model = load_model(copy.deepcopy(exact.hf).bfloat16(), tokenizer=exact.tokenizer)
    options: dict[str, Any] = {"sites": KINDS, "positions": "last,mean:reply,all"}
    expected = capture(exact, corpus, **options)
    store = capture(model, corpus, **options)
    for site in store.sites:
        for position in store.positions:
            found, wanted = (s.to_torch(site, position) for s in (store, expected))
            # Eight bits, and what three blocks make of that.
            assert float((found - wanted).norm() / wanted.norm()) < 8 * 2**-8
    # Means are taken in float32: far more precise than the tokens they are made of.
    site = Site(2, "resid_post")
    every, ids = store.to_torch(site, "all"), store.column("id", "all")
    spans = [plain.chat_ids(model.tokenizer, record)[1:] for record in corpus]
    for i, (record, (start, end)) in enumerate(zip(corpus, spans, strict=True)):
        rows = every[torch.tensor([name == record.id for name in ids])]
        _close(store.to_torch(site, "mean:reply")[i], rows[start:end].mean(0))


class Starved:
    """Lets a model fail for want of memory wherever a batch has more than so many texts."""

    def __init__(self, model: Any, rows: int, fail: Callable[[], Any]) -> None:
        self.batches: list[int] = []
        self._rows, self._fail, self._now = rows, fail, 0
        # It fails in the middle of the pass, when some sites are read already.
        self._handles = [
            model.anatomy.base.register_forward_pre_hook(self._note, with_kwargs=True),
            model.anatomy.blocks[1].block.register_forward_pre_hook(self._check),
        ]

    def _note(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        self._now = len(kwargs["input_ids"])
        self.batches.append(self._now)

    def _check(self, *_: Any) -> None:
        if self._now > self._rows:
            self._fail()

    def __enter__(self) -> Starved:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def _cuda_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def _cpu_is_full() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)  # the allocator's own failure


@pytest.mark.parametrize("fail", [_cuda_is_full, _cpu_is_full])
def test_out_of_memory_halves_the_batch(
    fail: Callable[[], Any],
    tiny_model: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, corpus = tiny_model("llama"), plain.many(150)
    options: dict[str, Any] = {"sites": "resid_post", "positions": "mean:reply,all"}
    expected = capture(model, corpus, **options)
    with Starved(model, 7, fail) as starved:
        store = capture(model, corpus, out=tmp_path / "acts", **options)
    failed = [n for n in starved.batches if n > 7]
    assert failed and len(failed) < len(starved.batches) / 4  # it learns what is too much
    assert sum(n for n in starved.batches if n <= 7) == len(corpus)
    assert "max_tokens_per_batch" in caplog.text
    assert store.rows.equals(expected.rows)
    for site in store.sites:
        for position in store.positions:
            _close(store.to_torch(site, position), expected.to_torch(site, position))


def test_out_of_memory_hands_no_row_over_twice(tiny_model: Any) -> None:
    model = tiny_model("llama")
    prepared = prepare(
        model,
        plain.many(60),
        positions="mean:reply,all",
        settings=CaptureSettings(shard_bytes=30_000),
    )
    seen: dict[Any, list[int]] = {}
    shards: list[int] = []

    class Rows:
        def begin(self, shard: int) -> None:
            shards.append(shard)

        def write(self, site: Site, position: str, start: int, values: torch.Tensor) -> None:
            start_of_shard, stop = prepared.plan.shard_rows(shards[-1])[position]
            assert start_of_shard <= start and start + len(values) <= stop
            seen.setdefault((site, position), []).extend(range(start, start + len(values)))

        def end(self) -> None:
            pass

    with Starved(model, 3, _cuda_is_full):
        prepared.run(Rows())
    assert shards == list(range(len(prepared.plan.shards))) and len(shards) > 3
    assert len(seen) == 2 * len(prepared.plan.sites)
    for (_, position), rows in seen.items():
        assert rows == list(range(prepared.plan.rows[position]))


def test_no_memory_for_one_text_is_one_sentence(tiny_model: Any) -> None:
    model = tiny_model("llama")
    with (
        Starved(model, 0, _cuda_is_full),
        pytest.raises(ModelError, match=r"not enough memory for record r\d alone \(\d+ tokens\)"),
    ):
        capture(model, plain.replies())

    def broken() -> None:
        raise RuntimeError("shapes do not match")

    with Starved(model, 0, broken), pytest.raises(RuntimeError, match="shapes do not match"):
        capture(model, plain.replies())


def test_attention_patterns_are_as_wide_as_the_longest_text(
    tiny_model: Any, tmp_path: Path
) -> None:
    model, corpus = tiny_model("llama"), plain.replies()
    site, options = Site(1, "pattern"), {"sites": "pattern@1", "positions": "last,all"}
    store = capture(model, corpus, out=tmp_path / "acts", **options)
    lengths = [len(plain.chat_ids(model.tokenizer, record)[0]) for record in corpus]
    heads = model.anatomy.n_heads
    last = store.pattern(site, "last")
    assert last.shape == (len(corpus), heads, max(lengths))
    for row, length in zip(last, lengths, strict=True):
        _close(row[:, :length].sum(-1), torch.ones(heads))
        assert not bool(row[:, length:].any())
    # A token sees no later one.
    every, token = store.pattern(site, "all"), torch.tensor(store.column("token", "all"))
    later = torch.arange(max(lengths)) > token[:, None, None]
    assert not bool((every * later).any())


def test_skipped_and_cut_texts_are_counted_on_disk(
    tiny_model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, corpus = tiny_model("llama"), _with_long_record()
    for policy, done in (("skip", "skipped"), ("truncate", "truncated")):
        store = capture(model, corpus, overlong=policy, out=tmp_path / policy)
        other = {"skipped", "truncated"} - {done}
        assert store.facts[done] == 1 and store.facts[other.pop()] == 0
        assert store.provenance.parameters["overlong"] == policy
        assert f"1 of 3 texts are longer than the context: {done}" in caplog.text


def test_a_tokenizer_of_another_model_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens(["lovely"])  # id 200 of a vocabulary of 200
    other = load_model(model.hf, tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"Token id 200 is outside the vocabulary"):
        capture(other, plain.replies())


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
