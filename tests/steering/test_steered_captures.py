"""Captures inside a steering block, against plain hooks; and what is refused there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.activations import ActivationStore, capture, moments
from affectlens.circuits import find_circuit
from affectlens.circuits.attribution.contributions import contributions
from affectlens.circuits.influence import influence
from affectlens.core import DataError, MismatchError
from affectlens.datasets import Corpus, Message, Record
from affectlens.evaluation.perplexity import reply_nll
from affectlens.models.chat.chats import encode
from affectlens.models.loading import LanguageModel
from affectlens.steering import SteeringSpec
from affectlens.steering.refine import refine_circuit, refine_directions
from tests.steering.oracle import EMOTIONS, random_pack, steered_at

REPLIES = ("Well.", "That is a long wait, so take a book with you.", "I see, thank you!")
SITE = "resid_post@2"


def record(i: int, *messages: tuple[str, str]) -> Record:
    return Record(
        id=f"r{i}",
        messages=tuple(Message(role, text) for role, text in messages),  # type: ignore[arg-type]
        emotion="anger",
        valence=None,
        group=f"g{i}",
        theme="t",
        split="fit",
    )


@pytest.fixture
def replies() -> Corpus:
    rows = [
        record(i, ("user", "My train was cancelled."), ("assistant", reply))
        for i, reply in enumerate(REPLIES)
    ]
    return Corpus("c", "replies", tuple(rows))


def spec(positions: str, emotion: str = "anger") -> SteeringSpec:
    return SteeringSpec({emotion: 2.0}, mode="residual", positions=positions, unit="natural")


def rows(model: LanguageModel, corpus: Corpus, **options: Any) -> torch.Tensor:
    store = capture(model, corpus, sites=SITE, **options)
    return store.to_torch(store.sites[0])


def by_hooks(
    model: LanguageModel, one: Record, positions: str | None, emotion: str = "anger"
) -> torch.Tensor:
    """Block 2's output of each token; the pack's vectors added by name of each token."""
    pack = random_pack(model)
    turns: Any = [{"role": m.role, "content": m.content} for m in one.messages]
    start = len(encode(model.tokenizer, turns[:-1], add_generation_prompt=True).ids)
    ids = encode(model.tokenizer, turns, add_generation_prompt=False).ids
    handles, seen = list[Any](), list[torch.Tensor]()
    name = "residual.resid_post"
    for i, layer in enumerate(pack.layers[name]):
        delta = 2.0 * pack.vectors[name][pack.emotions.index(emotion), i]

        def hook(_m: Any, _a: Any, hidden: Any, delta: torch.Tensor = delta) -> Any:
            hidden = hidden.clone()
            for t in range(hidden.shape[1]):
                if positions and steered_at(positions, t, start):
                    hidden[0, t] += delta
            return hidden

        handles.append(model.anatomy.blocks[layer].block.register_forward_hook(hook))
    block = model.anatomy.blocks[2].block
    handles.append(block.register_forward_hook(lambda _m, _a, hidden: seen.append(hidden[0])))
    with torch.no_grad():
        model.hf(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    n = len(model.tokenizer(one.messages[-1].content, add_special_tokens=False)["input_ids"])
    return seen[0][start : start + n]


@pytest.mark.parametrize("positions", ["last_prompt+generated", "generated", "prompt", "all"])
def test_replies_are_steered_where_they_would_be_generated(
    tiny_model: Any, replies: Corpus, positions: str
) -> None:
    model = tiny_model("llama")
    wanted = torch.stack([by_hooks(model, one, positions).mean(0) for one in replies])
    plain = rows(model, replies)
    for way in ({}, {"padding": "left"}, {"max_tokens_per_batch": 40}):
        with random_pack(model).steer(model, spec(positions)):
            got = rows(model, replies, **way)
            summed = moments(model, replies, sites=SITE)
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)
        assert not torch.allclose(got, plain, atol=1e-2)
        site, where = summed.sites[0], summed.positions[0]
        torch.testing.assert_close(
            summed.sums[site, where].mean[0].float(), wanted.mean(0), atol=2e-4, rtol=1e-4
        )


def test_requests_keep_to_their_records(tiny_model: Any, replies: Corpus) -> None:
    """Texts run longest first, and too long ones are skipped."""
    model = tiny_model("llama")
    pack = random_pack(model)
    long = record(9, ("user", "Hello"), ("assistant", "train " * 300))
    whole = Corpus("c", "replies", (replies.records[0], long, *replies.records[1:]))
    requests = [spec("generated"), spec("all"), None, spec("generated", "fear")]
    with pack.steer(model, requests):
        got = rows(model, whole, overlong="skip")
    wanted = [
        by_hooks(model, replies.records[0], "generated"),
        by_hooks(model, replies.records[1], None),
        by_hooks(model, replies.records[2], "generated", "fear"),
    ]
    means = torch.stack([states.mean(0) for states in wanted])
    torch.testing.assert_close(got, means, atol=2e-4, rtol=1e-4)
    with pack.steer(model, requests[:2]), pytest.raises(DataError, match="one request per"):
        rows(model, whole, overlong="skip")
    with (
        pack.steer(model, spec("all"), prompt_lengths=[3]),
        pytest.raises(DataError, match="without prompt_lengths"),
    ):
        rows(model, replies)


def test_stores_know_what_they_were_made_under(
    tiny_model: Any, replies: Corpus, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    pack, other = random_pack(model), random_pack(model, seed=1)
    plain, out = rows(model, replies), tmp_path / "store"
    with pack.steer(model, spec("all")):
        steered = rows(model, replies, out=out)
        assert torch.equal(rows(model, replies, out=out), steered)  # the same again
    blocks: list[Any] = [
        (pack, None),
        (pack, "anger=0"),
        (pack, spec("generated")),
        (pack, [spec("all")] * len(replies)),
        (other, spec("all")),
    ]
    for one, request in blocks:
        with (
            pytest.raises(MismatchError, match="what differs: steering"),
            one.steer(model, request),
        ):
            rows(model, replies, out=out)
    with pytest.raises(MismatchError, match="what differs: steering"):
        rows(model, replies, out=out)
    assert torch.equal(rows(model, replies, out=out, force=True), plain)
    with (
        pack.steer(model, spec("all")),
        pytest.raises(MismatchError, match="what differs: steering"),
    ):
        rows(model, replies, out=out)
    # Zero strength is no steering.
    with pack.steer(model, "anger=0"):
        assert torch.equal(rows(model, replies, out=out), plain)
    assert ActivationStore.open(out).provenance.parameters.get("steering") is None
    with pack.steer(model, spec("all")):
        made = moments(model, replies, sites=SITE).provenance
    assert made.fingerprint != moments(model, replies, sites=SITE).provenance.fingerprint


def test_engines_that_copy_the_model_are_refused(tiny_model: Any, replies: Corpus) -> None:
    model = tiny_model("llama")
    for engine in ("transformer_lens", "nnsight"):
        with (
            random_pack(model).steer(model, spec("all")),
            pytest.raises(DataError, match=f"The {engine} engine runs a copy"),
        ):
            rows(model, replies, engine=engine)


def test_what_is_of_the_model_as_it_is_refuses_to_be_steered(
    tiny_model: Any, replies: Corpus
) -> None:
    model, nothing = tiny_model("llama"), None
    measured: list[Any] = [
        lambda: find_circuit(model, replies, nothing),  # type: ignore[arg-type]
        lambda: contributions(model, replies, nothing),  # type: ignore[arg-type]
        lambda: influence(model, [[5, 6]], nothing),  # type: ignore[arg-type]
        lambda: refine_directions(model, nothing, replies, layers=[1]),  # type: ignore[arg-type]
        lambda: refine_circuit(model, nothing, replies),  # type: ignore[arg-type]
        lambda: reply_nll(model, [[5, 6]], [[7]]),
    ]
    with random_pack(model).steer(model, {EMOTIONS[0]: 1.0}):
        for measure in measured:
            with pytest.raises(DataError, match="outside the steering block"):
                measure()
    assert reply_nll(model, [[5, 6]], [[7]])[0] > 0
