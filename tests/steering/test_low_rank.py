"""Low-rank maps against plain hooks with their formula, in packs, batches, tables and training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.core import AffectLensError, ArtefactError, DataError, Provenance
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.core.places import WritePoint
from affectlens.models.generation.generation import GenerationSettings
from affectlens.serving.coefficients import coefficients
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering import SteeringPack, generate_steered
from affectlens.steering.bands import banded, length_of, relative_size, within
from affectlens.steering.exporting import export_vectors
from affectlens.steering.low_rank import LowRank
from affectlens.steering.methods.random_pack import random_pack as random_directions
from affectlens.steering.pack_places import columns_of, places_of, vectors_at
from affectlens.steering.refine import RefineSettings, refine_directions, refine_low_rank
from affectlens.steering.refine import low_rank as training
from affectlens.steering.refine.log_probabilities import mapped
from affectlens.steering.refine.objectives.likelihood import unlikelihood
from affectlens.steering.refine.replies import complete_groups
from tests.steering.oracle import EMOTIONS, PROMPTS, random_pack, steered_at
from tests.steering.test_refine import corpus, log_probability, toy_directions

NAME, LAYERS, RANK = "low_rank.resid_post", (0, 2), 2


def parts(d: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """LoReFT's own: R with orthonormal rows, W, b; per emotion and layer."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(EMOTIONS), len(LAYERS))
    rows = torch.linalg.qr(torch.randn(*shape, d, RANK, generator=generator))[0].mT
    weight = torch.randn(*shape, RANK, d, generator=generator) * 0.3
    bias = torch.randn(*shape, RANK, generator=generator)
    return rows.contiguous(), weight, bias


def low_rank_pack(model: Any, seed: int = 0) -> SteeringPack:
    """The third emotion does nothing in the first block; the second reads but adds no constant."""
    r, w, b = parts(model.d_model, seed)
    constants, reads = torch.einsum("elr,elrd->eld", b, r), w - r
    constants[2, 0], reads[2, 0], constants[1] = 0, 0, 0
    return SteeringPack(
        emotions=EMOTIONS,
        vectors={NAME: constants},
        low_rank={NAME: LowRank(reads, r)},
        layers={NAME: LAYERS},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"low_rank": {"anger": 1.0, "fear": 0.5, "happiness": 2.0}},
        positions={"low_rank": "last_prompt+generated"},
        provenance=Provenance("pack", model=model.fingerprint, model_name="tiny"),
    )


def intervention(d: int, emotion: str, block: int) -> Callable[[Tensor], Tensor]:
    """``Rᵀ (W h + b − R h)`` of a token, as the paper writes it."""
    r, w, b = (x[EMOTIONS.index(emotion), LAYERS.index(block)].double() for x in parts(d))
    if emotion == "fear":
        b = torch.zeros_like(b)
    if (emotion, block) == ("happiness", 0):
        r = torch.zeros_like(r)
    return lambda h: r.T @ (w @ h.double() + b - r @ h.double())


def slow_logits(
    model: Any, ids: list[int], prompt: int, weights: dict[str, float], positions: str
) -> Tensor:
    handles = []
    for block in LAYERS:
        changes = [(s, intervention(model.d_model, e, block)) for e, s in weights.items()]

        def hook(_module: Any, _args: Any, output: Any, changes: Any = changes) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            for t in range(hidden.shape[1]):
                if steered_at(positions, t, prompt):
                    h = hidden[0, t].clone()
                    hidden[0, t] = h + sum(s * change(h) for s, change in changes).float()
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(model.anatomy.blocks[block].block.register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("positions", ["all", "last_prompt+generated", "prompt"])
def test_it_is_the_papers_formula(family: str, positions: str, tiny_model: Any) -> None:
    model = tiny_model(family)
    pack, ids = low_rank_pack(model), [5, 17, 33, 90, 12, 61]
    plain = model.hf(input_ids=torch.tensor([ids])).logits[0].detach()
    for weights in ({"anger": 1.0}, {"fear": 0.7}, {"anger": 0.5, "fear": -0.4, "happiness": 1.2}):
        wanted = slow_logits(model, ids, 4, weights, positions)
        spec = {"weights": weights, "unit": "natural", "positions": positions}
        with torch.no_grad(), pack.steer(model, spec, prompt_lengths=[4]):
            found = model.hf(input_ids=torch.tensor([ids])).logits[0]
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)
        assert torch.dist(found, plain) > 0.1


