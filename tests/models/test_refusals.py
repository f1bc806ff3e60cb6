"""What cannot be used is refused from its config or its files, before a weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from affectlens.core.errors import DataError, ModelError
from affectlens.models.anatomy.description import describe
from affectlens.models.chat.chats import render
from affectlens.models.loading import load_model
from tests.conftest import make_tiny, tiny_hf, tiny_tokenizer

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32}

CONFIGS: dict[str, tuple[Mapping[str, Any], str]] = {
    "t5": (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        r"is an encoder-decoder \(T5ForConditionalGeneration\)",
    ),
    "bart": ({"model_type": "bart"}, r"is an encoder-decoder \(bart\)"),
    "whisper": (
        {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
        "is an encoder-decoder",
    ),
    "vision and text in two stacks": (
        {"model_type": "florence2", "architectures": ["Florence2ForConditionalGeneration"]},
        "is an encoder-decoder",
    ),
    "labels of texts": (
        {**LLAMA, "architectures": ["LlamaForSequenceClassification"]},
        r"is a classifier \(LlamaForSequenceClassification\)",
    ),
    "labels of tokens": (
        {"model_type": "bert", "architectures": ["BertForTokenClassification"]},
        "is a classifier",
    ),
    "reward": ({**LLAMA, "architectures": ["LlamaForRewardModel"]}, "is a classifier"),
    "gaps": (
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        "reads in both directions",
    ),
    "gaps, unnamed": ({"model_type": "roberta"}, r"reads in both directions \(roberta\)"),
    "embeddings of texts": (
        {
            "model_type": "gemma3_text",
            "architectures": ["Gemma3TextModel"],
            "use_bidirectional_attention": True,
        },
        "reads in both directions",
    ),
    "no head": (
        {**LLAMA, "architectures": ["LlamaModel"]},
        r"ends before the unembedding \(LlamaModel\)",
    ),
    "pictures": (
        {"model_type": "vit", "architectures": ["ViTForImageClassification"]},
        "is no language model",
    ),
    "sound": (
        {"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]},
        "is no language model",
    ),
    "part of a diffusion pipeline": (
        {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30.0"},
        r"belongs to a diffusion pipeline \(UNet2DConditionModel\)",
    ),
    "diffusion of texts": (
        {"model_type": "diffusion_gemma"},
        "writes by diffusion",
    ),
    "code of its own": (
        {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling.Own"}},
        r"needs Python code that comes with it .* or load it yourself and pass the object",
    ),
    "unknown type": (
        {"model_type": "llama99", "architectures": ["Llama99ForCausalLM"]},
        f"of the type 'llama99', which transformers {transformers.__version__} does not know",
    ),
    "no type": ({"hidden_size": 32}, r"config\.json without a model_type"),
    "MLX": ({**LLAMA, "quantization": {"group_size": 64, "bits": 4}}, "quantised for MLX"),
    "MLX, twice": (
        {
            **LLAMA,
            "quantization": {"group_size": 64, "bits": 4},
            "quantization_config": {"group_size": 64, "bits": 4},
        },
        "quantised for MLX",
    ),
    "unnamed quantisation": (
        {**LLAMA, "quantization_config": {"bits": 4}},
        "quantization_config without a quant_method",
    ),
    "unknown quantisation": (
        {**LLAMA, "quantization_config": {"quant_method": "exl2", "bits": 4}},
        "is quantised by exl2, which transformers .* cannot read",
    ),
    "absent package": (
        {**LLAMA, "quantization_config": {"quant_method": "vptq"}},
        r"is quantised by vptq, which needs vptq: pip install vptq",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_alone_is_enough(name: str, tmp_path: Path) -> None:
    """The folder holds nothing else: neither weights nor tokenizer were looked for."""
    config, words = CONFIGS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for look in (load_model, lambda path: describe(str(path))):
        with pytest.raises(ModelError, match=words) as raised:
            look(tmp_path)
        _is_one_sentence(str(raised.value))


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    """A head that is the embedding is not missing."""
    torch.manual_seed(0)
    hf = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, tie_word_embeddings=True,
        )
    )  # fmt: skip
    hf.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaModel"]
    model = load_model(tmp_path, dtype="float32", device="cpu")
    ids = torch.tensor([[5, 17, 33]])
    with torch.no_grad():
        wanted = hf.eval()(ids).last_hidden_state @ hf.embed_tokens.weight.T
        torch.testing.assert_close(model.hf(ids).logits, wanted)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: transformers.T5ForConditionalGeneration(
                transformers.T5Config(vocab_size=200, d_model=16, d_ff=16, num_layers=1)
            ),
            "T5ForConditionalGeneration is an encoder-decoder: its text",
        ),
        (
            lambda: transformers.LlamaForSequenceClassification(tiny_hf("llama").config),
            "LlamaForSequenceClassification is a classifier: it has",
        ),
        (lambda: tiny_hf("llama").model, "ends before the unembedding"),
        (
            lambda: transformers.BertForMaskedLM(
                transformers.BertConfig(
                    vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
                )
            ),
            "BertForMaskedLM reads in both directions: it",
        ),
    ],
)
def test_objects_are_held_to_the_same(make: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(make(), tokenizer=tiny_tokenizer())


FOLDERS: dict[str, tuple[Mapping[str, str], str]] = {
    "diffusion": ({"model_index.json": "{}"}, "holds a diffusion pipeline"),
    "adapter": ({"adapter_config.json": "{}"}, "does not name the model that the adapter is for"),
    "damaged adapter": ({"adapter_config.json": "{"}, r"adapter_config\.json is damaged"),
    "adapter of nothing": (
        {"adapter_config.json": '{"base_model_name_or_path": "x/y"}'},
        r"holds no adapter_model\.safetensors; save the adapter as safetensors",
    ),
    "maker's format": ({"params.json": "{}"}, r"its maker's own format \(params\.json"),
    "GGUF": ({"a.gguf": "GGUF"}, r"holds GGUF files; give the file itself: .*a\.gguf\.$"),
    "GGUF and config": (
        {"config.json": json.dumps(LLAMA), "a.gguf": "GGUF"},
        r"give the file itself: .*a\.gguf\.$",
    ),
    "TensorFlow": (
        {"config.json": json.dumps(LLAMA), "tf_model.h5": ""},
        r"holds weights for TensorFlow \(tf_model\.h5\)",
    ),
    "ONNX": (
        {"config.json": json.dumps(LLAMA), "onnx/model.onnx": ""},
        r"holds weights for ONNX \(onnx/model\.onnx\)",
    ),
    "pointer": (
        {
            "config.json": json.dumps(LLAMA),
            "model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        },
        "is a pointer of Git LFS, not the weights; run `git lfs pull`",
    ),
    "no JSON": ({"config.json": "{"}, "not a valid JSON file"),
    "list": ({"config.json": "[1]"}, "without a model_type"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_other_things_are_named(name: str, tmp_path: Path) -> None:
    files, words = FOLDERS[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    with pytest.raises(ModelError, match=words) as raised:
        load_model(tmp_path)
    _is_one_sentence(str(raised.value))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    tiny_hf("llama").save_pretrained(path, max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(path)
    return path


def test_shards_are_counted(sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "copy"))
    shards = sorted(folder.glob("*.safetensors"))
    total = len(shards)
    assert total >= 3
    assert load_model(folder).n_layers == 3
    index = folder / "model.safetensors.index.json"
    told = index.read_text()
    index.unlink()
    with pytest.raises(ModelError, match=r"lacks model\.safetensors\.index\.json"):
        load_model(folder)
    shards[-1].rename(tmp_path / "away")
    with pytest.raises(ModelError, match=rf"lacks 1 of its {total} weight .*{shards[-1].name}\)"):
        load_model(folder)
    index.write_text(told)
    with pytest.raises(ModelError, match=rf"lacks 1 of its {total} weight files"):
        load_model(folder)
    shards[0].unlink()
    with pytest.raises(ModelError, match=rf"lacks 2 of its {total} .*{shards[0].name} and 1 more"):
        load_model(folder)
    index.write_text("{}")
    with pytest.raises(ModelError, match=r"index\.json is damaged"):
        load_model(folder)


def test_an_index_of_another_version_is_noticed(sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "copy"))
    shard = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    gone = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != gone}, shard, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{shard.name} holds no {gone}, which model\."):
        load_model(folder)


def test_weights_that_do_not_fit_are_named(sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"have another shape .*down_proj.weight is 32×64, not 32"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").unlink()
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= {f"x.{name}": value for name, value in load_file(file).items()}
        file.unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"it holds \d+ of other names \(x\.lm_head"):
        load_model(folder)


def test_tokenizers_are_read_before_weights(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "copy"))
    given = tiny_tokenizer()
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / file).unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer: fetch its tokenizer files too"):
        load_model(folder)
    assert load_model(folder, tokenizer=given).tokenizer is given

    def weights_are_read(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", weights_are_read)
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_model(folder)
    told = folder / "tokenizer_config.json"
    told.write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(ModelError, match="knows no words: fetch its tokenizer files too"):
        load_model(folder)
    told.write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    with pytest.raises(ModelError, match=r"tokenizer of .* needs Python code that comes with it"):
        load_model(folder)
    told.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"The tokenizer of .* cannot be read \(.*\); fetch its"):
        load_model(folder)


def _gguf(path: Path, family: str) -> Path:
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("file", "family", "words"),
    [
        ("a.gguf", "wonder", r"cannot read GGUF files of the family 'wonder' \("),
        ("mmproj.gguf", "clip", "the part of a model that reads images or sound"),
        ("m-00001-of-00003.gguf", "llama", "is one of 3 parts of a GGUF file; join them"),
        ("b.gguf", "t5", "is an encoder-decoder"),
    ],
)
def test_ggufs_are_told_by_their_header(file: str, family: str, words: str, tmp_path: Path) -> None:
    path = _gguf(tmp_path / file, family)
    for look in (load_model, lambda path: describe(str(path))):
        with pytest.raises(ModelError, match=words) as raised:
            look(path)
        _is_one_sentence(str(raised.value))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"type": "image", "url": "a.png"}, {"type": "text", "text": "Hi"}], "holds an image"),
        ([{"type": "image_url", "image_url": {"url": "a.png"}}], "holds an image"),
        ([{"type": "input_audio"}], "holds sound"),
        ([{"type": "video"}], "holds a video"),
    ],
)
def test_an_image_in_a_message_is_refused_in_words(content: Any, words: str) -> None:
    model = make_tiny("llama")
    with pytest.raises(DataError, match=rf"A user message {words}; affectlens reads text only"):
        render(model.tokenizer, [{"role": "user", "content": content}], add_generation_prompt=True)


def _is_one_sentence(message: str) -> None:
    assert message.endswith(".")
    assert "\n" not in message
    assert "above" not in message
