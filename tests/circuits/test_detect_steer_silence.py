"""A direction that is planted and used, and a decoy that is planted and read by nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from affectlens.activations import ActivationStore
from affectlens.circuits.causal_table import CausalTable
from affectlens.circuits.detect_steer_silence import (
    CausalSettings,
    _auroc,
    conditions,
    detect_steer_silence,
)
from affectlens.circuits.probe_effects import Asked, Stream, slope
from affectlens.circuits.tasks.base import Text, TextTask
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.places import Site
from affectlens.geometry.leace import Eraser, fit_leace
from affectlens.models.generation.likelihood import whole_nll
from affectlens.models.loading import LanguageModel, load_model
from affectlens.probes import Sweep, sweep
from tests.conftest import D_MODEL, tiny_hf, tiny_tokenizer

EMOTIONS = ("anger", "fear", "sadness")
SITE = Site(0, "resid_post")
SETTINGS = CausalSettings(draws=3, resamples=2000)
ITEMS = 8


@dataclass(frozen=True, eq=False)
class Follow(TextTask):
    """After a token for an emotion, the token that answers it; two fillers come before."""

    emotions: tuple[str, ...]
    scenarios: tuple[str, ...]
    name = "follow"

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.name, self.scenarios)

    def first(self, items: int) -> Follow:
        return replace(self, scenarios=self.scenarios[:items])

    def before(self, item: int, context: int) -> tuple[int, ...]:
        return (100 + item, 150 - item, 20 + context)

    def weighted(self, item: int, emotion: int) -> Text:
        return self._contrast(item, emotion, emotion, 1.0)

    def constants(self, item: int, emotion: int) -> Text:
        third = 1 / len(self.emotions)
        return tuple(r for c in range(3) for r in self._contrast(item, c, emotion, third))

    def _contrast(self, item: int, context: int, emotion: int, weight: float) -> Text:
        others = -weight / (len(self.emotions) - 1)
        return tuple(
            (weight if t == emotion else others, (self.before(item, context), (40 + t,)))
            for t in range(len(self.emotions))
        )


@dataclass(frozen=True, eq=False)
class Planted:
    model: LanguageModel
    store: ActivationStore
    task: Follow
    used: torch.Tensor
    decoy: torch.Tensor
    probes: Sweep


@pytest.fixture(scope="module")
def planted() -> Planted:
    """Emotion tokens hold both directions; the unembedding reads one, and nothing the other."""
    hf = tiny_hf("llama", tie_word_embeddings=False, num_hidden_layers=2)
    basis = torch.linalg.qr(torch.randn(D_MODEL, 6, generator=torch.Generator().manual_seed(3)))[0]
    used, decoy = basis.T[:3], basis.T[3:]
    with torch.no_grad():
        clear = torch.eye(D_MODEL) - decoy.T @ decoy
        for name, weight in hf.named_parameters():
            if "norm" in name:
                weight.fill_(1.0)
            elif any(f"{p}_proj.weight" in name for p in ("q", "k", "v", "gate", "up")):
                weight.copy_(0.2 * weight @ clear)
            elif any(f"{p}_proj.weight" in name for p in ("o", "down")):
                weight.copy_(0.2 * (torch.eye(D_MODEL) - basis @ basis.T) @ weight)
            elif name.endswith("proj.bias"):
                weight.zero_()
        table = hf.get_input_embeddings().weight
        table.copy_(table / table.norm(dim=1, keepdim=True))
        table.copy_(table @ (torch.eye(D_MODEL) - basis @ basis.T))
        head = hf.get_output_embeddings().weight
        head.copy_(0.3 * head @ (torch.eye(D_MODEL) - basis @ basis.T))
        for e in range(3):
            table[20 + e] += 1.0 * used[e] + 1.0 * decoy[e]
            head[40 + e] = 2.0 * used[e]
    model = load_model(hf, tokenizer=tiny_tokenizer())
    task = Follow(EMOTIONS, tuple(f"s{i}" for i in range(ITEMS)))
    places = [(i, e) for i in range(ITEMS) for e in range(3)]
    ids = torch.tensor([task.before(i, e) for i, e in places])
    with torch.no_grad():
        hidden = hf(input_ids=ids, output_hidden_states=True).hidden_states[1][:, -1]
    hidden = hidden + 0.05 * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    labels = {
        "emotion": [EMOTIONS[e] for _, e in places],
        "group": [f"s{i}" for i, _ in places],
        "split": ["test" if i % 3 == 2 else "fit" for i, _ in places],
    }
    made = Provenance("activations", model=model.fingerprint, model_name="planted")
    store = ActivationStore.of({SITE: hidden}, labels, position="last", provenance=made)
    probes = sweep(store, penalties=(0.1,), folds=3, draws=10)
    return Planted(model, store, task, used, decoy, probes)


def along(planted: Planted, directions: torch.Tensor) -> Sweep:
    """The probes turned to directions of one's own."""
    centred = directions - directions.mean(0)
    return replace(planted.probes, weights=centred[None])


