"""Steps of a classifier against autograd, and that they lower its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from affectlens.core import AffectLensError, ArtefactError, DataError, Provenance
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.core.places import WritePoint
from affectlens.models.generation.generation import GenerationSettings
from affectlens.serving.coefficients import coefficients
from affectlens.serving.door import Door
from affectlens.serving.settings import Settings
from affectlens.steering import SteeringPack, generate_steered
from affectlens.steering.bands import banded, length_of, within
from affectlens.steering.classifier import Classifier, mean_steps
from affectlens.steering.exporting import export_vectors
from affectlens.steering.methods.k_steering import classifier_of
from affectlens.steering.methods.random_pack import random_pack as random_directions
from affectlens.steering.pack_places import places_of, vectors_at
from tests.steering.oracle import EMOTIONS, PROMPTS, random_pack, steered_at

NAME, LAYERS, HIDDEN = "gradient.resid_post", (0, 2), 7


def classifier(d: int, seed: int = 0) -> Classifier:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int, size: float = 1.0) -> Tensor:
        return torch.randn(len(LAYERS), *shape, generator=generator) * size

    k = len(EMOTIONS)
    return Classifier(
        drawn(HIDDEN, d, size=d**-0.5),
        drawn(HIDDEN),
        drawn(k, HIDDEN),
        drawn(k),
        torch.tensor([0.8, 2.5]),
    )


def gradient_pack(model: Any, seed: int = 0) -> SteeringPack:
    """The third emotion is not steered after the first block."""
    made = classifier(model.d_model, seed)
    vectors = mean_steps(made, torch.zeros(len(LAYERS), model.d_model))
    vectors[2, 0] = 0
    return SteeringPack(
        emotions=EMOTIONS,
        vectors={NAME: vectors},
        classifier=made,
        layers={NAME: LAYERS},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"gradient": {"anger": 1.0, "fear": 0.5, "happiness": 2.0}},
        positions={"gradient": "last_prompt+generated"},
        provenance=Provenance("pack", model=model.fingerprint, model_name="tiny"),
    )


def loss(made: Classifier, i: int, hidden: Tensor, weights: Mapping[str, float]) -> Tensor:
    """As the module says it, layer by layer with torch's own functions, in double precision."""
    inner, bias, outer, outer_bias = (
        x[i].double() for x in (made.inner, made.inner_bias, made.outer, made.outer_bias)
    )
    logits = F.linear(F.relu(F.linear(hidden, inner, bias)), outer, outer_bias)
    said = F.log_softmax(logits, -1)
    return -sum(s * said[..., EMOTIONS.index(e)] for e, s in weights.items()).sum()


def descended(made: Classifier, i: int, hidden: Tensor, weights: Mapping[str, float]) -> Tensor:
    """``h − η ∇ loss``, by autograd."""
    with torch.enable_grad():
        free = hidden.detach().double().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(made, i, free, weights), free)
    return (free - made.step[i] * slope).detach().to(hidden.dtype)


MIXTURES = (
    {"anger": 1.0},
    {"fear": -0.7},
    {"anger": 1.0, "fear": -1.0},
    {"anger": 0.5, "fear": 0.8, "happiness": -0.4},
    {"anger": 1.0, "fear": 1.0, "happiness": 1.0},
)


@pytest.mark.parametrize("weights", MIXTURES)
def test_a_step_is_autograds(weights: dict[str, float]) -> None:
    made = classifier(16)
    hidden = torch.randn(5, 4, 16, generator=torch.Generator().manual_seed(1)) * 2
    signed = torch.tensor([weights.get(e, 0.0) for e in EMOTIONS])
    for i in range(len(LAYERS)):
        found = hidden + made.step[i] * made.ascent(hidden, signed, i)
        torch.testing.assert_close(found, descended(made, i, hidden, weights), atol=1e-5, rtol=1e-5)
        # And the slope that autograd gives is the loss's own.
        plain = hidden.double()
        step = 1e-3 * (descended(made, i, hidden, weights).double() - plain)
        up, down = (float(loss(made, i, plain + sign * step, weights)) for sign in (1, -1))
        slope = -float((step / made.step[i]).square().sum()) * 1e3 * float(made.step[i])
        assert (up - down) / 2 == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("weights", MIXTURES)
def test_it_lowers_its_classifiers_loss(weights: dict[str, float]) -> None:
    made = classifier(16)
    hidden = torch.randn(64, 16, generator=torch.Generator().manual_seed(1)) * 2
    signed = torch.tensor([weights.get(e, 0.0) for e in EMOTIONS])
    for i in range(len(LAYERS)):
        before = float(loss(made, i, hidden.double(), weights))
        losses = []
        for strength in (0.02, 0.05, 0.1):
            moved = hidden + strength * made.step[i] * made.ascent(hidden, signed, i)
            losses.append(float(loss(made, i, moved.double(), weights)))
        assert before > losses[0] > losses[1] > losses[2]


