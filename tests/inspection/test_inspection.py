"""Replies and tokens as inspected, against steering by hand (`tests.steering.oracle`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core import DataError, MismatchError
from affectlens.inspection import Said, inspect_reply, inspect_token, lenses_of
from affectlens.steering.gates import EMBEDDINGS, Readout
from tests.conftest import FAMILIES
from tests.steering.oracle import random_pack, slow_logits

PROMPT, REPLY = [5, 17, 33, 90, 12, 61], [44, 7, 101, 9]
WEIGHTS = {"anger": 0.8, "happiness": -0.5}  # natural doses
SPEC = "anger=0.8,happiness=-0.5;unit=natural"


def reading_pack(model: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    n = (1, 2)
    readout = Readout(
        ("anger", "neutral", "joy"),
        n,
        torch.randn(2, 3, model.d_model, generator=generator) * 0.05,
        torch.randn(2, 3, generator=generator) * 0.1,
    )
    gates = Readout(
        readout.classes,
        (EMBEDDINGS, 1),
        torch.cat([torch.randn(1, 3, model.d_model, generator=generator), readout.weights[:1]]),
        torch.cat([torch.zeros(1, 3), readout.bias[:1]]),
    )
    return replace(random_pack(model), readout=readout, gates=gates)


def both(model: Any, pack: Any, mode: str, positions: str) -> tuple[Any, Any]:
    """Log-probabilities of every position, by hand, in float64."""
    ids, n = [*PROMPT, *REPLY], len(PROMPT)
    steered = slow_logits(model, pack, ids, n, WEIGHTS, mode, positions)
    plain = slow_logits(model, pack, ids, n, {}, mode, positions)
    return steered.double().log_softmax(-1), plain.double().log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["residual", "circuit"])
def test_change_and_surprise_of_every_token(tiny_model: Any, family: str, mode: str) -> None:
    model = tiny_model(family)
    pack = random_pack(model)
    positions = pack.positions[mode]
    steered, plain = both(model, pack, mode, positions)
    found = inspect_reply(Said(model, pack, f"{SPEC};mode={mode}", PROMPT, REPLY))
    at = slice(len(PROMPT) - 1, len(PROMPT) + len(REPLY) - 1)
    p, q = steered[at], plain[at]
    torch.testing.assert_close(found.kl.double(), (p.exp() * (p - q)).sum(-1), atol=1e-4, rtol=1e-3)
    told = torch.tensor(REPLY)[:, None]
    torch.testing.assert_close(found.nll.double(), -p.gather(1, told)[:, 0], atol=1e-4, rtol=1e-4)
    plain_nll = -q.gather(1, told)[:, 0]
    torch.testing.assert_close(found.nll_unsteered.double(), plain_nll, atol=1e-4, rtol=1e-4)
    assert found.perplexity == pytest.approx(float(plain_nll.mean().exp()), rel=1e-4)
    assert float(found.kl[1:].min()) > 1e-3  # the reply's tokens are steered


@pytest.mark.parametrize("at", range(len(REPLY) + 1))
def test_words_that_gain_and_lose(tiny_model: Any, at: int) -> None:
    model = tiny_model()
    pack = random_pack(model)
    mode = "circuit"
    steered, plain = both(model, pack, mode, pack.positions[mode])
    shift = inspect_token(Said(model, pack, f"{SPEC};mode={mode}", PROMPT, REPLY), at, top=5).shift
    where = len(PROMPT) - 1 + at
    p, q = steered[where].exp().numpy(), plain[where].exp().numpy()
    assert shift.kl == pytest.approx(float((p * (np.log(p) - np.log(q))).sum()), abs=1e-4)
    if at == 0:  # chosen at the last token of the prompt, which this mode leaves alone
        assert shift.kl < 1e-6
        return
    gained = np.argsort(q - p)[:5]
    lost = np.argsort(p - q)[:5]
    assert [word.id for word in shift.promoted] == gained.tolist()
    assert [word.id for word in shift.suppressed] == lost.tolist()
    for word in (*shift.promoted, *shift.suppressed):
        assert word.steered == pytest.approx(p[word.id], rel=1e-3)
        assert word.unsteered == pytest.approx(q[word.id], rel=1e-3)
        assert word.text == model.tokenizer.decode([word.id])
    if at < len(REPLY):
        assert shift.chosen is not None and shift.chosen.id == REPLY[at]
        assert shift.chosen.steered == pytest.approx(p[REPLY[at]], rel=1e-3)
    else:
        assert shift.chosen is None


@pytest.mark.parametrize("spec", ["none", f"{SPEC};mode=circuit"])
def test_the_map_is_what_probes_and_directions_read_in_a_plain_pass(
    tiny_model: Any, spec: str
) -> None:
    model = tiny_model()
    pack = reading_pack(model)
    said = Said(model, pack, spec, PROMPT, REPLY)
    lenses = lenses_of(pack)
    assert [(lens.name, lens.layers) for lens in lenses] == [
        ("probes", (EMBEDDINGS, 1, 2)),
        ("directions", (0, 2)),
    ]
    hidden: dict[int, torch.Tensor] = {}
    handles = [
        part.block.register_forward_hook(
            lambda _m, _a, out, n=part.layer: hidden.__setitem__(
                n, (out[0] if isinstance(out, tuple) else out)[0].double()
            )
        )
        for part in model.anatomy.blocks
    ]
    weights = {} if spec == "none" else WEIGHTS
    rows = []
    try:
        for given in (weights, {}):
            ids = [*PROMPT, *REPLY]
            slow_logits(model, pack, ids, len(PROMPT), given, "circuit", pack.positions["circuit"])
            words = model.hf.get_input_embeddings()(torch.tensor(ids)).detach().double()
            rows.append({**hidden, EMBEDDINGS: words})
    finally:
        for handle in handles:
            handle.remove()
    whole = inspect_reply(said, lenses)
    for at in range(len(REPLY)):
        token = inspect_token(said, at, lenses)
        for k, lens in enumerate(lenses):
            for row in (0, 1):
                for i, layer in enumerate(lens.layers):
                    h = rows[row][layer][len(PROMPT) - 1 + at]
                    w = lens.weights[i].double()
                    if lens.bias is not None:
                        wanted = (w @ h + lens.bias[i].double()).softmax(-1)
                    else:
                        wanted = torch.nan_to_num(w @ h / w.norm(dim=1) / h.norm())
                    seen = token.readings[k][row, i].double()
                    torch.testing.assert_close(torch.nan_to_num(seen), wanted, atol=1e-4, rtol=1e-3)
                    torch.testing.assert_close(
                        whole.readings[k][row, at, i], token.readings[k][row, i],
                        atol=1e-4, rtol=1e-3, equal_nan=True,
                    )  # fmt: skip
    # Happiness is not steered after block 0, so there is no direction to hold the stream against.
    assert bool(token.readings[1][:, 0, 2].isnan().all())


def test_a_gated_request_is_inspected_as_it_was_steered(tiny_model: Any) -> None:
    model = tiny_model()
    pack = reading_pack(model)
    shut = Said(model, pack, f"{SPEC};mode=residual;gate=anger>0.999999", PROMPT, REPLY)
    open_ = Said(model, pack, f"{SPEC};mode=residual", PROMPT, REPLY)
    gate = inspect_reply(shut)
    assert float(gate.kl.max()) < 1e-6 < float(inspect_reply(open_).kl.max())


def test_what_cannot_be_inspected_is_said(tiny_model: Any) -> None:
    model = tiny_model()
    pack = random_pack(model)
    said = Said(model, pack, SPEC, PROMPT, REPLY)
    with pytest.raises(DataError, match="has 4 tokens; there is no token 5"):
        inspect_token(said, 5)
    with pytest.raises(DataError, match="no token -1"):
        inspect_token(said, -1)
    with pytest.raises(DataError, match="At least one word"):
        inspect_token(said, 0, top=0)
    with pytest.raises(DataError, match="no prompt"):
        Said(model, pack, SPEC, [], REPLY)
    for token in (200, -1, 10**30):
        with pytest.raises(DataError, match="outside the vocabulary"):
            Said(model, pack, SPEC, PROMPT, [5, token])
    with pytest.raises(DataError, match="takes 256"):
        Said(model, pack, SPEC, PROMPT, [1] * 300)
    other = tiny_model(seed=3)
    with pytest.raises(MismatchError):
        inspect_reply(Said(other, pack, SPEC, PROMPT, REPLY))
    empty = inspect_reply(Said(model, pack, SPEC, PROMPT, []))
    assert len(empty.kl) == 0 and empty.perplexity != empty.perplexity


def test_inspection_leaves_the_model_as_it_was(tiny_model: Any) -> None:
    model = tiny_model()
    pack = random_pack(model)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        before = model.hf(input_ids=ids).logits
        inspect_reply(Said(model, pack, SPEC, PROMPT, REPLY), lenses_of(pack))
        assert bool((model.hf(input_ids=ids).logits == before).all())
