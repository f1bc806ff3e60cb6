"""Scores by slopes: against finite differences, exact effects of linear models, and each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affectlens.circuits.attribution.edge_scores import EdgeScores
from affectlens.circuits.attribution.edges import EdgeSettings, edge_scores
from affectlens.circuits.attribution.gradients import GradientSettings, gradient_scores
from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.scores import Agreement, UnitScores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.attribution.total_effect import total_effects
from affectlens.circuits.attribution.weights import float32_gradients
from affectlens.circuits.interventions import (
    Edge,
    Intervention,
    Receiver,
    heads,
    patching_edges,
    replace,
)
from affectlens.circuits.tasks import CarryOver
from affectlens.circuits.tasks.pairs import Pair
from affectlens.core.errors import ArtefactError, DataError, UnknownNameError
from affectlens.models.loading import load_model
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.conftest import tiny_hf, tiny_tokenizer

SMOOTH = ("llama", "gemma3", "gpt_neox", "olmo2")


def parts(model: Any) -> Any:
    task = CarryOver.of(model, corpus(2), EMOTIONS, named=True)
    return task, unit_means(model, corpus(), EMOTIONS, position="mean:reply")


def pairs_of(task: Any, emotion: str, seed: int = 0) -> list[Any]:
    """Clean texts, and the same with other tokens in their contexts."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for item, text in enumerate(task.texts(emotion)):
        others: dict[Any, Any] = {}
        corrupt = []
        for weight, (context, told) in text:
            new = others.setdefault(
                context,
                tuple(torch.randint(4, 190, (len(context),), generator=generator).tolist()),
            )
            corrupt.append((weight, (new, told)))
        made.append(Pair(item, emotion, "other", text, tuple(corrupt)))
    return made


@pytest.fixture(scope="module")
def llama(tiny_model: Any) -> Any:
    model = tiny_model("llama")
    return model, *parts(model)


class _Linear:
    """A task whose objective is linear in the model's last state."""

    name, emotions, scenarios, fingerprint = "linear", ("fear",), ("a", "b"), "linear"

    def __init__(self, task: Any, d_model: int) -> None:
        self._texts = task.texts("fear")
        self.v = torch.randn(d_model, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self._texts)

    def texts(self, _emotion: str) -> Any:
        return self._texts

    def objective(self, model: Any, _emotion: str, rows: Any) -> Tensor:
        ids, mask = model.encode_batch([[*c, *t] for _, (c, t) in rows], side="right")
        out = model.anatomy.base(input_ids=ids, attention_mask=mask, use_cache=False)
        weights = torch.tensor([weight for weight, _ in rows])
        ends = mask.sum(1) - 1
        return (weights * (out.last_hidden_state[torch.arange(len(ids)), ends] @ self.v)).sum()


@pytest.fixture(scope="module")
def linear() -> Any:
    """GPT-2 with no norms, linear neurons, and attention that looks everywhere alike."""
    hf = tiny_hf("gpt2", activation_function="linear")
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
        with torch.no_grad():
            block.attn.c_attn.weight[:, :64] = 0
            block.attn.c_attn.bias[:64] = 0
    hf.transformer.ln_f = nn.Identity()
    model = load_model(hf, tokenizer=tiny_tokenizer())
    task, means = parts(model)
    return model, _Linear(task, model.d_model), means, pairs_of(task, "fear")


@pytest.mark.parametrize(("path", "steps"), [("none", 1), ("inputs", 1), ("activations", 3)])
def test_on_a_linear_model_scores_are_exact(linear: Any, path: str, steps: int) -> None:
    model, task, means, pairs = linear
    exact = total_effects(model, task, means, ["fear"])
    against = Against(pairs={"fear": pairs}) if path == "inputs" else Against(means)
    found = gradient_scores(model, task, against, ["fear"], GradientSettings(path, steps))
    if path != "inputs":
        torch.testing.assert_close(found.heads, exact, rtol=1e-3, atol=1e-4)
        whole = total_effects(model, task, means, ["fear"], kind="sublayers")
        torch.testing.assert_close(found.sublayers, whole, rtol=1e-3, atol=1e-4)
        return
    # The embedding is all that differs: what the edges of all senders are worth is the difference.
    edges = edge_scores(model, task, against, ["fear"], EdgeSettings(steps=steps))
    with torch.no_grad():
        wanted = torch.stack(
            [
                task.objective(model, "fear", pair.clean)
                - task.objective(model, "fear", pair.corrupt)
                for pair in pairs
            ]
        ).mean()
    last = edges.receivers.index(Receiver(model.n_layers, "final"))
    assert float(edges.into()[0, last]) == pytest.approx(float(wanted), rel=1e-3)
    assert float(edges.out_of()[0, 0]) == pytest.approx(float(wanted), rel=1e-3)


