"""A hook that never runs is an error at the end of the first pass, never a plain result."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from affectlens.core.errors import ModelError
from affectlens.core.places import Site, WritePoint
from affectlens.models.hooking.hooks import reading, writing
from affectlens.models.hooking.required import required_hooks
from affectlens.models.hooking.scopes import opened
from tests.conftest import D_MODEL

IDS = torch.tensor([[5, 17, 33, 42]])


def elsewhere(model: Any) -> Any:
    """An anatomy whose block 1 has an output projection that the model does not call."""
    first, second, *rest = model.anatomy.blocks
    lost = replace(second, o_proj=nn.Linear(D_MODEL, D_MODEL))
    return replace(model.anatomy, blocks=(first, lost, *rest))


@torch.no_grad()
def test_a_reader_that_never_runs_is_named(tiny_model: Any) -> None:
    model = tiny_model("llama")
    sites = [Site(0, "z"), Site(1, "z"), Site(2, "resid_post")]
    for run in (model.hf, model.anatomy.base):
        with (
            pytest.raises(ModelError, match=r"never ran blocks\.1\.attn\.hook_z, so"),
            reading(elsewhere(model), sites, lambda *_: None),
        ):
            run(input_ids=IDS)
    # A pass that is stopped has come past all that was asked for, or should have.
    with (
        pytest.raises(ModelError, match=r"never ran blocks\.1\.attn\.hook_z, so"),
        reading(elsewhere(model), sites, lambda *_: None, stop_after=sites[-1]),
    ):
        model.hf(input_ids=IDS)
    with reading(model.anatomy, sites, lambda *_: None, stop_after=sites[-1]):
        model.hf(input_ids=IDS)


def test_a_writer_that_never_runs_is_named_also_in_generation(tiny_model: Any) -> None:
    model = tiny_model("llama")
    places = (WritePoint(0, "o_proj_out"), WritePoint(1, "o_proj_out"))
    with (
        pytest.raises(ModelError, match="never ran o_proj_out of block 1, so"),
        writing(elsewhere(model), {place: lambda value: value + 1 for place in places}),
    ):
        model.generate("Hello", max_new_tokens=2)


@torch.no_grad()
def test_a_base_that_is_never_called_is_named(tiny_model: Any) -> None:
    """OPT calls ``model.decoder``, so hooks on ``model`` do not run."""
    model = tiny_model("opt")
    outer = model.hf.model
    ran: list[int] = []
    for base in (outer, model.anatomy.base):
        with opened() as (scope, held):
            must = required_hooks(replace(model.anatomy, base=base), scope, held)
            hook = must("the base", lambda *_: ran.append(1))
            handle = base.register_forward_pre_hook(hook)
            try:
                if base is outer:
                    with pytest.raises(ModelError, match="never ran the base"):
                        model.hf(input_ids=IDS)
                else:
                    model.hf(input_ids=IDS)
            finally:
                handle.remove()
    assert ran == [1]


@torch.no_grad()
def test_it_goes_on_being_said(tiny_model: Any) -> None:
    model = tiny_model("llama")
    with opened() as (scope, held):
        must = required_hooks(model.anatomy, scope, held)
        must("something", print)
        for _ in range(2):
            with pytest.raises(ModelError, match="never ran something"):
                model.hf(input_ids=IDS)
    model.hf(input_ids=IDS)


@torch.no_grad()
def test_other_passes_do_no_harm(tiny_model: Any) -> None:
    """Those that fail, of other models, of single blocks, and those that began before."""
    model, other = tiny_model("llama"), tiny_model("gpt2")
    inside, waiting = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def pause(*_: Any) -> None:
        inside.set()
        waiting.wait(60)

    def run() -> None:
        try:
            with torch.no_grad():
                model.hf(input_ids=IDS)
        except BaseException as error:
            failed.append(error)

    handle = model.anatomy.blocks[1].mlp.register_forward_pre_hook(pause)
    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(60)
    handle.remove()
    with opened() as (scope, held):
        must = required_hooks(model.anatomy, scope, held)
        hook = must("the first block", lambda *_: None)
        first = model.anatomy.blocks[0].block.register_forward_hook(hook)
        waiting.set()
        thread.join()
        other.hf(input_ids=IDS)
        with pytest.raises(IndexError):
            model.hf(input_ids=torch.tensor([[10**6]]))
        model.hf(input_ids=IDS)
        first.remove()
    assert not failed