def table_of(planted: Planted, probes: Sweep) -> CausalTable:
    tasks = {"follow": planted.task}
    return detect_steer_silence(
        planted.model, probes, planted.store, tasks, sites=[SITE], settings=SETTINGS
    )


@pytest.fixture(scope="module")
def wanted(planted: Planted) -> CausalTable:
    """Of the directions that the model reads."""
    return table_of(planted, along(planted, planted.used))


def test_a_fitted_probe_detects_but_may_steer_no_more_than_random_directions(
    planted: Planted, wanted: CausalTable
) -> None:
    """It holds half of each and less of the rest: in 32 dimensions a random line may do as much."""
    for row, used in zip(table_of(planted, planted.probes).rows, wanted.rows, strict=True):
        assert row.verdict.startswith("detects") and row.erasure == "carries follow"
        assert row.steers.value < 0.7 * used.steers.value
        assert row.steers.low > row.steers.random  # over scenarios it would be called steering


def test_a_planted_direction_is_found_and_detects_steers_and_silences(
    wanted: CausalTable, tmp_path: Path
) -> None:
    found = wanted
    for row in found.rows:
        assert row.verdict == "detects, steers, silences follow"
        assert row.erasure == "carries follow" and row.auroc[0] > 0.95
    found.save(tmp_path / "t.json")
    again = CausalTable.load(tmp_path / "t.json")
    assert again.table_rows() == found.table_rows() and again.provenance == found.provenance
    assert again.brief()["silences"] == 3
    (tmp_path / "bad.json").write_text('{"kind": "causal_table", "tasks": []}')
    with pytest.raises(ArtefactError, match="damaged"):
        CausalTable.load(tmp_path / "bad.json")


def test_a_decoy_detects_only(planted: Planted, wanted: CausalTable) -> None:
    found = table_of(planted, along(planted, planted.decoy))
    for row, used in zip(found.rows, wanted.rows, strict=True):
        assert row.auroc[0] > 0.95 and row.verdict == "detects only"
        # What is left is the length of the stream, by which the norms divide: no gain.
        assert row.steers.value < 0.05 * used.steers.value
        assert row.silences["follow"].value < 0.05 * used.silences["follow"].value
        assert row.erasure == "carries follow"  # both are readable, and one of them is used


def test_margins_are_those_of_plain_passes(planted: Planted) -> None:
    """In the emotion's own context and in another's, pushed and erased by hooks of one's own."""
    model, task = planted.model, planted.task
    x = planted.store.to_torch(SITE)
    stream = Stream.of(SITE, x)
    vector = 0.7 * planted.used[1]
    eraser = fit_leace(x, torch.arange(len(x)) % 3)
    line = Eraser.of_subspace(planted.used[:1], x.mean(0))

    def plain(own: bool, change: Any = None) -> np.ndarray:
        def after(_module: Any, _args: Any, out: Any) -> Any:
            if change is None:
                return out
            return change(out) if isinstance(out, torch.Tensor) else (change(out[0]), *out[1:])

        handle = model.anatomy.blocks[0].block.register_forward_hook(after)
        found = []
        for item in range(ITEMS):
            context = 1 if own else [0, 2][(item + 1) % 2]
            row = [task.before(item, context)] * 3
            with torch.no_grad():
                nll = whole_nll(model, row, [(40,), (41,), (42,)])
            found.append(float(-nll[1] + (nll[0] + nll[2]) / 2))
        handle.remove()
        return np.array(found)

    def held(h: torch.Tensor) -> torch.Tensor:
        away = (h - x.mean(0)) @ planted.used[0]
        return h - away[..., None] * planted.used[0]

    for own in (True, False):
        asked = Asked.of(task, 1, own=own)
        assert asked.scenarios == task.scenarios
        np.testing.assert_allclose(asked.margins(model), plain(own), atol=1e-4)
        for change, hook in (
            (stream.pushed(vector), lambda h: h + vector),
            (stream.erased(eraser), eraser),
            (stream.erased(line), held),
        ):
            np.testing.assert_allclose(asked.margins(model, change), plain(own, hook), atol=1e-4)
    asked = Asked.of(task, 1, own=False)
    steep = slope(asked, model, stream, vector, (-1.0, 0.0, 2.0))
    margins = [plain(False, lambda h, d=d: h + d * vector) for d in (-1.0, 0.0, 2.0)]
    np.testing.assert_allclose(steep, np.polyfit([-1.0, 0.0, 2.0], margins, 1)[0], atol=1e-3)