def test_strength_0_changes_no_bit_and_doses_are_recommended(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack, ids = low_rank_pack(model), torch.tensor([[5, 17, 33, 90]])

    def logits(spec: Any) -> Tensor:
        with torch.no_grad(), pack.steer(model, spec, prompt_lengths=[2]):
            return model.hf(input_ids=ids).logits

    plain = model.hf(input_ids=ids).logits.detach()
    for nothing in (None, "none", "anger=0", "anger=0,fear=0;mode=low_rank;unit=natural"):
        assert torch.equal(logits(nothing), plain)
    assert torch.equal(logits("happiness=0.5"), logits("happiness=1;unit=natural"))
    assert torch.equal(logits("fear=1"), logits("fear=0.5;unit=natural"))
    # Tokens before those that are steered come out bit for bit.
    assert torch.equal(logits("anger=1")[:, 0], plain[:, 0])
    half, whole = logits("anger=1;schedule=rise:4"), logits("anger=1")
    assert not torch.equal(half, whole) and not torch.equal(half, plain)


def test_rows_of_a_batch_have_maps_directions_and_nothing(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = SteeringPack.merge(random_pack(model), low_rank_pack(model))
    assert pack.modes == ("residual", "circuit", "low_rank")
    specs = [
        "anger=1;mode=low_rank",
        "anger=0.4,fear=1,happiness=-0.3;mode=low_rank",
        "none",
        "fear=1;mode=residual",
        "anger=1;mode=residual;operator=clamp",
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
    hidden = torch.randn(len(specs), 3, model.d_model, generator=torch.Generator().manual_seed(3))
    table = pack.table(specs)
    for place, site in table.sites.items():
        moved = site.apply(hidden, torch.tensor(table.rows), None)
        for i, spec in enumerate(specs):
            single = pack.table([spec])
            if place not in single.sites:
                assert torch.equal(moved[i], hidden[i])
                continue
            one = single.sites[place].apply(hidden[i : i + 1], torch.tensor(single.rows), None)
            torch.testing.assert_close(moved[i], one[0])


@pytest.mark.parametrize("recorded", [False, True])
def test_tables_of_servers_do_the_same(recorded: bool, tiny_model: Any) -> None:
    model = tiny_model("llama")
    mapping = low_rank_pack(model)
    pack = SteeringPack.merge(random_pack(model), mapping)
    assert columns_of(mapping) == 3 + 3 + 2 * 3 * RANK
    places = places_of(pack)
    vectors = vectors_at(pack, places)
    first = 4  # another pack has these columns
    capacity = Capacity(6, first + vectors.shape[1], 8, pack.d_model, recorded=recorded)
    slots = Slots(places, capacity, "cpu")
    slots.put_vectors(0, torch.randn(len(places), first, pack.d_model))
    slots.put_vectors(first, vectors)
    specs = [
        "anger=1;mode=low_rank",
        "anger=0.4,fear=1,happiness=-0.3;mode=low_rank",
        "fear=1,anger=0.2;mode=residual",
        "anger=1,fear=0.4;mode=residual;operator=clamp",
        "anger=0.5;mode=circuit",
    ]
    asked = [pack.resolve(spec) for spec in specs]
    for slot, one in enumerate(asked, start=1):
        slots.write(slot, first, coefficients(pack, one, places, vectors))
    rows = torch.tensor([1, 2, 0, 3, 4, 5, 2, 1])
    slots.set_rows(rows)
    hidden = torch.randn(len(rows), pack.d_model, generator=torch.Generator().manual_seed(3))
    table = pack.table(asked)
    for i, place in enumerate(places):
        found = slots.apply_at(i, hidden)
        site = table.sites.get(place)
        wanted = hidden if site is None else site.apply(hidden[:, None], rows, None)[:, 0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        assert torch.equal(found[2], hidden[2])
    slots.clear(1)
    slots.set_rows(torch.ones(8, dtype=torch.long))
    torch.testing.assert_close(slots.apply_at(0, hidden), hidden, atol=0, rtol=0)
    bare = Slots(places, replace(capacity, projects=False), "cpu")
    with pytest.raises(DataError, match="or maps"):
        bare.write(1, first, coefficients(pack, asked[0], places, vectors))


def test_what_is_saved_is_loaded(tiny_model: Any, tmp_path: Any) -> None:
    model, path = tiny_model("llama"), tmp_path / "pack.safetensors"
    pack = SteeringPack.merge(random_pack(model), low_rank_pack(model))
    pack.save(path)
    again = SteeringPack.load(path, model)
    assert again.fingerprint == pack.fingerprint
    for part in ("reads", "writes"):
        assert torch.equal(getattr(again.low_rank[NAME], part), getattr(pack.low_rank[NAME], part))
    other = low_rank_pack(model, seed=1)
    assert (
        low_rank_pack(model).fingerprint
        != replace(low_rank_pack(model), low_rank=other.low_rank).fingerprint
    )
    # A pack as it was before there were maps.
    old = random_pack(model)
    old.save(path)
    assert not any("reads" in name for name in read_tensors(path, "pack").tensors)
    assert SteeringPack.load(path).low_rank == {}


def test_maps_that_do_not_fit_are_refused_in_one_sentence(tiny_model: Any, tmp_path: Any) -> None:
    model, path = tiny_model("llama"), tmp_path / "pack.safetensors"
    pack = low_rank_pack(model)
    maps = pack.low_rank[NAME]
    bad = maps.writes.clone()
    bad[0, 0, 0, 0] = torch.nan
    wide = torch.zeros(3, 2, RANK, model.d_model + 1)

    def refused(sentence: str, **fields: Any) -> None:
        with pytest.raises(DataError, match=sentence) as caught:
            replace(pack, **fields)
        assert "\n" not in str(caught.value)

    refused("writes holds NaN", low_rank={NAME: LowRank(maps.reads, bad)})
    refused("reads has shape", low_rank={NAME: LowRank(wide, wide)})
    refused("writes has shape", low_rank={NAME: LowRank(maps.reads, maps.writes[:, :, :1])})
    refused("reads has shape", low_rank={NAME: LowRank(maps.reads[0], maps.writes[0])})
    refused(
        "reads has shape", low_rank={NAME: LowRank(maps.reads[:, :, :0], maps.writes[:, :, :0])}
    )
    refused("reads has shape", low_rank={NAME: LowRank(maps.reads[0, 0], maps.writes[0, 0])})
    refused("lacks maps", low_rank={})
    plain = random_pack(model)
    with pytest.raises(DataError, match="lacks vectors, of low_rank"):
        replace(plain, low_rank=pack.low_rank)
    pack.save(path)
    file = read_tensors(path, "pack")
    for leave_out in (f"{NAME}.reads", f"{NAME}.writes", NAME):
        tensors = {name: x for name, x in file.tensors.items() if name != leave_out}
        write_tensors(path, tensors, file.provenance, file.extra)
        with pytest.raises(ArtefactError, match="damaged"):
            SteeringPack.load(path)


def test_requests_that_maps_cannot_answer_are_refused(tiny_model: Any, tmp_path: Any) -> None:
    model = tiny_model("llama")
    pack = low_rank_pack(model)
    for spec, sentence in (
        ("anger=1;operator=clamp", "operator=clamp"),
        ("anger=1;operator=rotate", "operator=rotate"),
        ("anger=1;unit=raw", "unit=raw"),
        ("anger=1;mode=residual", "residual"),
        ("angr=1", "anger"),
        ("anger=1;gate=fear>0.5", "probe"),
        ({"anger": float("nan")}, "nan"),
    ):
        with pytest.raises(AffectLensError, match=sentence) as caught:
            pack.resolve(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="unit=rms"):
        replace(pack, rms=torch.ones(model.n_layers)).resolve("anger=1;unit=rms")
    with pytest.raises(DataError, match="mode low_rank does"):
        export_vectors(pack, "anger=1", tmp_path / "v.safetensors", "safetensors")
    with pytest.raises(DataError, match="no directions to draw"):
        random_directions(pack, "low_rank")
    both = SteeringPack.merge(random_pack(model), pack)
    assert random_directions(both).modes == ("residual",)


def test_maps_that_begin_late_and_bands_of_them(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = low_rank_pack(model)
    assert pack.begins("low_rank", ["happiness"]) == WritePoint(2, "resid_post")
    assert pack.begins("low_rank", ["fear"]) == WritePoint(0, "resid_post")  # reads, no constant
    assert relative_size(replace(pack, rms=torch.ones(3)), "low_rank", "anger", [0], 1) is None
    # A map has no length of its own: a band without a constant acts as much as any other.
    name = "low_rank.resid_post"
    bare = replace(pack, vectors={**pack.vectors, name: torch.zeros_like(pack.vectors[name])})
    first, *_ = pack.layers[name]
    assert length_of(bare, "low_rank", "anger", [first]) == 1
    assert length_of(within(bare, "low_rank", "anger", ()), "low_rank", "anger", [first]) == 0
    hidden = torch.randn(1, 3, model.d_model, generator=torch.Generator().manual_seed(3))

    def moved(found: SteeringPack, emotion: str, layer: int) -> Tensor | None:
        table = found.table([f"{emotion}=1;unit=natural"])
        site = table.sites.get(WritePoint(layer, "resid_post"))
        return None if site is None else site.apply(hidden, torch.tensor([1]), None)

    late = within(pack, "low_rank", "fear", [2])
    assert moved(late, "fear", 0) is None and moved(late, "anger", 0) is not None
    whole = moved(pack, "fear", 2)
    for found in (moved(late, "fear", 2), moved(banded(pack, "fear", {
            "a": {"low_rank": (2,)}, "b": {}}), "a", 2)):  # fmt: skip
        assert found is not None and whole is not None and torch.equal(found, whole)
    assert moved(banded(pack, "fear", {"a": {"low_rank": (2,)}, "b": {}}), "a", 0) is None


def map_of(pack: SteeringPack, e: int, i: int) -> Callable[[Tensor], Tensor]:
    c, maps = pack.vectors[NAME][e, i], pack.low_rank[NAME]
    return lambda h: h + c + (h @ maps.reads[e, i].T) @ maps.writes[e, i]


def test_training_begins_as_an_addition_and_likens_replies(tiny_model: Any) -> None:
    model = tiny_model("llama")
    start, settings = toy_directions(model, (1,)), RefineSettings(steps=25, learning_rate=0.2)
    still = replace(settings, steps=1, learning_rate=1e-9, start=0.7)
    begun = refine_low_rank(model, start, corpus(), layers=(1,), rank=3, settings=still)
    wanted = 0.7 * start.centroid().transpose(0, 1)
    torch.testing.assert_close(begun.vectors[NAME], wanted, atol=1e-4, rtol=1e-4)
    before = {n: p.detach().clone() for n, p in model.hf.named_parameters()}
    told: list[int] = []
    pack = refine_low_rank(
        model, start, corpus(), layers=(1,), rank=3, settings=settings, advance=told.append
    )
    assert sum(told) == 25
    assert all(torch.equal(p, before[n]) for n, p in model.hf.named_parameters())
    assert pack.modes == ("low_rank",) and pack.recommended["low_rank"] == {"anger": 1, "fear": 1}
    assert pack.provenance.parameters["low_rank"] == {"rank": 3, "layers": [1]}
    maps = pack.low_rank[NAME]
    eye = torch.eye(3).expand(2, 1, 3, 3)
    torch.testing.assert_close(maps.writes @ maps.writes.mT, eye, atol=1e-5, rtol=1e-5)
    assert bool((maps.reads.norm(dim=-1) > 0).all())
    again = refine_low_rank(model, start, corpus(), layers=(1,), rank=3, settings=settings)
    assert again.fingerprint == pack.fingerprint
    for e, own in enumerate(complete_groups(corpus(), ("anger", "fear"))[0]):
        said = [
            log_probability(model, own, change, 24)[0]
            for change in (lambda h, v=wanted[e, 0]: h + v, map_of(pack, e, 0))
        ]
        assert said[1] > said[0] + 1


def test_a_map_learns_more_than_a_vector(tiny_model: Any) -> None:
    """As many steps from the same start: what reads the hidden state fits the replies better."""
    model, settings = tiny_model("llama"), RefineSettings(steps=60, learning_rate=0.2)
    start, groups = toy_directions(model, (1,)), complete_groups(corpus(), ("anger", "fear"))
    vectors = refine_directions(model, start, corpus(), layers=(1,), settings=settings).centroid()[
        0
    ]
    pack = refine_low_rank(model, start, corpus(), layers=(1,), settings=settings)
    maps = pack.low_rank[NAME]
    nothing = torch.zeros(2, 1, model.d_model)
    place = WritePoint(1, "resid_post")
    with torch.no_grad():
        losses = [
            float(unlikelihood(model, groups, {place: mapped(*parts)}, settings))
            for parts in (
                (vectors, nothing, nothing),
                (pack.vectors[NAME][:, 0], maps.reads[:, 0], maps.writes[:, 0]),
            )
        ]
    assert losses[1] < losses[0]


def test_slopes_are_finite_differences(tiny_model: Any) -> None:
    model = tiny_model("llama")
    settings = RefineSettings(max_reply_tokens=6)
    groups = complete_groups(corpus(), ("anger", "fear"))[:2]
    start = toy_directions(model, (1,)).centroid().transpose(0, 1).contiguous()
    seen = training._hidden_states(model, ("anger", "fear"), corpus(), (1,), settings)
    made = training._Parts(torch.ones(1, 1, 1), *seen)
    generator = torch.Generator().manual_seed(5)
    free = [
        (x + 0.1 * torch.randn(x.shape, generator=generator)).requires_grad_(True)
        for x in training._begin(start, 3, settings)
    ]

    def loss(values: list[Tensor]) -> Tensor:
        changes = {WritePoint(1, "resid_post"): mapped(*(x[:, 0] for x in made.of(values)))}
        return unlikelihood(model, groups, changes, settings)

    loss(free).backward()
    for i, one in enumerate(free):
        slope = one.grad
        assert slope is not None and bool((slope.flatten(1).norm(dim=1) > 0).all())
        step = 0.02 * slope / slope.norm()
        with torch.no_grad():
            up, down = (
                float(loss([x + sign * step if j == i else x for j, x in enumerate(free)]))
                for sign in (1, -1)
            )
        assert (up - down) / 0.04 == pytest.approx(float(slope.norm()), rel=0.05)


def test_hidden_states_are_measured_where_maps_act(tiny_model: Any) -> None:
    """Mean and RMS of the last prompt token and the reply's but the last, in plain passes."""
    from affectlens.models.chat.chats import encode

    model, settings = tiny_model("llama"), RefineSettings(max_reply_tokens=5)
    rows = []
    for group in complete_groups(corpus(), ("anger", "fear"))[: training._SEEN]:
        for record in group:
            row = encode(model.tokenizer, record.chat, add_generation_prompt=False)
            start, end = row.spans["reply"]
            ids = torch.tensor([row.ids[: min(end, start + 5)]])
            with torch.no_grad():
                states = model.hf(input_ids=ids, output_hidden_states=True).hidden_states
            rows.append(states[2][0, start - 1 :])  # after block 1
    found = torch.cat(rows)
    mean, rms = training._hidden_states(model, ("anger", "fear"), corpus(), (1,), settings)
    torch.testing.assert_close(mean[0], found.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rms[0], found.square().mean(0).sqrt(), atol=1e-4, rtol=1e-4)


def test_orthonormal_rows_keep_their_order_and_sign() -> None:
    rows = torch.randn(2, 3, 4, 9, generator=torch.Generator().manual_seed(0))
    found = training.orthonormal(rows)
    for one, made in zip(rows.flatten(0, 1), found.flatten(0, 1), strict=True):
        wanted: list[Tensor] = []
        for row in one:
            left = row - sum((row @ w) * w for w in wanted)
            wanted.append(left / left.norm())
        torch.testing.assert_close(made, torch.stack(wanted), atol=1e-5, rtol=1e-4)


def test_training_refuses_what_cannot_work(tiny_model: Any) -> None:
    model = tiny_model("llama")
    start = toy_directions(model, (1,))
    for rank in (0, model.d_model + 1):
        with pytest.raises(DataError, match="rank of a map"):
            refine_low_rank(model, start, corpus(), layers=(1,), rank=rank)
    with pytest.raises(DataError, match="reps compares"):
        refine_low_rank(
            model, start, corpus(), layers=(1,), settings=RefineSettings(objective="reps")
        )
    lonely = corpus().filter(emotion="anger")
    with pytest.raises(DataError, match="no group"):
        refine_low_rank(model, start, lonely, layers=(1,))