def slow_logits(
    model: Any, pack: SteeringPack, ids: list[int], prompt: int, weights: dict[str, float],
    positions: str,
) -> Tensor:  # fmt: skip
    assert pack.classifier is not None
    made, handles = pack.classifier, []
    for i, block in enumerate(LAYERS):
        here = {e: s for e, s in weights.items() if (e, block) != ("happiness", 0)}

        def hook(_module: Any, _args: Any, output: Any, i: int = i, here: Any = here) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            for t in range(hidden.shape[1]):
                if here and steered_at(positions, t, prompt):
                    hidden[0, t] = descended(made, i, hidden[0, t], here)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(model.anatomy.blocks[block].block.register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("positions", ["all", "last_prompt+generated", "prompt"])
def test_a_model_is_steered_as_by_plain_hooks(family: str, positions: str, tiny_model: Any) -> None:
    model = tiny_model(family)
    pack, ids = gradient_pack(model), [5, 17, 33, 90, 12, 61]
    plain = model.hf(input_ids=torch.tensor([ids])).logits[0].detach()
    for weights in (*MIXTURES[:4], {"happiness": 1.5}):
        wanted = slow_logits(model, pack, ids, 4, weights, positions)
        spec = {"weights": weights, "unit": "natural", "positions": positions}
        with torch.inference_mode(), pack.steer(model, spec, prompt_lengths=[4]):
            found = model.hf(input_ids=torch.tensor([ids])).logits[0]
        torch.testing.assert_close(found, wanted, atol=5e-4, rtol=5e-4)
        assert torch.dist(found, plain) > 0.05


def test_strength_0_changes_no_bit_and_doses_are_recommended(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack, ids = gradient_pack(model), torch.tensor([[5, 17, 33, 90]])

    def logits(spec: Any) -> Tensor:
        with torch.no_grad(), pack.steer(model, spec, prompt_lengths=[2]):
            return model.hf(input_ids=ids).logits

    plain = model.hf(input_ids=ids).logits.detach()
    for nothing in (None, "none", "anger=0", "anger=0,fear=0;mode=gradient;unit=natural"):
        assert torch.equal(logits(nothing), plain)
    assert torch.equal(logits("happiness=0.5"), logits("happiness=1;unit=natural"))
    assert torch.equal(logits("anger=1")[:, 0], plain[:, 0])
    assert not torch.equal(logits("anger=1"), plain)


def test_rows_of_a_batch_take_their_own_steps(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = SteeringPack.merge(random_pack(model), gradient_pack(model))
    assert pack.modes == ("residual", "circuit", "gradient")
    specs = [
        "anger=2;mode=gradient",
        "anger=0.4,fear=1,happiness=-0.3;mode=gradient",
        "none",
        "fear=1;mode=residual",
        "anger=-1,fear=1;mode=gradient;unit=natural",
        "anger=0.5;mode=circuit",
    ]
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(specs))]
    settings = GenerationSettings(max_new_tokens=6)
    together = generate_steered(model, pack, prompts, specs, settings)
    alone = [
        generate_steered(model, pack, [prompt], [spec], settings)[0]
        for prompt, spec in zip(prompts, specs, strict=True)
    ]
    assert together == alone and len(set(together)) > 3


def test_what_is_saved_is_loaded_or_refused(tiny_model: Any, tmp_path: Any) -> None:
    model, path = tiny_model("llama"), tmp_path / "pack.safetensors"
    pack = SteeringPack.merge(random_pack(model), gradient_pack(model))
    pack.save(path)
    again = SteeringPack.load(path, model)
    assert again.fingerprint == pack.fingerprint and again.classifier is not None
    assert pack.classifier is not None
    for name, tensor in pack.classifier.parts().items():
        assert torch.equal(again.classifier.parts()[name], tensor)
    other = replace(pack, classifier=classifier(model.d_model, 1))
    assert other.fingerprint != pack.fingerprint
    file = read_tensors(path, "pack")
    for leave_out in ("classifier.inner", "classifier.step", NAME):
        tensors = {name: x for name, x in file.tensors.items() if name != leave_out}
        write_tensors(path, tensors, file.provenance, file.extra)
        with pytest.raises(ArtefactError, match="damaged"):
            SteeringPack.load(path)


def test_what_does_not_fit_is_refused_in_one_sentence(tiny_model: Any, tmp_path: Any) -> None:
    model = tiny_model("llama")
    pack, made = gradient_pack(model), classifier(model.d_model)

    def refused(sentence: str, **fields: Any) -> None:
        with pytest.raises(DataError, match=sentence) as caught:
            replace(pack, **fields)
        assert "\n" not in str(caught.value)

    def with_part(name: str, tensor: Tensor) -> Any:
        return {"classifier": replace(made, **{name: tensor})}

    nan = made.outer.clone()
    nan[0, 0, 0] = torch.nan
    refused("outer .* holds NaN", **with_part("outer", nan))
    refused("outer .* shape", **with_part("outer", made.outer[:, :2]))
    refused("inner .* shape", **with_part("inner", made.inner[..., 1:]))
    refused("inner_bias .* shape", **with_part("inner_bias", made.inner_bias[:, 1:]))
    refused("inner .* shape", **with_part("inner", made.inner[0]))
    refused("inner_bias .* shape", **with_part("inner_bias", made.inner_bias[0]))
    refused("step .* shape", **with_part("step", torch.ones(3)))
    refused("lacks a classifier", classifier=None)
    with pytest.raises(DataError, match="lacks vectors, of gradient"):
        replace(random_pack(model), classifier=made)
    for spec, sentence in (
        ("anger=1;operator=clamp", "operator=clamp"),
        ("anger=1;unit=raw", "unit=raw"),
        ("angr=1", "anger"),
        ({"anger": float("nan")}, "nan"),
        ({"anger": float("inf")}, "inf"),
    ):
        with pytest.raises(AffectLensError, match=sentence) as caught:
            pack.resolve(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="mode gradient does"):
        export_vectors(pack, "anger=1", tmp_path / "v.safetensors", "safetensors")
    with pytest.raises(DataError, match="no directions to draw"):
        random_directions(pack, "gradient")
    with pytest.raises(DataError, match="bands of one emotion"):
        banded(pack, "anger", {"a": {"gradient": (0,)}})
    # Other modes beside it have their bands.
    point = "residual.resid_post"
    both = replace(
        pack,
        vectors={**pack.vectors, point: torch.ones(len(pack.emotions), 1, pack.d_model)},
        layers={**pack.layers, point: (1,)},
        recommended={**pack.recommended, "residual": dict.fromkeys(pack.emotions, 1.0)},
        positions={**pack.positions, "residual": "all"},
    )
    apart = banded(both, "anger", {"a": {"residual": (1,)}, "b": {}})
    assert apart.modes == ("residual",) and apart.classifier is None
    assert apart.vectors[point].ne(0).any(-1).tolist() == [[True], [False]]
    assert length_of(both, "gradient", "anger", both.layers["gradient.resid_post"]) == 1
    assert length_of(both, "gradient", "anger", (99,)) == 0
    late = within(pack, "gradient", "anger", [2])
    assert list(late.table(["anger=1"]).sites) == [WritePoint(2, "resid_post")]


def test_servers_refuse_steps_and_serve_the_rest(tiny_model: Any, tmp_path: Any) -> None:
    model, path = tiny_model("llama"), tmp_path / "pack.safetensors"
    pack = SteeringPack.merge(random_pack(model), gradient_pack(model))
    pack.save(path)
    door = Door(Settings({"p": str(path)}))
    with pytest.raises(DataError, match="cannot do mode=gradient") as caught:
        door.understand({"affectlens": "anger=1;mode=gradient"})
    assert "\n" not in str(caught.value)
    assert door.understand({"affectlens": "anger=1;mode=residual"}) is not None
    places = places_of(pack)
    vectors = vectors_at(pack, places)
    assert torch.equal(vectors, vectors_at(random_pack(model), places))
    with pytest.raises(DataError, match="cannot do mode=gradient"):
        coefficients(pack, pack.resolve("anger=1;mode=gradient"), places, vectors)


def test_a_fitted_classifier_knows_its_rows_and_steps_a_natural_dose() -> None:
    generator = torch.Generator().manual_seed(0)
    emotion = torch.arange(90) % 3
    centres = torch.randn(3, 12, generator=generator) * 2
    rows = torch.stack(
        [centres[emotion] + torch.randn(90, 12, generator=generator) * size for size in (0.3, 0.5)]
    )
    doses = torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])
    made = classifier_of(rows, emotion, doses)
    for i in range(2):
        said = made.logits(rows[i], i)
        assert float((said.argmax(-1) == emotion).float().mean()) > 0.95
        lengths = []
        for e in range(3):
            free = rows[i].double().requires_grad_(True)
            target = {EMOTIONS[e]: 1.0}
            (slope,) = torch.autograd.grad(loss(made, i, free, target), free)
            lengths.append(float(made.step[i]) * slope.norm(dim=-1))
        assert float(torch.stack(lengths).mean()) == pytest.approx([2.0, 4.0][i], rel=1e-3)
        # A step towards an emotion makes most of the others' texts more like it.
        eye = torch.eye(3)
        for e in range(3):
            rest = rows[i][emotion != e]
            moved = rest + 0.5 * made.step[i] * made.ascent(rest, eye[e], i)
            before, after = (made.logits(h, i).log_softmax(-1)[:, e] for h in (rest, moved))
            assert float((after > before).float().mean()) > 0.9