def test_sinks_are_left_as_they_are(planted: Planted) -> None:
    stream = Stream(SITE, 2.0)
    value = torch.tensor([[[0.1] * D_MODEL, [1.0] * D_MODEL]])
    pushed = stream.pushed(torch.ones(D_MODEL))(value)
    torch.testing.assert_close(pushed[0, 0], value[0, 0] + 1)
    assert pushed[0, 1].equal(value[0, 1])


def test_auroc_is_that_of_sklearn_with_ties() -> None:
    generator = np.random.default_rng(0)
    score = generator.integers(0, 6, 60).astype(float)
    hit = (score + generator.normal(0, 2, 60)) > 2
    groups = [f"g{i // 4}" for i in range(60)]
    value, low, high = _auroc(
        torch.tensor(score), torch.tensor(hit), groups, CausalSettings(resamples=200)
    )
    assert value == pytest.approx(roc_auc_score(hit, score)) and low < value < high
    from affectlens.core.statistics import times_drawn

    names = sorted(set(groups))
    drawn = []
    for times in times_drawn(len(names), 200, 0):
        rows = [i for n, t in zip(names, times, strict=True) for _ in range(int(t))
                for i in range(60) if groups[i] == n]  # fmt: skip
        drawn.append(roc_auc_score(hit[rows], score[rows]))
    assert (low, high) == tuple(pytest.approx(q) for q in np.quantile(drawn, [0.025, 0.975]))


def test_few_scenarios_show_nothing(planted: Planted) -> None:
    """Four that all point one way do so by chance once in eight times."""
    given = (planted.model, along(planted, planted.used), planted.store)
    few = detect_steer_silence(
        *given, {"follow": planted.task.first(4)}, sites=[SITE], settings=SETTINGS
    )
    for row in few.rows:
        assert row.verdict == "detects only" and row.erasure == "carries nothing"
        assert row.steers.low > 0 and row.steers.p >= 2.0**-3


def test_wrong_requests(planted: Planted, tiny_model: Any) -> None:
    tasks = {"follow": planted.task}
    given = (planted.probes, planted.store, tasks)
    with pytest.raises(MismatchError, match="made for model planted"):
        detect_steer_silence(tiny_model("qwen3"), *given)
    with pytest.raises(DataError, match="no task to judge by"):
        detect_steer_silence(planted.model, planted.probes, planted.store, {})
    with pytest.raises(UnknownNameError, match="site"):
        detect_steer_silence(planted.model, *given, sites=["blocks.2.hook_resid_post"])
    with pytest.raises(DataError, match="cannot be written"):
        detect_steer_silence(planted.model, *given, sites=["blocks.0.hook_mlp_out"])
    with pytest.raises(DataError, match="no test split"):
        fit = planted.store.select(split="fit")
        detect_steer_silence(planted.model, planted.probes, fit, tasks)
    odd = {"follow": replace(planted.task, emotions=("anger", "joy", "sadness"))}
    with pytest.raises(UnknownNameError, match="joy"):
        detect_steer_silence(planted.model, planted.probes, planted.store, odd)
    assert conditions(2, 3, 1, SETTINGS) == 3 * (4 * 2 + 2 * 9)
    with pytest.raises(DataError, match="two of them at least"):
        CausalSettings(draws=1)
