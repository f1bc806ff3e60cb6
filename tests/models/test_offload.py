"""Models some of whose layers are on the disk, against the same models in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.core.errors import DataError, ModelError, UnknownNameError
from affectlens.core.places import Site
from affectlens.models import load_model
from affectlens.models.hooking.hooks import reading
from affectlens.models.linear_map import linear_map
from affectlens.models.placement import device_of, is_spread, loaded
from tests.conftest import tiny_hf, tiny_tokenizer

MAP = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "disk",
    "lm_head": "disk",
}
IDS = torch.tensor([[5, 9, 17, 30, 8], [7, 3, 3, 90, 1]])


def save(folder: Path, family: str = "llama", **changes: Any) -> Path:
    tiny_hf(family, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pair(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """The model in memory, and spread."""
    spread = load_model(
        folder,
        dtype=request.param,
        device_map=MAP,
        offload_folder=tmp_path_factory.mktemp("offload"),
    )
    return load_model(folder, dtype=request.param, device="cpu"), spread


def test_what_is_offloaded_is_not_there_and_yet_everything_is(pair: Any) -> None:
    whole, spread = pair
    assert spread.hf.model.layers[1].mlp.down_proj.weight.is_meta
    assert is_spread(spread.hf)
    assert not is_spread(whole.hf)
    assert spread.device == device_of(spread.hf.lm_head) == torch.device("cpu")
    assert spread.dtype == whole.dtype
    assert spread.fingerprint == whole.fingerprint
    for ours, theirs in zip(spread.anatomy.blocks, whole.anatomy.blocks, strict=True):
        assert torch.equal(ours.W_O(), theirs.W_O())
        assert torch.equal(ours.W_down(), theirs.W_down())
        assert torch.equal(ours.b_down(), theirs.b_down())
    some = [3, 150]
    assert torch.equal(
        linear_map(spread.hf.lm_head, only=some), linear_map(whole.hf.lm_head, only=some)
    )
    part = spread.hf.model.layers[1].mlp
    with loaded(part):
        assert not part.down_proj.weight.is_meta
    assert part.down_proj.weight.is_meta


def test_capture_and_generation(pair: Any) -> None:
    sites = [Site(layer, k) for layer in range(3) for k in ("resid_post", "z", "mlp_post")]
    found: list[dict[Site, torch.Tensor]] = []
    texts: list[Any] = []
    for model in pair:
        seen: dict[Site, torch.Tensor] = {}

        def keep(site: Site, value: torch.Tensor, seen: Any = seen) -> None:
            seen[site] = value.clone()

        with torch.no_grad(), reading(model.anatomy, sites, keep, stop_after=Site(2, "resid_post")):
            model.anatomy.base(input_ids=IDS)
        found.append(seen)
        texts.append(model.generate(["I am", "What a day"], max_new_tokens=6))
    for site in sites:
        assert torch.equal(found[0][site], found[1][site]), site
    assert texts[0] == texts[1]


def test_tied_and_other_families_keep_their_names(tmp_path: Path) -> None:
    source = save(tmp_path / "qwen3", "qwen3")
    names = {n: place for n, place in MAP.items() if n != "lm_head"} | {"lm_head": "cpu"}
    whole = load_model(source, dtype="float32", device="cpu")
    spread = load_model(
        source, dtype="float32", device_map=names, offload_folder=tmp_path / "offload"
    )
    assert spread.fingerprint == whole.fingerprint
    everything = load_model(
        source,
        dtype="float32",
        device_map="auto",
        max_memory={"cpu": 20_000},
        offload_folder=tmp_path / "everything",
    )
    assert everything.hf.model.layers[0].mlp.down_proj.weight.is_meta
    assert everything.fingerprint == whole.fingerprint


def test_maps_that_do_not_fit_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="device of the device map 'autos'"):
        load_model(folder, device_map="autos")
    with pytest.raises(UnknownNameError, match=r"device of the device map 'cuda:7'.*cpu"):
        load_model(folder, device_map={"": 7})
    partial = {k: v for k, v in MAP.items() if k != "model.layers.2"}
    with pytest.raises(ModelError, match=r"layers\.2") as raised:
        load_model(folder, device_map=partial, offload_folder=tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="not both"):
        load_model(folder, device="cpu", device_map="auto")
    with pytest.raises(DataError, match="give a device_map too"):
        load_model(folder, max_memory={"cpu": "1GiB"})
    with pytest.raises(DataError, match="loaded already"):
        load_model(tiny_hf("llama"), tokenizer=tiny_tokenizer(), device_map="auto")
    with pytest.raises(DataError, match="GGUF file is unpacked as a whole"):
        load_model("some.gguf", device_map="auto")
