"""Steered models against the slow oracle, on eight families."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.circuits.circuit import Circuit
from affectlens.circuits.units import Unit, unit_sizes
from affectlens.core import DataError, MismatchError, Provenance, Site
from affectlens.core.places import WritePoint
from affectlens.models.generation.generation import GenerationSettings, generate_ids
from affectlens.models.hooking.hooks import reading, writing
from affectlens.models.loading import LanguageModel
from affectlens.steering import SteeringSpec, generate_steered, steering
from affectlens.steering.pack import SteeringPack
from affectlens.steering.spec import POSITIONS
from tests.steering.oracle import PROMPTS, random_pack, slow_generate, slow_logits

NEW = 6
SETTINGS = GenerationSettings(max_new_tokens=NEW)
WEIGHTS = {"anger": 1.0, "happiness": -0.7}


def spec(mode: str, positions: str, **weights: float) -> SteeringSpec:
    return SteeringSpec(weights or WEIGHTS, mode=mode, positions=positions, unit="natural")


def logits(model: LanguageModel, rows: Any = PROMPTS, side: str = "left", **options: Any) -> Any:
    ids, mask = model.encode_batch(rows, side)
    with torch.no_grad():
        return model.hf(
            input_ids=ids, attention_mask=mask, position_ids=model.position_ids(mask), **options
        ).logits


@pytest.mark.parametrize("mode", ["residual", "circuit"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_generation_equals_recomputing_everything(
    each_model: LanguageModel, mode: str, positions: str
) -> None:
    pack = random_pack(each_model)
    got = generate_steered(each_model, pack, PROMPTS, spec(mode, positions), SETTINGS)
    wanted = [
        slow_generate(each_model, pack, p, WEIGHTS, mode, positions, new=NEW) for p in PROMPTS
    ]
    assert got == wanted
    assert got != generate_ids(each_model, PROMPTS, SETTINGS)


def test_every_row_of_a_mixed_batch_is_as_alone(each_model: LanguageModel) -> None:
    pack = random_pack(each_model)
    requests = [
        spec("residual", "all"),
        spec("circuit", "generated"),
        None,
        spec("circuit", "last_prompt+generated", fear=1.5),
        spec("residual", "prompt", fear=-1.0),
        spec("residual", "last_prompt+generated", happiness=1.0),
        SteeringSpec({"anger": 1.0}, operator="project_out", mode="residual", positions="all"),
        SteeringSpec({"fear": 2.0}, operator="clamp", positions="generated", unit="natural"),
        SteeringSpec({"fear": 1.0}, operator="add_keep_norm", positions="all", unit="rms"),
    ]
    prompts = [list(PROMPTS[i % len(PROMPTS)]) for i in range(len(requests))]
    prompts[5] = prompts[3] = prompts[1]  # equal prompts, unequal requests
    together = generate_steered(each_model, pack, prompts, requests, SETTINGS)
    alone = [
        generate_steered(each_model, pack, [p], [r], SETTINGS)[0]
        for p, r in zip(prompts, requests, strict=True)
    ]
    assert together == alone
    assert together[2] == generate_ids(each_model, [prompts[2]], SETTINGS)[0]
    # The same in one padded forward pass, where nothing is sorted or shared.
    with pack.steer(each_model, requests):
        batch = logits(each_model, prompts)
    for i, (prompt, request) in enumerate(zip(prompts, requests, strict=True)):
        with pack.steer(each_model, request):
            row = logits(each_model, [prompt])
        torch.testing.assert_close(batch[i, -len(prompt) :], row[0], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_changes_nothing(tiny_model: Any, side: str, positions: str) -> None:
    for family in ("llama", "gpt2", "gemma3"):
        model = tiny_model(family)
        pack = random_pack(model)
        for mode in ("residual", "circuit"):
            with pack.steer(model, spec(mode, positions)):
                batch = logits(model, side=side)
            for i, ids in enumerate(PROMPTS):
                wanted = slow_logits(model, pack, list(ids), len(ids), WEIGHTS, mode, positions)
                got = batch[i, -len(ids) :] if side == "left" else batch[i, : len(ids)]
                torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_zero_strength_is_bit_identical(dtype: torch.dtype) -> None:
    from tests.conftest import FAMILIES, make_tiny

    for family in FAMILIES:
        model = make_tiny(family)
        model.hf.to(dtype)
        pack = random_pack(model)
        plain = logits(model)
        for nothing in ("anger=0", None, {"anger": -0.0, "fear": 0}, ["none"] * len(PROMPTS)):
            with pack.steer(model, nothing):
                assert torch.equal(logits(model), plain)
        mixed = [spec("circuit", "all"), None, spec("residual", "all", fear=1.0), "anger=0"]
        with pack.steer(model, mixed):
            got = logits(model)
        assert torch.equal(got[[1, 3]], plain[[1, 3]])
        assert not torch.equal(got[0], plain[0])
        assert not torch.equal(got[2], plain[2])


def test_minus_zero_survives_in_rows_that_are_not_steered(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    seen: list[torch.Tensor] = []

    def minus_zero(hidden: torch.Tensor) -> torch.Tensor:
        return torch.full_like(hidden, -0.0)

    for operator in ("add", "add_keep_norm", "project_out", "clamp"):
        request = SteeringSpec({"anger": 1.0}, operator=operator, mode="residual", positions="all")
        # Writers of an inner block run first: steering gets nothing but minus zeros.
        with (
            pack.steer(model, [request, None]),
            writing(model.anatomy, {WritePoint(0, "resid_post"): minus_zero}),
            reading(model.anatomy, [Site(0, "resid_post")], lambda _, x: seen.append(x.clone())),
        ):
            logits(model, [[5, 6], [7, 8]])
        assert bool(seen[-1][1].signbit().all())
        assert seen[-1].shape == (2, 2, model.d_model)
    assert not bool(seen[0][0].signbit().all())


@pytest.mark.parametrize("positions", POSITIONS)
def test_chunks_equal_one_pass(each_model: LanguageModel, positions: str) -> None:
    pack = random_pack(each_model)
    rows = [PROMPTS[0], PROMPTS[2]]
    ids, mask = each_model.encode_batch(rows, "left")
    place = each_model.position_ids(mask)
    lengths = [4, 7]  # the prompt ends inside a chunk, elsewhere in each row
    for mode in ("residual", "circuit"):
        request = spec(mode, positions)
        with torch.no_grad(), pack.steer(each_model, request, prompt_lengths=lengths):
            whole = each_model.hf(input_ids=ids, attention_mask=mask, position_ids=place).logits
            cache: Any = None
            parts: list[torch.Tensor] = []
            for start, stop in ((0, 6), (6, 7), (7, 11)):
                output = each_model.hf(
                    input_ids=ids[:, start:stop],
                    attention_mask=mask[:, :stop],
                    position_ids=place[:, start:stop],
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = output.past_key_values
                parts.append(output.logits)
        for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
            wanted = slow_logits(each_model, pack, list(row), n, WEIGHTS, mode, positions)
            for got in (whole, torch.cat(parts, dim=1)):
                torch.testing.assert_close(got[i, -len(row) :], wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_hf_generate_steers_the_same_tokens(each_model: LanguageModel, positions: str) -> None:
    pack = random_pack(each_model)
    for mode in ("residual", "circuit"):
        request = spec(mode, positions)
        ours = generate_steered(
            each_model, pack, PROMPTS, request, GenerationSettings(NEW, repetition_penalty=1.0)
        )
        ids, mask = each_model.encode_batch(PROMPTS, "left")
        known = [len(prompt) for prompt in PROMPTS]
        static = {"cache_implementation": "static"}  # gives the model no two-dimensional mask
        ways = {
            "residual": (({}, None), ({"use_cache": False}, None), (static, known)),
            "circuit": (({}, known), (static, None)),
        }
        for options, lengths in ways[mode]:
            with pack.steer(each_model, request, prompt_lengths=lengths):
                out = hf_generate(each_model, ids, mask, **options)
            for row, wanted in zip(out[:, ids.shape[1] :].tolist(), ours, strict=True):
                assert tuple(row[: len(wanted)]) == wanted, options
                assert len(wanted) == NEW or row[len(wanted)] in each_model.eos_ids


@pytest.mark.parametrize("positions", POSITIONS)
def test_calls_by_hand_need_no_mask(tiny_model: Any, positions: str) -> None:
    """A loop that passes nothing but new tokens and the cache."""
    for family in ("llama", "gpt2", "gpt_neox"):
        model = tiny_model(family)
        pack = random_pack(model)
        prompt, new = list(PROMPTS[0]), list[int]()
        with torch.no_grad(), pack.steer(model, spec("residual", positions)):
            output = model.hf(torch.tensor([prompt]), use_cache=True)
            for _ in range(NEW):
                new.append(int(output.logits[0, -1].argmax()))
                output = model.hf(
                    torch.tensor([new[-1:]]), past_key_values=output.past_key_values, use_cache=True
                )
        wanted = slow_generate(
            model, pack, prompt, WEIGHTS, "residual", positions, new=NEW, penalty=1.0
        )
        assert tuple(new[: len(wanted)]) == wanted


def hf_generate(model: LanguageModel, ids: Any, mask: Any, **options: Any) -> Any:
    return model.hf.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=model.pad_id,
        eos_token_id=list(model.eos_ids),
        **options,
    )


def test_each_request_gets_the_rows_that_generate_makes_of_it(tiny_model: Any) -> None:
    """Beams and num_return_sequences repeat every prompt next to itself."""
    model = tiny_model("llama")
    pack = random_pack(model)
    requests = [spec("residual", "all"), None]
    ids, mask = model.encode_batch(PROMPTS[:2], "left")
    with pack.steer(model, requests):
        out = hf_generate(model, ids, mask, num_beams=3, num_return_sequences=1)
    for i, request in enumerate(requests):
        row = ids[i : i + 1, mask[i].bool()]
        with pack.steer(model, request):
            alone = hf_generate(model, row, torch.ones_like(row), num_beams=3)
        new = alone[0, row.shape[1] :]
        assert torch.equal(out[i, ids.shape[1] :][: len(new)], new)
    with pack.steer(model, requests), pytest.raises(DataError, match="3 rows, which 2 steering"):
        logits(model, [[5], [6], [7]])


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_folded_equals_adding_at_the_inputs(each_model: LanguageModel, kind: str) -> None:
    """``W·Δ`` at the outputs of the projections is ``Δ`` at their inputs."""
    generator = torch.Generator().manual_seed(3)
    anatomy, layer = each_model.anatomy, 1
    part = anatomy.blocks[layer]
    width = anatomy.width("z" if kind == "heads" else "mlp_post")
    delta = torch.randn(width, generator=generator)
    weight = part.W_O().flatten(0, 1) if kind == "heads" else part.W_down()
    name = "o_proj" if kind == "heads" else "down_proj"
    base = random_pack(each_model)
    pack = SteeringPack(
        emotions=("anger",),
        vectors={f"circuit.{name}_out": (delta @ weight)[None, None]},
        layers={f"circuit.{name}_out": (layer,)},
        n_layers=base.n_layers,
        d_model=base.d_model,
        recommended={"circuit": {"anger": 1.0}},
        positions={"circuit": "all"},
        provenance=base.provenance,
    )
    rows = [[5, 6, 7], [8, 9, 10]]
    with pack.steer(each_model, "anger=1.5"):
        folded = logits(each_model, rows)
    with writing(anatomy, {WritePoint(layer, f"{name}_in"): lambda x: x + 1.5 * delta}):
        unfolded = logits(each_model, rows)
    torch.testing.assert_close(folded, unfolded, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(folded, logits(each_model, rows), atol=1e-2)


def test_a_circuit_steers_as_its_units_would(each_model: LanguageModel) -> None:
    """A pack made from a circuit against its masked differences at the inputs."""
    generator = torch.Generator().manual_seed(4)
    n, heads, d_mlp = each_model.n_layers, each_model.anatomy.n_heads, each_model.anatomy.d_mlp
    width = each_model.anatomy.width("z")
    emotions = ("anger", "fear")
    units = {"anger": (Unit(0, 3, 1.0), Unit(2, 1, 0.5)), "fear": (Unit(1, 0, 1.0),)}
    circuit = Circuit(
        emotions=emotions,
        neurons=units,
        heads=units,
        neuron_scores=torch.rand(2, n, d_mlp, generator=generator),
        head_scores=torch.rand(2, n, heads, generator=generator),
        delta_neurons=torch.randn(2, n, d_mlp, generator=generator),
        delta_heads=torch.randn(2, n, width, generator=generator),
        allocation=torch.zeros(2, n, 2, dtype=torch.long),
        sizes=unit_sizes(each_model.anatomy),
        routed=torch.zeros(each_model.n_layers, dtype=torch.long),
        influence=None,
        delta_source="group_mean",
        position="last",
        provenance=Provenance("circuit", model=each_model.fingerprint),
    )
    pack = SteeringPack.from_circuit(circuit, each_model, positions="all")
    rows = [[5, 6, 7], [8, 9, 10]]
    with pack.steer(each_model, "anger=1.5,fear=-1"):
        folded = logits(each_model, rows)
    writers: Any = {}
    for e, (emotion, strength) in enumerate((("anger", 1.5), ("fear", -1.0))):
        for unit in units[emotion]:
            d_head = width // heads
            for point, size, deltas in (
                ("down_proj_in", 1, circuit.delta_neurons),
                ("o_proj_in", d_head, circuit.delta_heads),
            ):
                change = torch.zeros(deltas.shape[-1])
                where = slice(unit.index * size, (unit.index + 1) * size)
                change[where] = strength * deltas[e, unit.layer, where]
                writers[WritePoint(unit.layer, point)] = lambda x, change=change: x + change
    with writing(each_model.anatomy, writers):
        torch.testing.assert_close(logits(each_model, rows), folded, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("operator", ["project_out", "clamp", "add_keep_norm"])
def test_operators_do_what_they_say(each_model: LanguageModel, operator: str) -> None:
    pack = random_pack(each_model)
    request = SteeringSpec(
        {"anger": 1.0, "fear": 1.0 if operator != "clamp" else -2.0},
        operator=operator,
        mode="residual",
        positions="all",
        unit="natural",
    )
    seen: list[torch.Tensor] = []
    site = Site(2, "resid_post")
    with (
        pack.steer(each_model, request),
        reading(each_model.anatomy, [site], lambda _, x: seen.append(x.clone())),
    ):
        logits(each_model, [PROMPTS[0]])
    (after,) = seen
    vectors = pack.vectors["residual.resid_post"][:2, 1]
    projections = after[0] @ (vectors / vectors.norm(dim=-1, keepdim=True)).T
    if operator == "project_out":
        assert projections.abs().max() < 1e-4
    elif operator == "clamp":
        wanted = torch.tensor([1.0, -2.0]) * vectors.norm(dim=-1)
        torch.testing.assert_close(projections, wanted.expand_as(projections), atol=1e-4, rtol=0)
    else:  # the input of block 1 is the first thing steered, and its length is as before
        sizes: list[torch.Tensor] = []
        first = [Site(0, "resid_post")]
        for one in (request, None):
            with (
                pack.steer(each_model, one),
                reading(each_model.anatomy, first, lambda _, x: sizes.append(x.clone())),
            ):
                logits(each_model, [PROMPTS[0]])
        assert not torch.allclose(sizes[0], sizes[1])
        torch.testing.assert_close(sizes[0].norm(dim=-1), sizes[1].norm(dim=-1))


def test_hooks_are_gone_after_an_exception(tiny_model: Any) -> None:
    model = tiny_model("gemma3")
    pack = random_pack(model)
    plain = logits(model)
    hooks = count_hooks(model)
    with pytest.raises(RuntimeError, match="mine"), pack.steer(model, spec("circuit", "all")):
        assert count_hooks(model) > hooks
        raise RuntimeError("mine")
    assert count_hooks(model) == hooks
    assert torch.equal(logits(model), plain)
    # An error inside the model, while it generates.

    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("inside")

    implementation = model.hf.config._attn_implementation
    with (
        pytest.raises(RuntimeError, match="inside"),
        pack.steer(model, spec("residual", "all")),
        writing(model.anatomy, {WritePoint(1, "resid_post"): fail}),
    ):
        generate_ids(model, PROMPTS, SETTINGS)
    assert count_hooks(model) == hooks
    assert model.hf.config._attn_implementation == implementation
    assert torch.equal(logits(model), plain)


def count_hooks(model: LanguageModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules()
    )


def test_calls_after_generation_are_not_taken_for_its_rows(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    request = spec("residual", "last_prompt+generated")
    with pack.steer(model, request):
        wanted = logits(model, [PROMPTS[0]])
        generate_ids(model, PROMPTS, SETTINGS)
        assert torch.equal(logits(model, [PROMPTS[0]]), wanted)


def test_text_in_text_out_is_steered_too(tiny_model: Any) -> None:
    """The same reply whichever door one uses."""
    from affectlens.models.generation.generation import encode_prompt

    model = tiny_model("llama")
    pack = random_pack(model)
    request = spec("circuit", "generated")
    prompt = "The train was late."
    ids = encode_prompt(model, prompt)
    (wanted,) = generate_steered(model, pack, [ids], request, GenerationSettings(8))
    with pack.steer(model, request):
        text = model.generate(prompt, max_new_tokens=8)
        both = model.generate([prompt, prompt], max_new_tokens=8)
    assert text == model.tokenizer.decode(list(wanted), skip_special_tokens=True).strip()
    assert both == [text, text]
    assert text != model.generate(prompt, max_new_tokens=8)


def test_prefix_is_shared_only_where_it_is_not_steered(tiny_model: Any) -> None:
    """One prompt under many requests: same tokens, far fewer rows of prefill."""
    model = tiny_model("llama")
    pack = random_pack(model)
    prompt = list(range(20, 60))
    doses = [0.5 * k for k in range(8)]
    fed: dict[str, list[tuple[int, int]]] = {}
    for positions in POSITIONS:
        shapes = fed.setdefault(positions, [])
        requests = [spec("residual", positions, anger=dose) for dose in doses]

        def note(_module: Any, _args: Any, kwargs: Any, shapes: Any = shapes) -> None:
            shapes.append(tuple(kwargs["input_ids"].shape))

        handle = model.hf.register_forward_pre_hook(note, with_kwargs=True)
        try:
            got = generate_steered(model, pack, [prompt] * len(doses), requests, SETTINGS)
        finally:
            handle.remove()
        for dose, reply in zip(doses, got, strict=True):
            weights = {"anger": dose}
            assert reply == slow_generate(
                model, pack, prompt, weights, "residual", positions, new=NEW
            )
    assert fed["generated"][0] == (1, 40)
    assert (1, 39) in fed["last_prompt+generated"]
    assert (7, 40) in fed["all"]  # dose 0 changes nothing and runs apart


def test_wrong_model_and_wrong_numbers_are_refused(tiny_model: Any) -> None:
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    pack = random_pack(model)
    with pytest.raises(MismatchError) as caught, pack.steer(other, "anger=1"):
        pass
    assert model.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    with pack.steer(other, "anger=1", force=True):
        logits(other)
    deeper = tiny_model("llama", num_hidden_layers=4)
    with pytest.raises(MismatchError, match="3 layers"), pack.steer(deeper, "anger=1", force=True):
        pass
    with pytest.raises(DataError, match="4 prompts and 2 steering"):
        generate_steered(model, pack, PROMPTS, ["anger=1", None], SETTINGS)
    with pytest.raises(DataError, match="empty"), pack.steer(model, []):
        pass
    with pytest.raises(DataError, match="more prompts"), pack.steer(model, ["anger=1"]):
        generate_ids(model, PROMPTS, SETTINGS)
    with (
        pytest.raises(DataError, match="1 prompt lengths for 2"),
        steering(model, pack, ["anger=1", None], prompt_lengths=[3]),
    ):
        pass


def test_nested_steering_adds_up(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    both = spec("residual", "all", anger=1.0, fear=0.5)
    with pack.steer(model, both):
        wanted = logits(model)
    with (
        pack.steer(model, spec("residual", "all", anger=1.0)),
        pack.steer(model, spec("residual", "all", fear=0.5)),
    ):
        torch.testing.assert_close(logits(model), wanted, atol=1e-4, rtol=1e-4)
