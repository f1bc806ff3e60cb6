"""Fingerprints: every tensor and every setting counts; formats, shards and places do not."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens import load_model
from affectlens.core import ModelError
from affectlens.models import fingerprint as fp
from affectlens.models import identity
from affectlens.models.fingerprint import checkpoint_fingerprint, config_facts, model_fingerprint
from affectlens.models.identity import (
    ModelIdentity,
    checkpoint_identity,
    known_identity,
    remember_identity,
    text_fingerprint,
)
from tests.conftest import FAMILIES, make_tiny, tiny_hf, tiny_tokenizer

NO_EFFECT = {
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "use_cache",
    "problem_type",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "id2label",
    "label2id",
    "attention_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "hidden_dropout",
    "classifier_dropout",
    "summary_first_dropout",
    "initializer_range",
    "pretraining_tp",
    "dropout",
    "layerdrop",
    "init_std",
    "_attn_implementation",
    "_experts_implementation",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_in_any_tensor_is_seen(family: str) -> None:
    hf = tiny_hf(family)
    names = {"as it was": model_fingerprint(hf)}
    for name, values in hf.named_parameters():
        with torch.no_grad():
            kept = values.clone()
            # One element in the middle: what samples of evenly spaced elements miss.
            values.view(-1)[values.numel() // 2 + 1 if values.numel() > 2 else 0] += 0.5
            names[name] = model_fingerprint(hf)
            values.copy_(kept)
    assert len(set(names.values())) == len(names)
    assert model_fingerprint(hf) == names["as it was"]


@pytest.mark.parametrize("edit", [lambda w: -w, lambda w: 1.1 * w, lambda w: w + 1e-3])
@pytest.mark.parametrize("part", ["down_proj", "v_proj"])
def test_edits_of_a_kind_of_matrix_are_seen(part: str, edit: Callable[[Any], Any]) -> None:
    hf = tiny_hf("llama")
    before = model_fingerprint(hf)
    with torch.no_grad():
        for name, values in hf.named_parameters():
            if name.endswith(f"{part}.weight"):
                values.copy_(edit(values))
    assert model_fingerprint(hf) != before


def test_swapped_layers_and_values_are_seen() -> None:
    hf = tiny_hf("llama")
    names = [model_fingerprint(hf)]
    layers = hf.model.layers
    with torch.no_grad():
        a, b = layers[0].mlp.down_proj.weight, layers[1].mlp.down_proj.weight
        a.data, b.data = b.data, a.data
        names.append(model_fingerprint(hf))
        a[0, 0], a[0, 1] = a[0, 1].clone(), a[0, 0].clone()
        names.append(model_fingerprint(hf))
    assert len(set(names)) == 3


def test_a_persistent_buffer_counts() -> None:
    hf = tiny_hf("llama")
    before = model_fingerprint(hf)
    hf.model.register_buffer("expert_bias", torch.ones(3))
    one = model_fingerprint(hf)
    hf.model.expert_bias[1] = 2.0
    assert len({before, one, model_fingerprint(hf)}) == 3
    hf.model.register_buffer("expert_bias", torch.ones(3), persistent=False)  # made from the config
    assert model_fingerprint(hf) == before


def test_what_changes_a_forward_pass_in_the_config_counts() -> None:
    hf, ids = tiny_hf("llama"), torch.arange(4)[None]
    names = {"as it was": model_fingerprint(hf)}
    with torch.no_grad():
        logits = hf(ids).logits
        for name, value in (("rms_norm_eps", 0.1), ("hidden_act", "gelu")):
            config = copy.deepcopy(hf.config)
            setattr(config, name, value)
            other = type(hf)(config).eval()
            other.load_state_dict(hf.state_dict())
            assert (other(ids).logits - logits).abs().max() > 1e-4
            names[name] = model_fingerprint(other)
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_setting_of_the_config_counts(family: str) -> None:
    """Those that have no effect are named one by one, so that a loose pattern is found out."""
    config = tiny_hf(family).config
    facts = config_facts(config)
    for name, value in config.to_dict().items():
        if fp._NO_EFFECT.fullmatch(name):
            assert name in NO_EFFECT, name
            continue
        changed = copy.deepcopy(config)
        if isinstance(value, bool):
            other: Any = not value
        elif isinstance(value, (int, float)):
            other = value + 1 if isinstance(value, int) else value / 2 + 0.1
        elif isinstance(value, dict) and "rope_theta" in value:
            other = {**value, "rope_theta": 77.0}
        else:
            continue
        try:
            setattr(changed, name, other)
        except (AttributeError, TypeError):  # derived from others
            continue
        assert config_facts(changed) != facts, name


def test_what_has_no_effect_in_the_config_does_not_count() -> None:
    hf = tiny_hf("llama")
    before = model_fingerprint(hf)
    for name, value in (
        ("_name_or_path", "elsewhere"), ("use_cache", False), ("attention_dropout", 0.1),
        ("eos_token_id", 7), ("pad_token_id", 9), ("transformers_version", "9"),
        ("output_attentions", False), ("initializer_range", 1.0),
    ):  # fmt: skip
        setattr(hf.config, name, value)
    hf.set_attn_implementation("eager")
    assert model_fingerprint(hf) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_one_name_in_every_format(family: str) -> None:
    hf = tiny_hf(family)
    full = model_fingerprint(hf)
    half = copy.deepcopy(hf).to(torch.bfloat16)
    assert model_fingerprint(half) == full
    # What was saved in bfloat16 has the same name in float16.
    assert model_fingerprint(half.to(torch.float16)) == full


def test_small_weights_do_not_vanish() -> None:
    tiny = 1e-6 * torch.arange(1, 9)
    assert fp.tensor_digest(tiny) != fp.tensor_digest(-tiny)
    assert fp.tensor_digest(tiny) == fp.tensor_digest(tiny.to(torch.bfloat16))


def test_tensors_of_whole_numbers_count_exactly() -> None:
    packed = torch.arange(300, dtype=torch.int32)
    other = packed.clone()
    other[299] += 1
    assert fp.tensor_digest(packed) != fp.tensor_digest(other)
    assert fp.tensor_digest(packed > 7) != fp.tensor_digest(packed > 8)


def test_pieces_of_a_large_tensor_are_hashed_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = fp.tensor_digest(values)
    monkeypatch.setattr(fp, "_PIECE", 64)
    assert fp.tensor_digest(values) == whole
    assert fp.tensor_digest(values.roll(64)) != whole


def test_sharded_files_and_files_of_another_format_have_the_models_name(tmp_path: Path) -> None:
    for family in ("llama", "gemma3", "gpt2"):
        hf = tiny_hf(family)
        name = model_fingerprint(hf)
        for kind, options in (("whole", {}), ("shards", {"max_shard_size": "8kB"})):
            folder = tmp_path / family / kind
            hf.save_pretrained(folder, **options)
            assert (len(list(folder.glob("*.safetensors"))) > 1) == (kind == "shards")
            assert checkpoint_fingerprint(folder) == name
        half = tmp_path / family / "half"
        copy.deepcopy(hf).to(torch.bfloat16).save_pretrained(half)
        assert checkpoint_fingerprint(half) == name


def test_weights_that_are_not_in_memory_are_refused() -> None:
    hf = tiny_hf("llama").to("meta")
    with pytest.raises(ModelError, match="not loaded"):
        model_fingerprint(hf)


def test_a_checkpoint_in_float32_has_one_name_in_float16(tmp_path: Path) -> None:
    tiny_hf("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    names = {load_model(tmp_path, dtype=d).fingerprint for d in ("float32", "float16", "bfloat16")}
    assert len(names) == 1


def test_a_model_that_is_changed_after_it_was_loaded_has_another_name() -> None:
    model = make_tiny("llama")
    names = [model.fingerprint]
    assert model.fingerprint == names[0]
    down: Any = model.anatomy.blocks[2].down_proj
    with torch.no_grad():
        down.weight.mul_(-1)
    names.append(model.fingerprint)
    down.weight.data += 0.1 * torch.ones_like(down.weight)  # as adapters are merged
    names.append(model.fingerprint)
    model.hf.config.rms_norm_eps = 0.5
    names.append(model.fingerprint)
    assert len(set(names)) == 4
    assert names[-1] == model_fingerprint(model.hf)


def test_names_are_remembered_by_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "WORTH_REMEMBERING", 0)
    folder = tmp_path / "model"
    hf, tokenizer = tiny_hf("llama"), tiny_tokenizer()
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert known_identity(folder) is None
    model = load_model(folder, dtype="float32")
    wanted = ModelIdentity(model_fingerprint(hf), text_fingerprint(model.tokenizer))
    assert known_identity(folder) == known_identity(str(folder)) == wanted
    assert model.fingerprint == wanted.weights
    assert checkpoint_identity(folder) == wanted.weights

    # Other weights of equal size, in the same file and with the same time.
    file = folder / "model.safetensors"
    stat, raw = file.stat(), bytearray(file.read_bytes())
    raw[-2] ^= 0x40
    file.write_bytes(raw)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert known_identity(folder) is None
    assert checkpoint_identity(folder) != wanted.weights
    assert load_model(folder, dtype="float32").fingerprint == checkpoint_fingerprint(folder)

    damaged = next((tmp_path / "cache" / "identities").iterdir())
    for note in damaged.parent.iterdir():
        note.write_text("{")
    assert known_identity(folder) is None


def test_nothing_is_remembered_of_small_models_and_of_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))
    tiny_hf("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    load_model(tmp_path / "model")
    remember_identity("no/such-model", ModelIdentity("x"))
    assert known_identity("no/such-model") is None
    assert not (tmp_path / "cache").exists()


def test_the_text_fingerprint_names_template_and_tokenizer(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    before = text_fingerprint(tokenizer)
    tokenizer(["a", "a longer one"], padding=True, truncation=True, max_length=3)
    assert text_fingerprint(tokenizer) == before  # settings of a call are none of the tokenizer
    tokenizer.save_pretrained(tmp_path)
    import transformers

    assert text_fingerprint(transformers.AutoTokenizer.from_pretrained(tmp_path)) == before
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_end|><|im_start|>"))
    assert text_fingerprint(transformers.AutoTokenizer.from_pretrained(tmp_path)) != before
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["model"]["merges"] = raw["model"]["merges"][:-1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    template.write_text(tokenizer.chat_template)
    assert text_fingerprint(transformers.AutoTokenizer.from_pretrained(tmp_path)) != before
    tokenizer.add_special_tokens({"eos_token": "<|pad|>"})
    assert text_fingerprint(tokenizer) != before


def test_an_unchanged_model_is_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny("llama")
    name = model.fingerprint
    monkeypatch.setattr(fp, "model_fingerprint", lambda _hf: "hashed again")
    assert model.fingerprint == name
    with torch.no_grad():
        model.anatomy.blocks[0].down_proj.weight.mul_(2)  # type: ignore[operator]
    assert model.fingerprint == "hashed again"
