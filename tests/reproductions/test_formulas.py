"""Published formulas against loops and plain hooks that share no code with the package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.circuits import contributions, difference, unit_means
from affectlens.circuits.attribution.contributions import score_units
from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.core import EMOTIONS, DataError, Site
from affectlens.evaluation.judges.told import ToldJudge
from affectlens.models.hooking.hooks import writing
from affectlens.reproductions.comparison import PaperFigure, expanded, said, side_by_side
from affectlens.reproductions.emotion_circuits.depth import first_above, neighbours, silhouettes
from affectlens.reproductions.emotion_circuits.directions_step import read_groups
from affectlens.reproductions.emotion_circuits.modulation import circuit_modulation, rms_steering
from affectlens.reproductions.emotion_circuits.replies import Said, generate_said
from affectlens.reproductions.emotion_circuits.scenarios import Event, elicited, overwritten
from affectlens.reproductions.emotion_circuits.settings import PaperSettings, scaled, steered_layers
from affectlens.reproductions.emotion_circuits.units import curves, half_mass, negative_share
from affectlens.reproductions.emotion_circuits.verdicts_step import accuracies, heard_blind
from tests.circuits.helpers import direction, hooks, random_directions, record_of, run
from tests.reproductions.answering import answering

EVENTS = [
    Event(f"s{i}", valence, "t", f"I {i}.", f"So {valence[:3]}.", "fit")
    for i in range(2)
    for valence in ("positive", "negative")
]


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama", num_hidden_layers=2)


@pytest.fixture(scope="module")
def corpus() -> Any:
    return elicited(EVENTS)


def test_groups_are_read_at_both_sublayers_and_the_last_after_the_final_norm(
    model: Any, corpus: Any
) -> None:
    raw, normed = (read_groups(model, corpus, normed=normed) for normed in (False, True))
    last = Site(model.n_layers - 1, "resid_post")
    for site in raw:
        assert torch.equal(raw[site], normed[site]) == (site != last)
    for g, event in enumerate(EVENTS):
        for e, emotion in enumerate(EMOTIONS):
            ids = model.encode_chat(event.record(emotion).chat, add_generation_prompt=True).ids
            with torch.no_grad():
                out = model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
            torch.testing.assert_close(normed[last][g, e], out[-1][0, -1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                raw[Site(0, "resid_post")][g, e], out[1][0, -1], rtol=1e-4, atol=1e-4
            )


def test_differences_without_valence_are_those_of_the_last_event(model: Any, corpus: Any) -> None:
    """Script 05: a dictionary by scenario, in which one valence overwrites another."""
    groups: dict[str, dict[str, Tensor]] = {}
    for record in corpus:
        seen, _ = run(model, record)
        groups.setdefault(record.scenario, {})[str(record.emotion)] = torch.stack(
            [seen["mlp_in", layer][-1] for layer in range(model.n_layers)]
        )
    each = torch.stack([torch.stack([g[e] for e in EMOTIONS]) for g in groups.values()])
    expected = (each - each.mean(1, keepdim=True)).mean(0)
    means = unit_means(model, overwritten(corpus), EMOTIONS, position="last", grouped=True)
    assert means.n_groups == 2
    torch.testing.assert_close(difference(means.mean("neurons")), expected, rtol=1e-4, atol=1e-5)


def test_curves_are_what_zeroing_and_adding_do_to_the_projection(model: Any, corpus: Any) -> None:
    directions = random_directions(model, EMOTIONS)
    scored = contributions(model, corpus, directions, position="last", grouped=False)
    means = unit_means(model, corpus, EMOTIONS, position="last", grouped=True)
    found = sublayer_directions(directions, model.anatomy)
    gains = score_units(model, means, found, score="contrast").neurons
    delta = difference(means.mean("neurons"))
    e, counts = 1, (1, 3)
    for part in model.anatomy.blocks:
        v = direction(directions, part.layer, "resid_post")[e]
        order = scored.neurons[e, part.layer].argsort(descending=True)

        def projected(*extra: Any, v: Tensor = v, layer: int = part.layer) -> Tensor:
            records = record_of(corpus, EMOTIONS[e])
            ends = [run(model, record, *extra)[0]["post", layer][-1] @ v for record in records]
            return torch.stack(ends).mean()

        base = projected()
        one = (scored.neurons[e, part.layer][None, None], gains[e, part.layer][None, None])
        falls = curves(one[0], one[0], counts, draws=2, seed=0).top
        rises = curves(one[0], one[1], counts, draws=2, seed=0).top
        for k, fall, rise in zip(counts, falls, rises, strict=True):
            units = order[:k]

            def silence(value: Tensor, units: Tensor = units) -> Tensor:
                value = value.clone()
                value[..., units] = 0
                return value

            def enhance(value: Tensor, units: Tensor = units, layer: int = part.layer) -> Tensor:
                value = value.clone()
                value[..., units] += delta[e, layer, units]
                return value

            ablated = projected((part.down_proj, silence, "in"))
            enhanced = projected((part.down_proj, enhance, "in"))
            torch.testing.assert_close(base - ablated, fall, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(enhanced - base, rise, rtol=1e-3, atol=1e-4)


def test_curves_beside_random_and_low_units() -> None:
    generator = torch.Generator().manual_seed(0)
    ranking = torch.randn(2, 3, 10, generator=generator)
    added = torch.randn(2, 3, 10, generator=generator)
    found = curves(ranking, added, (1, 4, 10, 64), draws=400, seed=1)
    assert found.counts == (1, 4, 10)
    for k, top, low in zip(found.counts, found.top, found.low, strict=True):
        sums = torch.zeros(2)
        for e in range(2):
            for layer in range(3):
                order = sorted(range(10), key=lambda u: -float(ranking[e, layer, u]))
                shifted = order[5:] + order[:5]
                sums += torch.stack(
                    [added[e, layer, picked[:k]].sum() / 6 for picked in (order, shifted)]
                )
        torch.testing.assert_close(torch.stack([top, low]), sums, rtol=1e-5, atol=1e-5)
    expected = added.sum(-1).mean() * torch.tensor([0.1, 0.4, 1.0])
    torch.testing.assert_close(found.random, expected, atol=0.1, rtol=0)
    assert float(found.random_sd[-1]) == pytest.approx(0, abs=1e-6)
    assert found.share(10) <= 1 and max(found.share(k) for k in found.counts) == 1


def reference_reply(model: Any, event: Event, decoding: Any, *extra: Any) -> str:
    """``hf.generate`` on one prompt, under plain hooks."""
    ids = model.encode_chat(event.record("neutral").chat, add_generation_prompt=True).ids
    with torch.no_grad(), hooks(*extra):
        out = model.hf.generate(
            torch.tensor([ids]),
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens,
            do_sample=False,
            repetition_penalty=decoding.repetition_penalty,
            no_repeat_ngram_size=decoding.no_repeat_ngram,
        )[0, len(ids) :]
    return str(model.tokenizer.decode(out, skip_special_tokens=True)).strip()


def test_replies_under_residual_steering_are_those_of_plain_hooks(model: Any) -> None:
    settings = PaperSettings()
    vectors = {
        layer: torch.nn.functional.normalize(
            torch.randn(model.d_model, generator=torch.Generator().manual_seed(layer)), dim=-1
        )
        for layer in range(model.n_layers)
    }

    def steer(v: Tensor) -> Any:
        def after(value: Tensor) -> Tensor:
            value = value.clone()
            last = value[:, -1]
            rms = (last.square().mean(-1, keepdim=True) + 1e-12).sqrt()
            value[:, -1] = last + settings.alpha * rms * v
            return value

        return after

    plain = [(part.block, steer(vectors[part.layer]), "out") for part in model.anatomy.blocks]
    _same_replies(model, rms_steering(vectors, settings.alpha), plain, settings.steered)


@pytest.mark.parametrize("everywhere", [True, False])
def test_replies_under_modulation_are_those_of_plain_hooks(model: Any, everywhere: bool) -> None:
    """Unfolded: at the inputs of the two maps, heads at all positions of a pass if published."""
    settings = PaperSettings()
    generator = torch.Generator().manual_seed(3)
    plain: list[Any] = []
    folded: dict[str, list[Tensor]] = {"attn": [], "mlp": []}
    for part in model.anatomy.blocks:
        for kind, module in (("attn", part.o_proj), ("mlp", part.down_proj)):
            delta = torch.randn(module.in_features, generator=generator) * 3
            folded[kind].append(module.weight.detach() @ delta)
            whole = everywhere and kind == "attn"

            def shift(value: Tensor, delta: Tensor = delta, whole: bool = whole) -> Tensor:
                value = value.clone()
                if whole:
                    return value + delta
                value[:, -1] += delta
                return value

            plain.append((module, shift, "in"))
    attention, mlp = (torch.stack(folded[kind]) for kind in ("attn", "mlp"))
    writers = circuit_modulation(attention, mlp, 1.0, everywhere=everywhere)
    _same_replies(model, writers, plain, settings.modulated)


def _same_replies(model: Any, writers: Any, plain: list[Any], decoding: Any) -> None:
    from dataclasses import replace

    decoding = replace(decoding, max_new_tokens=12)
    with writing(model.anatomy, writers):
        got = generate_said(model, EVENTS[:3], [("anger", "neutral")], decoding, "replies")
    expected = [reference_reply(model, event, decoding, *plain) for event in EVENTS[:3]]
    assert [reply.text for reply in got] == expected
    assert expected != [reference_reply(model, event, decoding) for event in EVENTS[:3]]


def test_neighbours_are_cosines_along_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, 4, 2, 8, generator=generator), dim=-1)
    found = neighbours(vectors, (2, 3))
    for e in range(2):
        flat = [vectors[e, i // 2, i % 2] for i in range(8)]
        cosine = np.array([[float(a @ b) for b in flat] for a in flat])
        pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
        inside = [cosine[i, j] for i, j in pairs if min(i, j) >= 4]
        assert float(found.same_layer[e]) == pytest.approx(
            np.mean([cosine[2 * i, 2 * i + 1] for i in range(4)]), abs=1e-5
        )
        assert float(found.next_layer[e]) == pytest.approx(
            np.mean([cosine[2 * i + 1, 2 * i + 2] for i in range(3)]), abs=1e-5
        )
        assert float(found.off_diagonal[e]) == pytest.approx(
            np.mean([cosine[i, j] for i, j in pairs]), abs=1e-5
        )
        assert float(found.band[e]) == pytest.approx(np.mean(inside), abs=1e-5)
        assert float(found.band_min[e]) == pytest.approx(min(inside), abs=1e-5)


def test_planted_clusters_are_found_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 3, 16, generator=generator)
    noise = torch.randn(2, 12, 3, 16, generator=generator)
    planted = noise[1] + 8 * directions[1] + 50 * torch.randn(12, 1, 16, generator=generator)
    seen, chance = silhouettes(directions, [noise[0], planted], draws=30, seed=0)
    assert chance.shape == (30, 2)
    assert seen[1] > 0.5 and seen[1] > chance[:, 1].max() + 0.15
    assert seen[0] < np.quantile(chance[:, 0], 0.99) + 0.05


def test_where_values_stay_above_their_limits() -> None:
    assert first_above([0, 2, 0, 2, 3], [1] * 5) == 3
    assert first_above([2, 2], [1, 1]) == 0
    assert first_above([2, 0], [1, 1]) is None


def test_spread_of_scores() -> None:
    scores = torch.tensor([[[4.0, 3.0, 9.0], [2.0, -1.0, -5.0]]])
    sizes = torch.tensor([2, 3])
    assert half_mass(scores, sizes) == [2]  # 4 + 3 of 9; the unit that is not there has 9
    assert float(negative_share(scores, sizes)) == pytest.approx(2 / 5)
    assert half_mass(-scores.abs(), sizes) == [0]


def test_layers_are_scaled_by_depth() -> None:
    assert list(steered_layers((11, 20), 28)) == list(range(11, 21))
    assert list(steered_layers((11, 20), 30)) == list(range(12, 22))
    assert list(steered_layers((11, 20), 3)) == [1, 2]
    assert [scaled(20, n) for n in (28, 56, 14)] == [20, 40, 10]


def test_shares_by_emotion_with_their_control() -> None:
    replies = [
        Said("test", f"s{i}", "positive", emotion, "x", blind="anger")
        for i in range(4)
        for emotion in ("anger", "fear")
    ]
    control = [Said("test", "s0", "positive", e, "x", blind="fear") for e in ("anger", "fear")]
    found = {f.id: f for f in accuracies("a", replies, control, heard_blind, "others", 0)}
    assert (found["a.overall"].value, found["a.overall"].control) == (50, 50)
    assert (found["a.anger"].value, found["a.anger"].control) == (100, 0)
    assert (found["a.fear"].value, found["a.fear"].control) == (0, 100)
    assert (found["a.anger"].low, found["a.anger"].high) == (100, 100)
    assert set(found) == {"a.overall", "a.anger", "a.fear", "a.positive"}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ('{"match": 1, "reason": "loud"}', True),
        ('Sure: {"match": 0}', False),
        ('{"match": 2}', None),
        ("yes", None),
        (500, None),
    ],
)
def test_what_a_told_judge_says(answer: str | int, verdict: bool | None) -> None:
    with answering(lambda _body: answer) as (url, asked):
        assert ToldJudge.at(url, "j")(["a text"], ["fear"]) == [verdict]
        assert len(asked) == (1 if verdict is not None else 3)
        assert asked[0]["messages"][1]["content"] == "Emotion: fear\nReply: a text"


@pytest.mark.parametrize(("status", "sentence"), [(401, "another API key"), (404, "no model j")])
def test_a_told_judge_that_refuses(status: int, sentence: str) -> None:
    with (
        answering(lambda _body: status) as (url, _),
        pytest.raises(DataError, match=sentence),
    ):
        ToldJudge.at(url, "j")(["a text"], ["fear"])


def test_figures_have_one_id_each_and_findings_must_be_known() -> None:
    from affectlens.core import ArtefactError
    from affectlens.reproductions.comparison import Finding

    raw = {"section": "s", "what": "w", "where": "t"}
    figures = expanded([{"id": "a", "value": {"x": 1, "y": None}, **raw}])
    assert figures == (
        PaperFigure("a.x", "s", "w, x", 1, "t"),
        PaperFigure("a.y", "s", "w, y", None, "t"),
    )
    rows = side_by_side(figures, [Finding("a.y", 0.1234)])
    assert [row.flat()["here"] for row in rows] == ["untested", "0.123"]
    assert [row.flat()["paper"] for row in rows] == ["1", "not given"]
    with pytest.raises(ArtefactError, match=r"called b"):
        side_by_side(figures, [Finding("b", 1)])
    with pytest.raises(ArtefactError, match=r"called a"):
        expanded([{"id": "a", "value": 1, **raw}] * 2)
    assert said([1.0, 0.5], missing="") == "1 0.5"
