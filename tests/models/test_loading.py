"""Every way to load a model, and every way it can fail."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from affectlens.core.errors import DataError, ModelError, UnknownNameError
from affectlens.core.places import KINDS, Site
from affectlens.models.anatomy.description import describe
from affectlens.models.devices import _cpu_flags_say_bfloat16, pick_device, pick_dtype
from affectlens.models.hooking.hooks import reading
from affectlens.models.loading import load_model
from tests.conftest import FAMILIES, make_tiny, tiny_hf, tiny_tokenizer

IDS = torch.tensor([[5, 17, 33, 42, 8, 99]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_hf("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_folder_gives_the_same_model_as_the_object(folder: Path) -> None:
    loaded, direct = load_model(folder, dtype="float32", device="cpu"), make_tiny("llama")
    assert torch.equal(loaded.hf(input_ids=IDS).logits, direct.hf(input_ids=IDS).logits)
    assert loaded.fingerprint == direct.fingerprint
    assert loaded.hf.config._attn_implementation == "sdpa"
    assert not loaded.hf.training
    assert loaded.name == str(folder)
    assert (loaded.n_layers, loaded.d_model, loaded.context_length) == (3, 32, 256)
    assert (loaded.eos_ids, loaded.pad_id) == ((2,), 0)


def test_dtype_is_what_was_asked_for_or_what_the_machine_is_fast_at(folder: Path) -> None:
    assert load_model(folder, dtype="float32").dtype == torch.float32
    assert load_model(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert load_model(str(folder), device="cpu").dtype == pick_dtype(None, torch.device("cpu"))
    with pytest.raises(UnknownNameError, match="'float31'; choose one of: float32"):
        load_model(folder, dtype="float31")
    with pytest.raises(UnknownNameError, match="device 'cuda:77'"):
        load_model(folder, device="cuda:77")
    assert pick_device("cpu") == torch.device("cpu")


def test_cpu_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    for line, wanted in (
        ("flags\t\t: fpu avx512f avx512_bf16 sse", True),
        ("flags : fpu avx2 avx512f", False),
        ("Features : fp asimd bf16 i8mm", True),
        ("model name : bf16 machine", False),
    ):
        info.write_text(line)
        assert _cpu_flags_say_bfloat16(info) == wanted
    assert not _cpu_flags_say_bfloat16(tmp_path / "none")


def test_a_soft_cap_on_attention_is_kept(tmp_path: Path) -> None:
    """Transformers would pick sdpa, which leaves it out."""
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64, query_pre_attn_scalar=1,
        initializer_range=0.5, attn_logit_softcapping=2.0,
    )  # fmt: skip
    hf = transformers.Gemma2ForCausalLM(config).eval()
    hf.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    ids = torch.tensor([[5, 17, 33, 42, 8, 99]])
    with torch.no_grad():
        hf.set_attn_implementation("eager")
        wanted = hf(ids).logits
        for layer in hf.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        without = hf(ids).logits
        found = load_model(tmp_path, dtype="float32").hf(ids).logits
    assert (wanted - without).abs().max() > 1e-3
    torch.testing.assert_close(found, wanted)


def test_the_fingerprint_names_the_weights(folder: Path) -> None:
    names = {family: make_tiny(family).fingerprint for family in FAMILIES}
    assert len(set(names.values())) == len(FAMILIES)
    assert make_tiny("llama", seed=1).fingerprint != names["llama"]
    assert load_model(folder, dtype="bfloat16").fingerprint == names["llama"]
    changed = tiny_hf("llama")
    with torch.no_grad():
        changed.model.embed_tokens.weight.mul_(1.1)
        changed.model.layers[1].mlp.down_proj.weight.mul_(1.1)
        changed.lm_head.weight.mul_(1.1)
    assert load_model(changed, tokenizer=tiny_tokenizer()).fingerprint != names["llama"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_bridge_reads_as_transformer_lens_does(family: str) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    plain, hf = make_tiny(family), tiny_hf(family)
    bridge = build_bridge_from_module(
        hf, type(hf).__name__, hf_config=hf.config, tokenizer=tiny_tokenizer()
    )
    model = load_model(bridge)
    assert model.hf is hf
    assert model.fingerprint == plain.fingerprint
    sites = [
        Site(layer, kind)
        for layer in range(3)
        for kind in KINDS
        if kind != "resid_mid" or family != "gpt_neox"
    ]
    captured: list[dict[Site, torch.Tensor]] = []
    with torch.no_grad():
        for each in (model, plain):
            seen: dict[Site, torch.Tensor] = {}
            with reading(
                each.anatomy, sites, lambda site, value, seen=seen: seen.update({site: value})
            ):
                each.anatomy.base(input_ids=IDS, attention_mask=torch.ones_like(IDS))
            captured.append(seen)
        _, cache = bridge.run_with_cache(IDS)
    for site in sites:
        wanted = cache[site.hook_name].reshape(captured[0][site].shape)
        for seen in captured:
            torch.testing.assert_close(seen[site], wanted, atol=1e-5, rtol=1e-5, msg=str(site))
    part, raw = model.anatomy.blocks[1], plain.anatomy.blocks[1]
    assert torch.equal(part.W_O(), raw.W_O())
    assert torch.equal(part.W_down(), raw.W_down())


def test_a_bridge_with_folded_weights_is_refused() -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    hf = tiny_hf("llama")
    bridge = build_bridge_from_module(
        hf, type(hf).__name__, hf_config=hf.config, tokenizer=tiny_tokenizer()
    )
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ModelError, match="compatibility mode"):
        load_model(bridge)


def test_objects_that_are_no_models_are_refused() -> None:
    with pytest.raises(ModelError, match="A dict is not a language model"):
        load_model({})
    with pytest.raises(ModelError, match=r"needs its tokenizer"):
        load_model(tiny_hf("llama"))


def test_an_unknown_name_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any) -> None:
        raise AssertionError("an unknown name must not go to the network")

    monkeypatch.setattr(socket, "create_connection", no_network)
    with pytest.raises(
        UnknownNameError, match=r"built in: smollm2-135m-instruct, gemma-3-270m; or"
    ):
        load_model("smolm2")
    with pytest.raises(ModelError, match="minilm is an encoder for judges"):
        load_model("minilm")
    with pytest.raises(ModelError, match=r"There is no file .*none\.gguf"):
        load_model("none.gguf")
    with pytest.raises(UnknownNameError, match="Unknown model"):
        load_model("/no/such/folder/anywhere")


def test_a_hub_id_that_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"Could not load nobody/nothing.*hub") as raised:
        load_model("nobody/nothing")
    assert "\n" not in str(raised.value)


def test_a_truncated_weight_file_is_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"model\.safetensors is cut short"):
            load_model(copy)
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="cut short or damaged"):
        load_model(copy)
    file.write_bytes(whole)
    assert load_model(copy).n_layers == 3


def test_missing_weights_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the 51 weights .*layers\.1\.mlp\.down"):
        load_model(copy)


def test_pickled_weights_and_folders_without_a_model_are_refused(
    copy: Path, tmp_path: Path
) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights"):
        load_model(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(copy)
    note = tmp_path / "note.txt"
    note.write_text("hello")
    with pytest.raises(ModelError, match=r"neither a model folder nor a \.gguf file"):
        load_model(str(note))


def test_code_that_comes_with_a_model_is_not_run(copy: Path, tmp_path: Path) -> None:
    evil = tmp_path / "ran"
    code = f"open({str(evil)!r}, 'w')\nfrom transformers import LlamaConfig as C\n"
    (copy / "evil.py").write_text(code + "from transformers import LlamaForCausalLM as M\n")
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    config["model_type"] = "evil"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"needs Python code that comes with it"):
        load_model(copy)
    assert not evil.exists()


def test_batches(tiny_model: Any) -> None:
    model = tiny_model("llama")
    left, mask = model.encode_batch([[5, 6, 7], [8]], side="left")
    assert left.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert model.position_ids(mask).tolist() == [[0, 1, 2], [0, 0, 0]]
    right, mask = model.encode_batch([[5, 6, 7], [8]], side="right")
    assert right.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert model.position_ids(mask).tolist() == [[0, 1, 2], [0, 0, 0]]
    for rows in ([], [[1], []]):
        with pytest.raises(DataError, match="at least one token"):
            model.encode_batch(rows, side="left")
    with pytest.raises(DataError, match="Token id 200 is outside the vocabulary"):
        model.encode_batch([[200]], side="left")
    with pytest.raises(UnknownNameError, match="'middle'"):
        model.encode_batch([[1]], side="middle")


def test_a_tokenizer_that_names_the_wrong_end_is_corrected() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|im_start|>"
    model = load_model(tiny_hf("llama"), tokenizer=tokenizer)
    assert model.eos_ids[0] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = None
    assert load_model(tiny_hf("gpt2"), tokenizer=tokenizer).eos_ids == (1, 2)
    tokenizer.pad_token = None
    assert load_model(tiny_hf("gpt2"), tokenizer=tokenizer).pad_id == 1


def test_describe_needs_no_weights(copy: Path) -> None:
    about = describe(str(copy))
    assert (about["family"], about["n_layers"], about["n_kv_heads"]) == ("LlamaForCausalLM", 3, 2)
    assert about["vocabulary"] == 200
    assert about["parameters"] == sum(p.numel() for p in tiny_hf("llama").parameters())
    assert about["weight_bytes"] == (copy / "model.safetensors").stat().st_size
    with pytest.raises(UnknownNameError):
        describe("nothing")


@pytest.mark.model
def test_the_default_model_speaks_english_and_knows_its_end(real_model: Any) -> None:
    from affectlens.models.weights import english_loss

    assert english_loss(real_model.hf, real_model.tokenizer) < 3.5
    assert real_model.eos_ids == (2,)
    assert real_model.pad_id == 2
    assert real_model.tokenizer.convert_ids_to_tokens(2) == "<|im_end|>"
    text = real_model.tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.model
def test_the_default_model_has_one_fingerprint_in_both_dtypes(real_model: Any) -> None:
    other = torch.float32 if real_model.dtype == torch.bfloat16 else torch.bfloat16
    again = load_model("smollm2-135m-instruct", dtype=other, device="cpu")
    assert again.dtype == other
    assert again.fingerprint == real_model.fingerprint
