"""Recognition, elicitation, projection and pairs against plain passes of the Hugging Face model."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.patching import attribution_patching
from affectlens.circuits.interventions import Intervention, intervening, neurons
from affectlens.circuits.tasks import (
    TASKS,
    CarryOver,
    Elicitation,
    Projection,
    Recognition,
    pairs,
)
from affectlens.circuits.tasks.recognition import OPENING, balanced_orders, question
from affectlens.core import Provenance, Site
from affectlens.core.errors import DataError, MismatchError, ModelError
from affectlens.datasets import elicitation_prompt
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.geometry import Directions
from affectlens.models.loading import load_model
from tests.circuits.test_carry_over import EMOTIONS, FIRST, corpus
from tests.circuits.test_circuit import random_circuit
from tests.conftest import tiny_hf, tiny_tokenizer

TEXTS = ("He took the seat.", "The light went out.", "A letter came today.")


def vignettes(groups: int = 2) -> Corpus:
    return Corpus(
        "vignettes",
        "texts",
        tuple(
            Record(
                f"{g}:{e}",
                (Message("text", f"{TEXTS[i]} It was {g}."),),
                e,
                None,
                f"s{g}",
                "t",
                "test",
            )
            for g in range(groups)
            for i, e in enumerate(EMOTIONS)
        ),
    )


def replies(groups: int = 2) -> Corpus:
    tones = (*EMOTIONS, "neutral")
    told = (*FIRST, "It is due at ten.")
    return Corpus(
        "replies",
        "replies",
        tuple(
            Record(
                f"{g}:{e}",
                (
                    Message("user", f"The train was late {g} times."),
                    Message("assistant", f"{told[i]} Ok."),
                ),
                e,
                "negative",
                f"s{g}",
                "t",
                "test",
            )
            for g in range(groups)
            for i, e in enumerate(tones)
        ),
    )  # fmt: skip


def mean_logs(model: Any, before: str, told: str) -> tuple[float, int]:
    """Mean log-probability of what follows a text, and its tokens, by one plain pass."""
    whole = model.tokenizer(before + told, add_special_tokens=False).input_ids
    start = len(model.tokenizer(before, add_special_tokens=False).input_ids)
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([whole])).logits[0].double()
    logs = logits.log_softmax(-1)[torch.arange(start - 1, len(whole) - 1), whole[start:]]
    return float(logs.mean()), len(whole) - start


class TestRecognition:
    """The answer to how the writer feels."""

    def test_margins_shares_and_coverage_are_those_of_plain_passes(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        labels = {"anger": "mad", "fear": "the dark", "happiness": "joy"}
        task = Recognition.of(model, vignettes(), EMOTIONS, labels=labels)
        words = list(labels.values())
        orders = balanced_orders(words)
        sums = np.zeros((2, 3, len(orders), 3))
        for g in range(2):
            for c in range(3):
                for o, order in enumerate(orders):
                    user = question(f"{TEXTS[c]} It was {g}.", order)
                    before = f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{OPENING}"
                    for t, word in enumerate(words):
                        mean, tokens = mean_logs(model, before, f" {word}")
                        sums[g, c, o, t] = mean * tokens
        score = sums.mean(2)
        own = np.einsum("gee->ge", score)
        raw = own - (score.sum(2) - own) / 2
        contrast = score - (score.sum(2, keepdims=True) - score) / 2
        np.testing.assert_allclose(task.centre(model), contrast.mean(1), atol=1e-4)
        np.testing.assert_allclose(task.margins(model), raw - contrast.mean(1), atol=1e-4)
        found = task.recognised(model)
        whole = np.exp(sums).sum(3)
        np.testing.assert_allclose(found.coverage, whole.mean(2), rtol=1e-3)
        shares = (np.exp(sums) / whole[..., None]).mean(2)
        np.testing.assert_allclose(found.shares, shares, atol=1e-5)
        hits = [shares[g, c].argmax() == c for g in range(2) for c in range(3)]
        assert found.accuracy == pytest.approx(np.mean(hits))

    def test_a_base_model_is_asked_in_plain_text(self) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = None
        model = load_model(tiny_hf("gpt2", n_positions=512), tokenizer=tokenizer)
        task = Recognition.of(model, vignettes(), EMOTIONS, orders=1)
        before, told = task.rows[0][1][0][2]
        user = question(f"{TEXTS[1]} It was 0.", balanced_orders(EMOTIONS)[0])
        assert model.tokenizer.decode(list(before)) == f"{user}\n\n{OPENING}"
        assert model.tokenizer.decode(list(told)) == " happiness"

    @pytest.mark.parametrize("n", [2, 3, 6, 7])
    def test_orders_are_balanced(self, n: int) -> None:
        orders = balanced_orders([str(i) for i in range(n)])
        assert len(orders) == (n if n % 2 == 0 else 2 * n) == len(set(orders))
        places = Counter((place, x) for row in orders for place, x in enumerate(row))
        assert len(places) == n * n and len(set(places.values())) == 1
        after = Counter(pair for row in orders for pair in pairwise(row))
        assert len(after) == n * (n - 1) and len(set(after.values())) == 1

    def test_what_cannot_be_asked(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        with pytest.raises(DataError, match="this corpus has 1"):
            Recognition.of(model, vignettes(1), EMOTIONS)
        with pytest.raises(DataError, match="the same label"):
            Recognition.of(model, vignettes(), EMOTIONS, labels={"fear": "anger"})


class TestElicitation:
    """Told to reply in an emotion."""

    def test_margins_are_those_of_plain_passes(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        task = Elicitation.of(model, replies(), [*EMOTIONS, "neutral"], named=True)
        assert task.emotions == EMOTIONS
        found = task.margins(model)
        for e, emotion in enumerate(EMOTIONS):
            gaps = []
            for by in (emotion, "neutral"):
                before = (
                    f"<|im_start|>system\n{elicitation_prompt(by)}<|im_end|>\n"
                    "<|im_start|>user\nThe train was late 1 times.<|im_end|>\n"
                    "<|im_start|>assistant\n"
                )
                told = [
                    mean_logs(model, before, text)[0] for text in (FIRST[e], "It is due at ten.")
                ]
                gaps.append(told[0] - told[1])
            assert found[1, e] == pytest.approx(gaps[0] - gaps[1], abs=1e-5)

    def test_a_model_without_a_system_role_is_refused(self, tiny_model: Any) -> None:
        with pytest.raises(DataError, match="this corpus has 0"):
            Elicitation.of(tiny_model("llama"), corpus(), EMOTIONS)
        tokenizer: PreTrainedTokenizerFast = tiny_tokenizer()
        template = str(tokenizer.chat_template)
        system = "messages[0]['role'] == 'system'"
        refusing = f"{{% if {system} %}}{{{{ raise_exception('no system') }}}}{{% endif %}}"
        for changed, says in (
            (None, "no chat template"),
            (refusing + template, "no system role"),
        ):
            tokenizer.chat_template = changed
            model = load_model(tiny_hf("gpt2", n_positions=512), tokenizer=tokenizer)
            with pytest.raises(ModelError, match=says):
                Elicitation.of(model, replies(), EMOTIONS)


def some_directions(model: Any) -> Directions:
    vectors = torch.randn(2, 3, model.d_model, generator=torch.Generator().manual_seed(0))
    return Directions(
        EMOTIONS,
        (Site(0, "resid_post"), Site(1, "resid_post")),
        vectors / vectors.norm(dim=-1, keepdim=True),
        torch.ones(2, 3),
        "group_centred",
        None,
        Provenance("directions", model=model.fingerprint, model_name=model.name),
    )


class TestProjection:
    """Held-out directions."""

    @pytest.fixture
    def parts(self, tiny_model: Any) -> tuple[Any, Projection]:
        model = tiny_model("gpt2")
        return model, Projection.of(
            model, corpus(), EMOTIONS, directions=some_directions(model), site=Site(1, "resid_post")
        )

    def test_margins_are_those_of_hidden_states(self, parts: Any) -> None:
        model, task = parts
        units = some_directions(model).vectors[1].double().numpy()
        read = np.zeros((3, 3, 3))
        for item, texts in enumerate(task.rows):
            for c, (before, told) in enumerate(texts):
                with torch.no_grad():
                    states = model.hf(
                        input_ids=torch.tensor([[*before, *told]]), output_hidden_states=True
                    ).hidden_states[2][0, len(before) :]
                h = states.double().mean(0).numpy()
                for e in range(3):
                    others = [units[t] for t in range(3) if t != e]
                    read[item, c, e] = h @ (units[e] - sum(others) / 2)
        wanted = np.einsum("iee->ie", read) - read.mean(1)
        np.testing.assert_allclose(task.margins(model), wanted, atol=1e-4)
        part = task.margins(model, ["fear"], task.centre(model))
        np.testing.assert_allclose(part[:, 1], wanted[:, 1], atol=1e-4)
        assert np.isnan(part[:, [0, 2]]).all()

    def test_attribution_is_its_slope(self, parts: Any) -> None:
        model, task = parts
        means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
        by_neuron, _ = attribution_patching(model, task, means, ["fear"])
        assert float(by_neuron[0, 2].abs().max()) == 0  # what comes after the site has no effect
        index = int(by_neuron[0, 1].abs().argmax())
        at, where = neurons(model, 1, [index])
        mean = means.mean("neurons").mean(0)[1]
        sides = []
        for step in (0.05, -0.05):
            part = Intervention(at, lambda x, s=step: x + s * (mean - x), where)
            with intervening(model, [part]):
                centre = np.zeros((len(task), 3))
                sides.append(task.margins(model, ["fear"], centre)[:, 1].mean())
        assert float(by_neuron[0, 1, index]) == pytest.approx(
            -(sides[0] - sides[1]) / 0.1, rel=0.02
        )

    def test_directions_that_are_not_held_out_are_refused(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        directions = some_directions(model)
        circuit = random_circuit(model)
        circuit.provenance.inputs["directions"] = directions.provenance.fingerprint  # pyright: ignore[reportIndexIssue]
        with pytest.raises(DataError, match="ranked by these very directions"):
            Projection.of(model, corpus(), EMOTIONS, directions=directions, circuit=circuit)
        other = tiny_model("llama", 3)
        with pytest.raises(MismatchError, match="made for model"):
            Projection.of(other, corpus(), EMOTIONS, directions=directions)


class TestPairs:
    """Contexts of equal length."""

    def test_same_continuations_after_contexts_as_long(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        alike = {"anger": "It is now.", "fear": "It is ice.", "happiness": "It is not at all so."}
        records = tuple(
            Record(
                r.id,
                (r.messages[0], Message("assistant", f"{alike[str(r.emotion)]} Then they left.")),
                r.emotion, r.valence, r.group, r.theme, r.split,
            )
            for r in corpus()
        )  # fmt: skip
        task = CarryOver.of(model, Corpus("c", "replies", records), EMOTIONS)
        size = {e: len(task.rows[0][i][0][0]) for i, e in enumerate(EMOTIONS)}  # pyright: ignore[reportOptionalSubscript]
        assert size["anger"] == size["fear"] != size["happiness"]
        found = pairs(task, "anger")
        assert [(p.item, p.other) for p in found] == [(i, "fear") for i in range(3)]
        for pair in found:
            assert pair.clean == task.texts("anger")[pair.item]
            for (w, (before, told)), (v, (instead, same)) in zip(
                pair.clean, pair.corrupt, strict=True
            ):
                assert (w, told) == (v, same) and len(before) == len(instead) and before != instead
                assert instead == task.texts("fear")[pair.item][0][1][0]
        with pytest.raises(DataError, match="as many tokens in another tone as in happiness"):
            pairs(task, "happiness")


def test_the_table_makes_every_task(tiny_model: Any) -> None:
    model = tiny_model("llama")
    made = {
        "carry_over": TASKS["carry_over"].make(model, corpus(), EMOTIONS),
        "recognition": TASKS["recognition"].make(model, vignettes(), EMOTIONS, orders=1),
        "elicitation": TASKS["elicitation"].make(model, replies(), EMOTIONS, named=True),
        "projection": TASKS["projection"].make(
            model, corpus(), EMOTIONS, directions=some_directions(model)
        ),
    }
    assert set(made) == set(TASKS)
    for name, task in made.items():
        assert task.name == name and task.first(1).scenarios == task.scenarios[:1]
        assert task.margins(model).shape == (len(task), len(task.emotions))
        assert task.fingerprint != task.first(1).fingerprint
