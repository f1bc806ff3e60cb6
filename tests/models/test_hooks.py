"""Reading and writing, against a model computed by hand and against plain transformers."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.activations.forward.engines import open_engine
from affectlens.core.errors import UnknownNameError
from affectlens.core.places import KINDS, POINTS, Site, WritePoint, deepest
from affectlens.models.hooking.hooks import StopForward, reading, writing
from tests.conftest import FAMILIES, N_LAYERS
from tests.models.reference import reference

IDS = torch.tensor([[5, 17, 33, 42, 8, 99, 120, 7, 66, 150, 31, 12], [*range(60, 72)]])


def sites_of(model: Any) -> list[Site]:
    kinds = [kind for kind in KINDS if kind != "resid_mid" or model.anatomy.has_resid_mid]
    return [Site(layer, kind) for layer in range(model.n_layers) for kind in kinds]


@torch.no_grad()
def capture(model: Any, sites: list[Site], **inputs: Any) -> dict[Site, Tensor]:
    seen: dict[Site, Tensor] = {}
    with reading(model.anatomy, sites, lambda site, value: seen.update({site: value.clone()})):
        model.anatomy.base(**(inputs or {"input_ids": IDS}))
    return seen


def n_hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_site_equals_the_model_computed_by_hand(family: str, tiny_model: Any) -> None:
    model = tiny_model(family)
    wanted = reference(family, model.hf, IDS)
    seen = capture(model, sites_of(model))
    assert set(seen) == set(wanted)
    for site, value in wanted.items():
        assert seen[site].shape[-1] == model.anatomy.width(site.kind)
        torch.testing.assert_close(seen[site], value, atol=2e-5, rtol=2e-5, msg=str(site))


@torch.no_grad()
def test_residuals_equal_hidden_states(each_model: Any) -> None:
    out = each_model.hf(input_ids=IDS, output_hidden_states=True)
    seen = capture(each_model, sites_of(each_model))
    for layer in range(N_LAYERS):
        assert torch.equal(seen[Site(layer, "resid_pre")], out.hidden_states[layer])
    # The last entry of hidden_states is after the final norm: not the residual stream.
    last = seen[Site(N_LAYERS - 1, "resid_post")]
    assert not torch.allclose(last, out.hidden_states[-1])
    assert torch.equal(each_model.anatomy.final_norm(last), out.hidden_states[-1])
    assert torch.equal(each_model.anatomy.unembed(out.hidden_states[-1]), out.logits)


@torch.no_grad()
def test_left_padding_equals_no_padding(each_model: Any) -> None:
    rows = [IDS[0].tolist(), IDS[1, :5].tolist()]
    ids, mask = each_model.encode_batch(rows, side="left")
    assert mask.tolist() == [[1] * 12, [0] * 7 + [1] * 5]
    sites = sites_of(each_model)
    padded = capture(
        each_model,
        sites,
        input_ids=ids,
        attention_mask=mask,
        position_ids=each_model.position_ids(mask),
    )
    for i, row in enumerate(rows):
        alone = capture(each_model, sites, input_ids=torch.tensor([row]))
        for site in sites:
            value = padded[site][i, -len(row) :]
            torch.testing.assert_close(value, alone[site][0], atol=2e-5, rtol=2e-5, msg=str(site))


@torch.no_grad()
def test_right_padding_equals_no_padding(each_model: Any) -> None:
    row = IDS[1, :5].tolist()
    ids, mask = each_model.encode_batch([IDS[0].tolist(), row], side="right")
    positions = each_model.position_ids(mask)
    sites = sites_of(each_model)
    padded = capture(each_model, sites, input_ids=ids, attention_mask=mask, position_ids=positions)
    alone = capture(each_model, sites, input_ids=torch.tensor([row]))
    for site in sites:
        torch.testing.assert_close(padded[site][1, :5], alone[site][0], atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_writing_what_was_there_changes_no_bit(each_model: Any) -> None:
    plain = each_model.hf(input_ids=IDS).logits
    places = [WritePoint(layer, point) for layer in range(N_LAYERS) for point in POINTS]
    with writing(each_model.anatomy, {place: lambda value: value.clone() for place in places}):
        assert torch.equal(each_model.hf(input_ids=IDS).logits, plain)
    with writing(each_model.anatomy, {place: lambda value: None for place in places}):
        assert torch.equal(each_model.hf(input_ids=IDS).logits, plain)


@pytest.mark.parametrize("sublayer", ["o_proj", "down_proj"])
@torch.no_grad()
def test_a_write_before_a_projection_folds_into_one_after_it(
    each_model: Any, sublayer: str
) -> None:
    """o_proj_in + Δ equals o_proj_out + W_O·Δ; the same for neurons; biases do not count twice."""
    part = each_model.anatomy.blocks[1]
    weight = part.W_O().flatten(0, 1) if sublayer == "o_proj" else part.W_down()
    delta = torch.randn(weight.shape[0], generator=torch.Generator().manual_seed(1))
    before = {WritePoint(1, f"{sublayer}_in"): lambda value: value + delta}
    after = {WritePoint(1, f"{sublayer}_out"): lambda value: value + delta @ weight}
    plain = each_model.hf(input_ids=IDS).logits
    with writing(each_model.anatomy, before):
        unfolded = each_model.hf(input_ids=IDS).logits
    with writing(each_model.anatomy, after):
        folded = each_model.hf(input_ids=IDS).logits
    assert (unfolded - plain).abs().max() > 0.05
    torch.testing.assert_close(folded, unfolded, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_write_to_the_residual_is_the_next_blocks_input(each_model: Any) -> None:
    shift = torch.linspace(-1, 1, each_model.d_model)
    sites = [Site(0, "resid_post"), Site(1, "resid_pre")]
    plain = capture(each_model, sites)
    with writing(each_model.anatomy, {WritePoint(0, "resid_post"): lambda value: value + shift}):
        steered = capture(each_model, sites)
    for site in sites:
        assert torch.equal(steered[site], plain[sites[0]] + shift)


@pytest.mark.parametrize("reader_first", [True, False])
@torch.no_grad()
def test_readers_see_what_writers_wrote(tiny_model: Any, reader_first: bool) -> None:
    model = tiny_model("llama")
    seen: list[Tensor] = []
    reader = reading(
        model.anatomy, [Site(1, "z"), Site(1, "attn_out")], lambda _, value: seen.append(value)
    )
    writers = {
        WritePoint(1, "o_proj_in"): torch.zeros_like,
        WritePoint(1, "o_proj_out"): torch.ones_like,
    }
    writer = writing(model.anatomy, writers)
    first, second = (reader, writer) if reader_first else (writer, reader)
    with first, second:
        model.hf(input_ids=IDS)
    z, attn_out = seen
    assert not z.any()
    assert (attn_out == 1).all()


def test_hooks_go_even_when_something_breaks(each_model: Any) -> None:
    before = n_hooks(each_model)

    def explode(*_: Any) -> None:
        raise RuntimeError("stop here")

    for context in (
        reading(each_model.anatomy, sites_of(each_model), explode),
        writing(each_model.anatomy, {WritePoint(2, "down_proj_in"): explode}),
    ):
        with pytest.raises(RuntimeError, match="stop here"), context:
            each_model.hf(input_ids=IDS)
        assert n_hooks(each_model) == before
    with (
        pytest.raises(UnknownNameError, match="layer '99'"),
        reading(each_model.anatomy, [Site(0, "z"), Site(99, "z")], explode),
    ):
        pass
    assert n_hooks(each_model) == before


@torch.no_grad()
def test_stopping_early_gives_the_same_values_and_skips_the_rest(each_model: Any) -> None:
    whole = capture(each_model, sites_of(each_model))
    for stop in sites_of(each_model):
        wanted = [site for site in whole if deepest([site, stop]) == stop]
        seen: dict[Site, Tensor] = {}
        later: list[Any] = []
        handle = each_model.anatomy.final_norm.register_forward_hook(
            lambda *_args, later=later: later.append(1)
        )
        with reading(
            each_model.anatomy,
            wanted,
            lambda site, value, seen=seen: seen.update({site: value.clone()}),
            stop_after=stop,
        ):
            each_model.anatomy.base(input_ids=IDS)
        handle.remove()
        assert set(seen) == set(wanted)
        assert not later
        assert all(torch.equal(seen[site], whole[site]) for site in wanted)


@torch.no_grad()
def test_an_early_stop_of_somebody_else_is_not_swallowed(tiny_model: Any) -> None:
    model = tiny_model("llama")
    with pytest.raises(StopForward), reading(model.anatomy, [Site(0, "z")], lambda *_: None):
        raise StopForward
    not_read = reading(
        model.anatomy, [Site(0, "z")], lambda *_: None, stop_after=Site(0, "resid_pre")
    )
    with pytest.raises(UnknownNameError, match="hook_resid_pre"), not_read:
        pass


def test_parallel_blocks_have_no_middle(tiny_model: Any) -> None:
    model = tiny_model("gpt_neox")
    middle = reading(model.anatomy, [Site(1, "resid_mid")], lambda *_: None)
    with pytest.raises(UnknownNameError, match="parallel"), middle:
        pass


@torch.no_grad()
def test_neox_with_sequential_blocks_has_a_middle(tiny_model: Any) -> None:
    model = tiny_model("gpt_neox", use_parallel_residual=False)
    seen = capture(model, sites_of(model))
    total = seen[Site(1, "resid_pre")] + seen[Site(1, "attn_out")]
    torch.testing.assert_close(seen[Site(1, "resid_mid")], total)


def test_write_points_are_named_closest_first() -> None:
    with pytest.raises(UnknownNameError, match=r"'o_proj'; choose one of: o_proj_in"):
        WritePoint(0, "o_proj")


@torch.no_grad()
def test_generation_with_a_cache_sees_one_new_token_at_a_time(tiny_model: Any) -> None:
    model = tiny_model("llama")
    lengths: list[int] = []
    with reading(model.anatomy, [Site(0, "z")], lambda _, value: lengths.append(value.shape[1])):
        model.hf.generate(input_ids=IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert lengths == [12, 1, 1, 1]


@pytest.mark.parametrize("engine", ["transformers", "transformer_lens"])
def test_a_pass_that_was_stopped_keeps_nothing_alive(engine: str, tiny_model: Any) -> None:
    """Without the garbage collector, which hardly ever runs and does not know of GPU memory."""
    model = tiny_model("llama")
    ids, mask = model.encode_batch([(5, 6, 7), (8, 9)], "right")
    run = open_engine(engine, model).forward
    seen: list[weakref.ref[Tensor]] = []
    run(ids, mask, [Site(0, "resid_post")], lambda _site, value: None)  # builds what it needs
    gc.collect()
    gc.disable()
    try:
        run(
            ids, mask, [Site(0, "resid_mid"), Site(1, "resid_post")],
            lambda _site, value: seen.append(weakref.ref(value)),
        )  # fmt: skip
        assert len(seen) == 2 and not any(ref() is not None for ref in seen)
    finally:
        gc.enable()
