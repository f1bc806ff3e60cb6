"""Every method: what it makes, at strength 0, in a batch, in a server's tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from affectlens.activations import capture
from affectlens.circuits.units import KINDS
from affectlens.core import EMOTIONS, DataError, Site
from affectlens.core.errors import UnknownNameError
from affectlens.geometry import directions
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings
from affectlens.pipeline.corpus_files import EXPRESSION, load_corpus
from affectlens.pipeline.run_material import RunMaterial
from affectlens.serving.coefficients import coefficients
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering import SteeringSpec, generate_steered
from affectlens.steering.methods import METHODS, Method, Wording
from affectlens.steering.methods import best_heads as iti
from affectlens.steering.methods.units import require_heads, with_heads
from affectlens.steering.operators import OPERATORS
from affectlens.steering.pack_places import places_of, vectors_at
from affectlens.steering.spec import MODES

STEERING = [name for name, method in METHODS.items() if method.vectors is not None]
DOCS = Path(__file__).parents[2] / "docs" / "steering.md"


@pytest.fixture(scope="module")
def material(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunMaterial:
    model = load_model(str(packed_run / "model"), device="cpu", dtype="float32")
    return RunMaterial(packed_run / "run", model, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def packs(material: RunMaterial) -> dict[str, Any]:
    made: dict[Any, Any] = {}
    for method in METHODS.values():
        if method.vectors is not None and method.vectors not in made:
            made[method.vectors] = method.vectors(material)
    return {name: made[METHODS[name].vectors] for name in STEERING}


def spec(method: Method, emotion: str, strength: float) -> SteeringSpec:
    gate = None if method.gate is None else method.gate.replace("{emotion}", emotion)
    return SteeringSpec(
        {method.aims(emotion, EMOTIONS): strength},
        mode=method.mode,
        operator=method.operator,
        unit="natural",
        gate=gate,
    )


def prompts(material: RunMaterial) -> list[tuple[int, ...]]:
    texts = ("The train was cancelled.", "What a day", "She left him there in the dark rain.")
    return [
        material.model.encode_chat(
            [{"role": "user", "content": text}], add_generation_prompt=True
        ).ids
        for text in texts
    ]


def test_every_row_says_what_it_is() -> None:
    for name, method in METHODS.items():
        assert name == method.name and method.help and method.formula and method.source
        assert method.price and method.use and "\n" not in method.help
        assert method.operator in OPERATORS
        if method.vectors is None:
            assert not method.mode and not method.unit
            continue
        assert method.mode in MODES and method.unit
        share = OPERATORS[method.operator].share
        assert method.strengths[-1] <= (share or 20)
    controls = {name for name, method in METHODS.items() if method.control}
    assert controls == {"random_direction", "other_emotion", "random_units"}


def test_the_table_of_the_docs_is_that_of_the_registry() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for method in METHODS.values():
        told = (method.formula, method.unit or "–", method.source, method.price, method.use)
        cells = (f"`{method.name}`", *(cell.replace("|", r"\|") for cell in told))
        assert f"| {' | '.join(cells)} |" in text, method.name


@pytest.mark.parametrize("name", STEERING)
def test_it_steers_and_at_strength_0_changes_no_bit(
    name: str, packs: dict[str, Any], material: RunMaterial
) -> None:
    method, pack, model = METHODS[name], packs[name], material.model
    assert pack.modes == (method.mode,) and pack.emotions == EMOTIONS
    ids = torch.tensor([prompts(material)[0]])

    def logits(strength: float | None) -> Tensor:
        asked = None if strength is None else spec(method, "anger", strength)
        with torch.no_grad(), pack.steer(model, asked, prompt_lengths=[ids.shape[1]]):
            return model.hf(input_ids=ids).logits

    plain = logits(None)
    assert torch.equal(logits(0.0), plain)
    if method.gate is None:  # a gate may be shut
        assert not torch.equal(logits(method.strengths[-1]), plain)


@pytest.mark.parametrize("name", STEERING)
def test_replies_in_a_batch_are_those_alone(
    name: str, packs: dict[str, Any], material: RunMaterial
) -> None:
    method, pack = METHODS[name], packs[name]
    settings = GenerationSettings(max_new_tokens=6)
    asked = [spec(method, e, method.strengths[-1]) for e in ("anger", "fear", "surprise")]
    together = generate_steered(material.model, pack, prompts(material), asked, settings)
    alone = [
        generate_steered(material.model, pack, [prompt], [one], settings)[0]
        for prompt, one in zip(prompts(material), asked, strict=True)
    ]
    assert together == alone


@pytest.mark.parametrize("name", STEERING)
def test_a_servers_tables_do_the_same_or_refuse(
    name: str, packs: dict[str, Any], material: RunMaterial
) -> None:
    method, pack = METHODS[name], packs[name]
    asked = pack.resolve(spec(replace(method, gate=None), "anger", method.strengths[0]))
    places = places_of(pack)
    vectors = vectors_at(pack, places)
    slots = Slots(places, Capacity(1, vectors.shape[1], 4, pack.d_model), "cpu")
    slots.put_vectors(0, vectors)
    if not OPERATORS[method.operator].served or method.mode == "gradient":
        with pytest.raises(DataError, match="A server cannot do"):
            coefficients(pack, asked, places, vectors)
        return
    slots.write(1, 0, coefficients(pack, asked, places, vectors))
    slots.set_rows(torch.ones(4, dtype=torch.long))
    hidden = torch.randn(4, pack.d_model, generator=torch.Generator().manual_seed(0))
    table = pack.table([asked])
    assert table.sites
    for place, site in table.sites.items():
        ours = site.apply(hidden[None], torch.tensor([1]), None)[0]
        torch.testing.assert_close(slots.apply_at(places.index(place), hidden), ours)


def test_what_is_refined_by_preference_is_not_what_likelihood_gives(packs: dict[str, Any]) -> None:
    for one, other in (("reps", "likelihood"), ("circuit_reps", "circuit")):
        for name, vectors in packs[one].vectors.items():
            if name in packs[other].vectors:
                assert not torch.allclose(vectors, packs[other].vectors[name])
    assert packs["rotation"] is packs["likelihood"]


def test_the_other_emotion_is_never_the_target() -> None:
    aims = METHODS["other_emotion"].aims
    steered = [aims(e, EMOTIONS) for e in EMOTIONS]
    assert sorted(steered) == sorted(EMOTIONS)
    assert all(a != b for a, b in zip(steered, EMOTIONS, strict=True))


def test_attention_output_is_the_mean_difference_of_what_attention_adds(
    packs: dict[str, Any], material: RunMaterial
) -> None:
    """What heads add up to, against what attention was seen to put out."""
    corpus = load_corpus(material.folder / EXPRESSION)
    places = [Site(layer, "attn_out") for layer in material.layers]
    seen = capture(material.model, corpus, sites=places, positions="mean:reply")
    wanted = directions(seen, emotions=EMOTIONS, sites=places, splits=0).centroid()
    got = packs["attention_output"].vectors["circuit.o_proj_out"]
    assert packs["attention_output"].layers["circuit.o_proj_out"] == material.layers
    torch.testing.assert_close(got, wanted.transpose(0, 1), atol=2e-4, rtol=2e-3)


def test_the_area_under_the_curve_is_scikit_learns_and_shifts_are_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randn(4, 60, 5, generator=generator)
    x[2] += 3 * torch.nn.functional.one_hot(y, 5).float()  # one head hears, the others do not
    score, positive = torch.randn(4, 60, generator=generator).round(decimals=1), y == 1
    wanted = [roc_auc_score(positive, row) for row in score]
    np.testing.assert_allclose(iti._area(score, positive), wanted, rtol=1e-6)

    held = torch.arange(60) % 2 == 1
    heard = iti.heard_by(x, y, held, 3)
    assert heard.shape == (3, 4) and heard.argmax(1).tolist() == [2, 2, 2]
    assert float(heard[:, 2].min()) > 0.9

    shifts = iti.mass_mean(x, y, 3).numpy()
    for c in range(3):
        for h in range(4):
            rows = x[h].numpy()
            theta = rows[y == c].mean(0) - rows[y != c].mean(0)
            theta = theta / np.linalg.norm(theta)
            np.testing.assert_allclose(
                shifts[c, h], (rows @ theta).std() * theta, rtol=1e-4, atol=1e-5
            )


def test_best_heads_writes_those_that_are_heard_best(
    packs: dict[str, Any], material: RunMaterial
) -> None:
    circuit = material.circuit(refined=False)
    scores, shift = iti.head_shifts(material, circuit)
    assert scores.shape == circuit.head_scores.shape and bool((scores.amax() <= 1).all())
    pack, model = packs["best_heads"], material.model
    count = len(circuit.heads["fear"])
    e = EMOTIONS.index("fear")
    best = scores[e].flatten().topk(count).indices
    for layer in range(model.n_layers):
        wanted = torch.zeros(model.d_model)
        for i in best.tolist():
            if i // circuit.n_heads == layer:
                h, d = i % circuit.n_heads, circuit.d_head
                weight = model.anatomy.blocks[layer].o_proj.weight[:, h * d : (h + 1) * d]
                wanted += (weight @ shift[e, layer, h * d : (h + 1) * d]).detach()
        name = "circuit.o_proj_out"
        got = torch.zeros(model.d_model)
        if layer in pack.layers[name]:
            got = pack.vectors[name][e, pack.layers[name].index(layer)]
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_a_model_without_heads_is_refused_in_a_sentence(material: RunMaterial) -> None:
    circuit = material.circuit(refined=False)
    sizes = circuit.sizes.clone()
    sizes[:, KINDS.index("heads")] = 0
    with pytest.raises(DataError, match=r"best_heads steers attention heads, .* leave it out"):
        require_heads(replace(circuit, sizes=sizes), "best_heads")
    with pytest.raises(DataError, match="no head 99 in block 0"):
        with_heads(circuit, {e: [(0, 99)] for e in EMOTIONS}, how="x")


def test_a_gate_is_in_the_pack(packs: dict[str, Any]) -> None:
    pack = packs["until_heard"]
    found = pack.resolve(spec(METHODS["until_heard"], "fear", 1.0))
    assert str(found.gate) == "fear<0.5" and pack.deciders is not None


def test_neutral_axes_are_gone(packs: dict[str, Any], material: RunMaterial) -> None:
    pack = packs["neutral_removed"]
    for i, layer in enumerate(material.layers):
        rows = material.neutral_rows.to_torch(Site(layer, "resid_post")).double().numpy()
        _, sizes, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        share = (sizes**2).cumsum() / (sizes**2).sum()
        basis = axes[: int((share < 0.5).sum()) + 1]
        inside = pack.vectors["residual.resid_post"][:, i].double().numpy() @ basis.T
        assert np.abs(inside).max() < 1e-4


def test_the_mean_difference_is_to_the_neutral_reply(
    packs: dict[str, Any], material: RunMaterial
) -> None:
    store = material.matched
    place = Site(material.layers[0], "resid_post")
    rows = store.to_torch(place)
    labels, groups = store.column("emotion"), store.column("group")
    neutral = {g: rows[i] for i, (e, g) in enumerate(zip(labels, groups, strict=True))
               if e == "neutral"}  # fmt: skip
    apart = [rows[i] - neutral[g] for i, (e, g) in enumerate(zip(labels, groups, strict=True))
             if e == "anger"]  # fmt: skip
    wanted = torch.stack(apart).mean(0)
    got = packs["mean_difference"].vectors["residual.resid_post"][EMOTIONS.index("anger"), 0]
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-3)


def test_a_wording_asks_for_the_emotion() -> None:
    assert Wording("w", "Be {emotion}, {emotion}!").asks("fear") == "Be fear, fear!"
    assert Wording("w", examples=2).asks("fear") is None
    for method in METHODS.values():
        names = [wording.name for wording in method.wordings]
        assert len(set(names)) == len(names)
        for wording in method.wordings:
            assert wording.system is None or "{emotion}" in wording.system


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "neither steers nor asks"),
        ({"vectors": len}, "needs vectors and strengths"),
        ({"vectors": len, "strengths": (1.0,)}, "must rise, at least two"),
        ({"vectors": len, "strengths": (2.0, 1.0)}, "must rise"),
    ],
)
def test_a_row_that_cannot_be_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Method("toy", "toy", "f", "u", "s", "p", "w", **fields)
    with pytest.raises(UnknownNameError, match=r"method 'resp'.*reps"):
        METHODS["resp"]
