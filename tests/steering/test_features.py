"""Features of dictionaries: what they add against plain hooks, and what is refused."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.core import AffectLensError, ArtefactError, DataError, MismatchError
from affectlens.core.errors import UnknownNameError
from affectlens.steering import SteeringPack
from affectlens.steering.features import import_features, labelled_features
from affectlens.steering.formats.dictionaries import DICTIONARIES
from tests.steering import vector_tools as tools

IDS = torch.tensor([[5, 17, 33, 90, 12, 61, 7, 44], [101, 9, 8, 7, 6, 5, 4, 150]])
FEATURES = 11


def decoder(width: int, seed: int = 0) -> Tensor:
    rows = torch.randn(FEATURES, width, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def saelens(folder: Path, rows: Tensor, **facts: Any) -> Path:
    """As SAELens saves it, of version 6 unless facts are flat."""
    folder.mkdir(parents=True, exist_ok=True)
    width = rows.shape[-1]
    tensors = {
        "W_enc": rows.T.contiguous(),
        "W_dec": rows,
        "b_enc": torch.zeros(len(rows)),
        "b_dec": torch.ones(width),
    }
    (folder / "sae_weights.safetensors").write_bytes(tools.safetensors_bytes(tensors))
    config = {"d_in": width, "d_sae": len(rows), "normalize_activations": "none", **facts}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def at(hook: str, **more: Any) -> dict[str, Any]:
    named = {"hook_name": hook, "model_name": "LlamaForCausalLM", "hook_head_index": None}
    return {"metadata": {**named, **more}}


def gemma_scope(folder: Path, rows: Tensor, **other: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Any] = {"W_dec": rows.numpy(), "b_dec": np.zeros(rows.shape[-1]), **other}
    np.savez(folder / "params.npz", **tables)
    return folder / "params.npz"


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model.hf(input_ids=IDS, use_cache=False).logits


@contextmanager
def hooked(module: Any, vector: Tensor, *, before: bool = False) -> Generator[None]:
    def after(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector, *output[1:])
        return output + vector

    def into(_module: Any, args: Any, kwargs: Any) -> Any:
        return ((args[0] + vector, *args[1:]), kwargs)

    handle = (
        module.register_forward_pre_hook(into, with_kwargs=True)
        if before
        else module.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


WHERE: dict[str, Callable[[Any], Any]] = {
    "blocks.1.hook_resid_post": lambda layers: (layers[1], False),
    "blocks.2.hook_resid_pre": lambda layers: (layers[2], True),
    "blocks.1.hook_mlp_out": lambda layers: (
        getattr(layers[1], "post_feedforward_layernorm", layers[1].mlp),
        False,
    ),
}


@pytest.mark.parametrize("hook", list(WHERE))
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_feature_adds_its_row_of_the_decoder_where_it_was_found(
    family: str, hook: str, tiny_model: Any, tmp_path: Path
) -> None:
    model = tiny_model(family)
    rows = decoder(model.d_model)
    folder = saelens(tmp_path / "sae", rows, **at(hook, model_name=model.name))
    features = {"anger": (folder, 3), "fear": (folder / "sae_weights.safetensors", 7)}
    found = import_features(features, model, "saelens")
    assert found.notes == () and found.pack.layers == {"residual.resid_post": (1,)}
    module, before = WHERE[hook](model.hf.model.layers)
    with hooked(module, 8 * rows[3] - 5 * rows[7], before=before):
        theirs = logits(model)
    with found.pack.steer(model, "anger=8,fear=-5"):
        ours = logits(model)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.dist(ours, logits(model)) > 0.5
    found.pack.save(tmp_path / "pack.safetensors")
    again = SteeringPack.load(tmp_path / "pack.safetensors", model)
    with again.steer(model, "anger=8,fear=-5"):
        assert torch.equal(logits(model), ours)
    assert again.provenance.parameters["imported"]["fear"]["feature"] == 7


def test_older_files_and_transcoders_are_read(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    rows = decoder(model.d_model)
    old = {"hook_point": "blocks.0.hook_resid_post", "model_name": "x/LLAMAforCausalLM"}
    flat = saelens(tmp_path / "old", rows, **old)
    out = at("blocks.0.ln2.hook_normalized", hook_name_out="blocks.2.hook_mlp_out")
    across = saelens(tmp_path / "new", rows, d_out=model.d_model, **{**out, "d_in": 99})
    found = import_features({"a": (flat, 0), "b": (across, 10)}, model, "saelens").pack
    vectors = found.vectors["residual.resid_post"]
    assert found.layers == {"residual.resid_post": (0, 2)}
    assert torch.equal(vectors[0, 0], rows[0]) and torch.equal(vectors[1, 1], rows[10])
    assert not bool(vectors[0, 1].any() or vectors[1, 0].any())
    scaled = saelens(tmp_path / "s", rows, **{**at("blocks.0.hook_resid_post"),
                     "normalize_activations": "layer_norm"})  # fmt: skip
    assert (
        "normalised activations" in import_features({"a": (scaled, 0)}, model, "saelens").notes[0]
    )
    nameless = saelens(tmp_path / "nameless", rows, hook_name="blocks.0.hook_resid_post")
    assert "only the width" in import_features({"a": (nameless, 0)}, model, "saelens").notes[0]


def test_a_row_that_activations_are_rescaled_by_has_norm_1(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    rows = 7 * decoder(model.d_model)
    facts = at("blocks.1.hook_resid_post")
    for flag, size in ((True, 1.0), (False, 7.0)):
        folder = saelens(tmp_path / "sae", rows, **facts, rescale_acts_by_decoder_norm=flag)
        found = import_features({"a": (folder, 2)}, model, "saelens")
        vector = found.pack.vectors["residual.resid_post"][0, 0]
        torch.testing.assert_close(vector, rows[2] * (size / 7))
        assert [("norm 1" in note) for note in found.notes] == [True] * flag
    for reshaped in ("hook_z", True):
        folder = saelens(tmp_path / "z", rows, **facts, reshape_activations=reshaped)
        with pytest.raises(DataError, match="reshape_activations="):
            import_features({"a": (folder, 2)}, model, "saelens")
    folder = saelens(tmp_path / "z", rows, **facts, reshape_activations="none")
    assert import_features({"a": (folder, 2)}, model, "saelens").notes == ()


def test_the_pack_knows_what_it_was_made_of_and_what_was_forced(
    tiny_model: Any, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    rows = decoder(model.d_model)
    post = "blocks.1.hook_resid_post"
    own = saelens(tmp_path / "own", rows, **at(post, model_name=model.name))
    other = saelens(tmp_path / "other", rows, **at(post, model_name="gpt2-small"))
    scope = gemma_scope(tmp_path / "layer_2", rows)
    found = import_features({"a": (own, 0), "b": (other, 1)}, model, "saelens", force=True)
    made_by = found.pack.provenance.parameters["imported"]
    for label, folder in (("a", own), ("b", other)):
        said = hashlib.sha256((folder / "cfg.json").read_bytes()).hexdigest()
        assert made_by[label]["config_sha256"] == said and made_by[label]["block"] == 1
    assert (made_by["a"]["model_name"], made_by["a"]["forced"]) == (model.name, False)
    assert (made_by["b"]["model_name"], made_by["b"]["forced"]) == ("gpt2-small", True)
    (note,) = found.notes
    assert note.startswith("other: ") and "gpt2-small" in note and "forced" in note
    nameless = import_features({"a": (scope, 0)}, model, "gemma-scope", force=True)
    made_by = nameless.pack.provenance.parameters["imported"]["a"]
    assert made_by["config_sha256"] is None and made_by["block"] == 2 and not made_by["forced"]


@pytest.mark.parametrize("packed", [False, True])
def test_gemma_scope_is_read_row_by_row(packed: bool, tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    rows = decoder(model.d_model)
    path = gemma_scope(tmp_path / "layer_2" / "width_16k", rows)
    if packed:
        np.savez_compressed(path, W_dec=rows.numpy())
    for index in (0, FEATURES - 1):
        found = import_features({"joy": (path, index)}, model, "gemma-scope")
        assert found.pack.layers == {"residual.resid_post": (2,)}
        assert torch.equal(found.pack.vectors["residual.resid_post"][0, 0], rows[index])
        assert "only the width" in found.notes[0]
    bare = gemma_scope(tmp_path / "bare", rows)
    with pytest.raises(DataError, match="--layers"):
        import_features({"joy": (bare, 0)}, model, "gemma-scope")
    found = import_features({"joy": (bare, 0)}, model, "gemma-scope", layers="1")
    assert found.pack.layers == {"residual.resid_post": (1,)}
    with pytest.raises(DataError, match="is of block 2"):
        import_features({"joy": (path, 0)}, model, "gemma-scope", layers="1")


def test_what_does_not_fit_is_refused_in_one_sentence(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    d = model.d_model
    rows, post = decoder(d), "blocks.1.hook_resid_post"

    def refused(error: type[Exception], sentence: str, path: Path, index: int = 0,
                format: str = "saelens") -> None:  # fmt: skip
        with pytest.raises(error, match=sentence) as caught:
            import_features({"anger": (path, index)}, model, format)
        assert isinstance(caught.value, AffectLensError) and "\n" not in str(caught.value)

    good = saelens(tmp_path / "good", rows, **at(post))
    refused(DataError, "no feature 11", good, FEATURES)
    refused(UnknownNameError, "dictionary format 'sae'.*saelens", good, 0, "sae")
    wide = saelens(tmp_path / "wide", decoder(d + 1), **at(post))
    refused(MismatchError, f"width {d + 1}", wide)
    other = saelens(tmp_path / "other", rows, **at(post, model_name="gpt2-small"))
    refused(MismatchError, "model gpt2-small, not of Llama", other)
    forced = import_features({"anger": (other, 0)}, model, "saelens", force=True)
    assert torch.equal(forced.pack.vectors["residual.resid_post"][0, 0], rows[0])
    for hook in ("blocks.0.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.attn.hook_z",
                 "layers.1", ""):  # fmt: skip
        refused(DataError, "packs add features at", saelens(tmp_path / "place", rows, **at(hook)))
    far = saelens(tmp_path / "far", rows, **at("blocks.3.hook_resid_post"))
    refused(MismatchError, "block 3", far)
    head = saelens(tmp_path / "head", rows, **at(post, hook_head_index=2))
    refused(DataError, "single head", head)
    refused(ArtefactError, "features 12", saelens(tmp_path / "n", rows, **at(post), d_sae=12))
    dead = rows.clone()
    dead[4] = 0
    dead[5, 0] = torch.nan
    broken = saelens(tmp_path / "dead", dead, **at(post))
    refused(ArtefactError, "Feature 4 .*dead", broken, 4)
    refused(ArtefactError, "NaN", broken, 5)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "cfg.json").write_text(json.dumps(at(post)))
    weights = tmp_path / "flat" / "sae_weights.safetensors"
    weights.write_bytes(tools.safetensors_bytes({"W_enc": rows}))
    refused(ArtefactError, "no W_dec", tmp_path / "flat")
    weights.write_bytes(tools.safetensors_bytes({"W_dec": rows[0]}))
    refused(ArtefactError, "two axes", tmp_path / "flat")
    whole = (good / "sae_weights.safetensors").read_bytes()
    for cut in (0, 7, 40, len(whole) - 20):
        weights.write_bytes(whole[:cut])
        refused(ArtefactError, "damaged", tmp_path / "flat")
    for text in ("[]", "{", "[" * 100_000):
        (good / "cfg.json").write_text(text)
        refused(ArtefactError, "mapping|damaged|JSON", good)
    (good / "cfg.json").unlink()
    refused(ArtefactError, "no file .*cfg.json", good)
    refused(ArtefactError, "no file", tmp_path / "none")  # no such folder: taken for a file


def test_nothing_is_unpickled(tiny_model: Any, tmp_path: Path) -> None:
    model, mark = tiny_model("llama"), tmp_path / "mark"

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (mark,))

    torch.save({"W_dec": Hostile()}, tmp_path / "sae_weights.pt")
    with pytest.raises(ArtefactError, match="not read"):
        import_features({"a": (tmp_path / "sae_weights.pt", 0)}, model, "saelens")
    folder = tmp_path / "layer_1"
    folder.mkdir()
    np.savez(folder / "params.npz", W_dec=np.array([[Hostile()]], dtype=object))
    with pytest.raises(ArtefactError, match="no table of numbers"):
        import_features({"a": (folder / "params.npz", 0)}, model, "gemma-scope")
    assert not mark.exists()
    np.load(folder / "params.npz", allow_pickle=True)["W_dec"]
    assert mark.exists(), "it would have done harm"


def test_archives_that_lie_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    rows = decoder(model.d_model)

    def refused(error: type[Exception], sentence: str, path: Path) -> None:
        with pytest.raises(error, match=sentence) as caught:
            import_features({"anger": (path, 0)}, model, "gemma-scope")
        assert "\n" not in str(caught.value)

    path = gemma_scope(tmp_path / "layer_1", rows)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:cut])
        refused(ArtefactError, "damaged", path)
    np.savez(path, W_enc=rows.numpy())
    refused(ArtefactError, "no W_dec", path)
    for table in (rows.numpy()[0], np.asfortranarray(rows.numpy()), np.ones((4, 4), np.int64)):
        np.savez(path, W_dec=table)
        refused(ArtefactError, "no table of numbers", path)
    np.savez(path, W_dec=rows.numpy())
    with zipfile.ZipFile(path) as archive:
        content = archive.read("W_dec.npy")
    claims = content.replace(f"({FEATURES}, {model.d_model})".encode(), b"(10000000, 900000)"[:18])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("W_dec.npy", claims)
    refused(ArtefactError, "damaged", path)
    heads = gemma_scope(tmp_path / "gemma-scope-2b-pt-att" / "layer_1", rows)
    refused(DataError, "heads", heads)


def test_only_the_scopes_own_folders_are_of_heads(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    rows = decoder(model.d_model)
    for name in ("my-attempt", "gemma-scope-attempts", "no-att"):
        path = gemma_scope(tmp_path / name / "gemma-scope-2b-pt-res" / "layer_1", rows)
        found = import_features({"a": (path, 0)}, model, "gemma-scope")
        assert found.pack.layers == {"residual.resid_post": (1,)}
        monkeypatch.chdir(path.parent)
        inside = import_features({"a": ("params.npz", 0)}, model, "gemma-scope")
        assert inside.pack.layers == {"residual.resid_post": (1,)}
    for name in ("gemma-scope-2b-pt-att", "models--google--gemma-scope-9b-pt-att-canonical"):
        path = gemma_scope(tmp_path / name / "layer_1", rows)
        monkeypatch.chdir(path.parent)
        for given in (path, "params.npz"):
            with pytest.raises(DataError, match="heads"):
                import_features({"a": (given, 0)}, model, "gemma-scope")


def test_features_are_named_on_the_command_line() -> None:
    found = labelled_features(["anger=some/folder:12", r"joy=C:\sae\params.npz:3"])
    assert found == {"anger": (Path("some/folder"), 12), "joy": (Path(r"C:\sae\params.npz"), 3)}
    for wrong in ("anger", "anger=folder", "anger=folder:", "anger=folder:-1", "=f:1", "a=f:x"):
        with pytest.raises(DataError, match="LABEL=FILE:FEATURE"):
            labelled_features([wrong])
    with pytest.raises(DataError, match="two features for a"):
        labelled_features(["a=f:1", "a=f:2"])
    assert list(DICTIONARIES) == ["saelens", "gemma-scope"]