def test_one_edge_of_a_linear_model_is_its_patch(linear: Any) -> None:
    model, task, means, _ = linear
    edges = edge_scores(model, task, Against(means), ["fear"])
    corrected = edge_scores(model, task, Against(means), ["fear"], EdgeSettings(corrected=True))
    at, mask = heads(model, 0, [1])
    sender = Intervention(at, replace(means.mean("heads").mean(0)[0]), mask)
    u = [one.name for one in edges.senders].index("head 0.1")
    for receiver in (Receiver(1, "attn"), Receiver(1, "mlp"), Receiver(3, "final")):
        v = edges.receivers.index(receiver)
        with torch.no_grad():
            clean = torch.stack([task.objective(model, "fear", t) for t in task.texts("fear")])
            with patching_edges(model, [Edge(sender, receiver)]):
                changed = [task.objective(model, "fear", t) for t in task.texts("fear")]
        wanted = float((clean - torch.stack(changed)).mean())
        assert float(edges.values[0, u, v]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        assert float(corrected.values[0, u, v]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", SMOOTH)
def test_edges_out_of_a_node_sum_to_the_node_and_into_one_to_what_it_reads(
    tiny_model: Any, family: str
) -> None:
    model = tiny_model(family)
    task, means = parts(model)
    nodes = gradient_scores(model, task, Against(means), ["fear"])
    edges = edge_scores(model, task, Against(means), ["fear"])
    sums = dict(zip([s.name for s in edges.senders], edges.out_of()[0].tolist(), strict=True))
    for layer in range(3):
        for head in range(4):
            wanted = float(nodes.heads[0, layer, head])
            assert sums[f"head {layer}.{head}"] == pytest.approx(wanted, rel=2e-3, abs=2e-5)
        wanted = float(nodes.sublayers[0, layer, 1])
        assert sums[f"mlp {layer}"] == pytest.approx(wanted, rel=2e-3, abs=2e-5)
    assert bool(edges.values[0, 1:5, 0].isnan().all())  # heads of block 0 come after it reads

    pairs = pairs_of(task, "fear")
    paired = edge_scores(model, task, Against(pairs={"fear": pairs}), ["fear"])
    parallel = not model.anatomy.has_resid_mid
    if family in ("gemma3", "olmo2"):  # norms after sublayers are no sums
        return
    reads = _read_scores(model, task, pairs)
    for v, receiver in enumerate(paired.receivers):
        if receiver != Receiver(0, "attn") and not (parallel and receiver.layer == 0):
            found = float(paired.into()[0, v])
            assert found == pytest.approx(reads[receiver], rel=2e-3, abs=2e-5)


def _read_scores(model: Any, task: Any, pairs: Any) -> dict[Receiver, float]:
    """``<what is read, clean minus corrupt, slope by way of it>``, from plain captures."""
    from affectlens.circuits.attribution.slopes import Asked, slopes
    from affectlens.circuits.interventions.receivers import reading_otherwise, receivers
    from affectlens.circuits.side_by_side import prepare

    readings, total = receivers(model), {}
    for pair in pairs:
        ready = prepare(model, task, "fear", [pair.clean, pair.corrupt])
        seen: list[dict[Any, Tensor]] = []
        for (runs,) in ready:
            kept: dict[Any, Tensor] = {}

            def keep(stream: Tensor, key: Any, kept: dict[Any, Tensor] = kept) -> Tensor:
                kept[key] = stream.clone()
                return stream

            reads = {key: lambda x, key=key, keep=keep: keep(x, key) for key in readings}
            with torch.no_grad(), reading_otherwise(model, readings, reads):
                runs()
            seen.append(kept)
        found = slopes(model, ready[0][0], Asked(receivers=readings))
        for key, slope in found.reads.items():
            value = float(((seen[0][key] - seen[1][key]) * slope).sum()) / len(pairs)
            total[key] = total.get(key, 0.0) + value
    return total


def test_one_step_is_the_plain_score_and_many_come_closer(llama: Any) -> None:
    model, task, means = llama
    emotions = EMOTIONS[:2]
    plain = gradient_scores(model, task, Against(means), emotions)
    one = gradient_scores(model, task, Against(means), emotions, GradientSettings("activations", 1))
    torch.testing.assert_close(one.neurons, plain.neurons, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(one.heads, plain.heads, rtol=1e-3, atol=1e-6)
    many = gradient_scores(
        model, task, Against(means), emotions, GradientSettings("activations", 10)
    )
    exact = total_effects(model, task, means, emotions, kind="sublayers")
    error = [float((scores.sublayers - exact).abs().mean()) for scores in (plain, many)]
    assert error[1] < 0.35 * error[0]
    scores = [plain, many, one]
    agreement = Agreement.of(scores)
    frame = agreement.to_pandas()
    assert len(frame) == 3 * 3 * 2 and frame.spearman.between(-1, 1).all()
    assert agreement.mean(plain.method, one.method, "heads") == pytest.approx(1.0)
    assert agreement.mean(plain.method, many.method, "neurons") < 0.9999
    from scipy.stats import spearmanr

    a, b = plain.heads[0].flatten().numpy(), many.heads[0].flatten().numpy()
    found = frame[(frame.emotion == EMOTIONS[0]) & (frame.kind == "heads")].iloc[0].spearman
    assert found == pytest.approx(spearmanr(a, b).statistic)


def test_dropped_gradients_are_means_of_magnitudes(llama: Any) -> None:
    """Of one text: nothing is dropped behind the last block; before it, by hand."""
    model, task, means = llama
    task, against = task.first(1), Against(means)
    plain = gradient_scores(model, task, against, ["fear"])
    dropped = gradient_scores(model, task, against, ["fear"], GradientSettings(drop=True))
    assert torch.equal(dropped.heads.sign(), plain.heads.sign())
    torch.testing.assert_close(dropped.neurons[:, 2], plain.neurons[:, 2], rtol=1e-3, atol=1e-6)
    edges = edge_scores(model, task, against, ["fear"])
    u = [one.name for one in edges.senders].index("mlp 1")
    row = edges.values[0, u]
    direct = abs(float(row[-1]))  # block 2 dropped: the unembedding is left
    total = abs(float(row.nan_to_num().sum()))
    sums = plain.neurons[0, 1].sum()
    assert abs(float(sums)) == pytest.approx(total, rel=1e-3)
    from affectlens.circuits.attribution.slopes import Asked, slopes
    from affectlens.circuits.interventions.receivers import receivers
    from affectlens.circuits.side_by_side import prepare
    from affectlens.core.places import WritePoint

    constant = {r: way for r, way in receivers(model).items() if r.layer == 2}
    ((runs,),) = prepare(model, task, "fear", task.texts("fear"))
    at = WritePoint(1, "down_proj_in")
    found = slopes(model, runs, Asked(at=[at], constant=constant))
    mean = means.mean("neurons").mean(0)[1]
    each = ((found.values[at] - mean) * found.slopes[at]).sum((0, 1))
    assert abs(float(each.sum())) == pytest.approx(direct, rel=1e-3)
    wanted = (each.abs() + 2 * plain.neurons[0, 1].abs()) / 3
    torch.testing.assert_close(dropped.neurons[0, 1].abs(), wanted, rtol=1e-3, atol=1e-6)


def test_corrected_attention_is_what_attention_does(llama: Any) -> None:
    """One sender, one attention: its heads when it reads the change, times the slope there."""
    model, task, means = llama
    edges = edge_scores(model, task, Against(means), ["fear"], EdgeSettings(corrected=True))
    plain = edge_scores(model, task, Against(means), ["fear"])
    u = [one.name for one in edges.senders].index("head 0.1")
    attn, mlp = (edges.receivers.index(Receiver(2, part)) for part in ("attn", "mlp"))
    assert float(edges.values[0, u, mlp]) == pytest.approx(float(plain.values[0, u, mlp]))
    from affectlens.circuits.attribution.slopes import Asked, slopes
    from affectlens.circuits.side_by_side import prepare
    from affectlens.core.places import WritePoint

    at, mask = heads(model, 0, [1])
    edge = Edge(
        Intervention(at, replace(means.mean("heads").mean(0)[0]), mask), Receiver(2, "attn")
    )
    z, total = WritePoint(2, "o_proj_in"), 0.0
    texts = task.texts("fear")
    for (runs,) in prepare(model, task, "fear", texts):
        found = slopes(model, runs, Asked(at=[z]))
        kept: list[Tensor] = []
        part = model.anatomy.blocks[2]
        handle = part.o_proj.register_forward_pre_hook(lambda _m, a, kept=kept: kept.append(a[0]))
        with torch.no_grad(), patching_edges(model, [edge]):
            runs()
        handle.remove()
        total += float(((found.values[z] - kept[-1]) * found.slopes[z]).sum()) / len(texts)
    assert float(edges.values[0, u, attn]) == pytest.approx(total, rel=1e-3, abs=1e-6)


def test_they_are_saved(llama: Any, tmp_path: Any) -> None:
    model, task, means = llama
    edges = edge_scores(model, task, Against(means), ["fear"])
    edges.save(tmp_path / "edges.safetensors")
    again = EdgeScores.load(tmp_path / "edges.safetensors")
    torch.testing.assert_close(again.values, edges.values, equal_nan=True)
    assert again.senders == edges.senders and again.receivers == edges.receivers
    top = edges.strongest("fear", 5)
    sizes = [abs(edge.score) for edge in top]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(float(edges.values.nan_to_num().abs().max()))
    assert list(edges.to_pandas().columns) == ["emotion", "sender", "receiver", "score"]
    nodes = gradient_scores(model, task, Against(means), ["fear"])
    nodes.save(tmp_path / "nodes.safetensors")
    torch.testing.assert_close(UnitScores.load(tmp_path / "nodes.safetensors").heads, nodes.heads)
    frame = nodes.to_pandas()
    assert frame.kind.value_counts().to_dict() == {"neurons": 50, "heads": 12, "sublayers": 6}
    first = frame[frame.kind == "neurons"].iloc[0]
    assert float(nodes.neurons[0, first.layer, first["index"]]) == pytest.approx(first.score)
    with pytest.raises(ArtefactError):
        EdgeScores.load(tmp_path / "nodes.safetensors")


def test_half_precision_is_widened_and_put_back(tiny_model: Any) -> None:
    model = load_model(tiny_hf("llama").to(torch.bfloat16), tokenizer=tiny_tokenizer())
    before = {name: p.detach().clone() for name, p in model.hf.named_parameters()}
    with float32_gradients(model):
        assert model.dtype == torch.float32
        assert not any(p.requires_grad for p in model.hf.parameters())
    for name, p in model.hf.named_parameters():
        assert p.dtype == torch.bfloat16 and torch.equal(p, before[name]) and p.requires_grad
    task, means = parts(model)
    scores = gradient_scores(model, task, Against(means), ["fear"])
    wide = load_model(tiny_hf("llama").to(torch.bfloat16).float(), tokenizer=tiny_tokenizer())
    wanted = gradient_scores(wide, task, Against(means), ["fear"])
    torch.testing.assert_close(scores.heads, wanted.heads, rtol=1e-3, atol=1e-5)


def test_bad_input_is_one_sentence(llama: Any) -> None:
    model, task, means = llama
    with pytest.raises(DataError, match="give one"):
        Against()
    with pytest.raises(DataError, match="give pairs"):
        gradient_scores(model, task, Against(means), ["fear"], GradientSettings("inputs"))
    with pytest.raises(DataError, match="give pairs"):
        edge_scores(model, task, Against(means), ["fear"], EdgeSettings(steps=2))
    with pytest.raises(DataError, match="no pair of texts for anger"):
        against = Against(pairs={"fear": pairs_of(task, "fear")})
        gradient_scores(model, task, against, ["anger"])
    text = task.texts("fear")[0]
    shorter = tuple((weight, (context[1:], told)) for weight, (context, told) in text)
    uneven = Pair(0, "fear", "anger", text, shorter)
    with pytest.raises(DataError, match="equal length in tokens"):
        gradient_scores(model, task, Against(pairs={"fear": [uneven]}), ["fear"])
    with pytest.raises(UnknownNameError, match="path"):
        GradientSettings("outputs")
    with pytest.raises(DataError, match="one step or more"):
        GradientSettings("inputs", 0)
    with pytest.raises(DataError, match="path='none'"):
        GradientSettings("inputs", drop=True)
    with pytest.raises(DataError, match="steps=1"):
        EdgeSettings(steps=2, corrected=True)
    with pytest.raises(DataError, match="at least two"):
        Agreement.of([])
