"""Tiny random models of nine families, and the real default model."""

from __future__ import annotations

import os

# Before torch: many small matrices, and machines shared by several runs.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Ray's workers are nice to all others, so that beside other tests they would wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

CHECKED = [
    "affectlens.core",
    *(
        f"affectlens.models.{name}"
        for name in ("anatomy", "hooking.hooks", "loading", "fingerprint")
    ),
]
"""Modules whose annotations, tensor shapes included, are checked at every call in tests."""

install_import_hook(CHECKED, "beartype.beartype")

FAMILIES = ("llama", "qwen3", "gemma3", "mistral", "gpt2", "gpt_neox", "olmo2", "phi3", "opt")
N_LAYERS, D_MODEL, N_HEADS, N_KV_HEADS, D_MLP, VOCAB, CONTEXT = 3, 32, 4, 2, 64, 200, 256

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TRAINING_TEXT = (
    "The train was cancelled and I am so angry about it.",
    "What a lovely surprise, thank you! I feel happy today.",
    "She is afraid of the dark, and he was sad when they left.",
    "system user assistant You are a person who feels disgust.",
)


@pytest.fixture(scope="session", autouse=True)
def commands_are_built_once() -> Iterator[None]:
    """Tests call the command line a thousand times, and to build all commands takes 0.2 s."""
    import typer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lru_cache(typer.main.get_command))
        yield


def tiny_tokenizer() -> Any:
    """Byte-level BPE of 200 tokens that knows ASCII only, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # Only bytes that occur in English text, so that the vocabulary stays small.
    alphabet = sorted({c for c in pre_tokenizers.ByteLevel.alphabet() if c.isascii()} | {"Ġ", "Ċ"})
    bpe = Tokenizer(models.BPE(unk_token="<|unk|>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(_TRAINING_TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        unk_token="<|unk|>",
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_config(family: str) -> Any:
    """A config with 3 layers, 4 heads over 2 key-value heads where the family has them."""
    import transformers as tf

    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "intermediate_size": D_MLP,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    grouped = {**common, "num_key_value_heads": N_KV_HEADS}
    # head_dim * heads differs from hidden_size in some, as it does in real models.
    match family:
        case "llama":
            return tf.LlamaConfig(**grouped, attention_bias=True, mlp_bias=True)
        case "qwen3":
            return tf.Qwen3Config(**grouped, head_dim=12, tie_word_embeddings=True)
        case "gemma3":
            return tf.Gemma3TextConfig(
                **grouped,
                head_dim=16,
                sliding_window=8,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            )
        case "mistral":
            return tf.MistralConfig(**grouped, sliding_window=None)
        case "gpt2":
            return tf.GPT2Config(
                vocab_size=VOCAB,
                n_embd=D_MODEL,
                n_layer=N_LAYERS,
                n_head=N_HEADS,
                n_inner=D_MLP,
                n_positions=CONTEXT,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        case "gpt_neox":
            return tf.GPTNeoXConfig(**common)
        case "olmo2":
            return tf.Olmo2Config(**grouped)
        case "phi3":
            return tf.Phi3Config(**grouped)
        case "opt":
            return tf.OPTConfig(
                **common, ffn_dim=D_MLP, word_embed_proj_dim=D_MODEL, tie_word_embeddings=False
            )
        case _:
            raise ValueError(family)


def tiny_hf(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random Hugging Face model: norm weights far from trivial, every bias non-zero."""
    import torch
    import transformers as tf

    config = tiny_config(family)
    for name, value in changes.items():
        setattr(config, name, value)
    generator = torch.Generator().manual_seed(seed)
    hf = tf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in sorted(hf.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                norm = "norm" in name or ".ln_" in name
                parameter.copy_(0.3 * noise + (0.8 if norm and name.endswith("weight") else 0.1))
            else:
                parameter.copy_(noise * 0.5 / parameter.shape[-1] ** 0.25)
    return hf


def make_tiny(family: str, seed: int = 0, **changes: Any) -> LanguageModel:
    """`tiny_hf` with `tiny_tokenizer`, loaded by the package."""
    from affectlens.models.loading import load_model

    return load_model(tiny_hf(family, seed, **changes), tokenizer=tiny_tokenizer())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--notebooks-to", default=None, help="keep executed notebooks in this folder")


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., LanguageModel]:
    """``tiny_model(family, seed=0)`` -> LanguageModel; the same object for the same arguments."""
    made: dict[Any, LanguageModel] = {}

    def get(family: str = "llama", seed: int = 0, **changes: Any) -> LanguageModel:
        key = (family, seed, tuple(sorted(changes.items())))
        if key not in made:
            made[key] = make_tiny(family, seed, **changes)
        return made[key]

    return get


@pytest.fixture(params=FAMILIES)
def each_model(request: pytest.FixtureRequest, tiny_model: Any) -> LanguageModel:
    """A tiny model of each family in turn."""
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def real_model() -> LanguageModel:
    """The default model; mark the test with ``@pytest.mark.model``."""
    from affectlens.models.loading import load_model

    return load_model("smollm2-135m-instruct")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"])))


@pytest.fixture(scope="session")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder of a tiny run that has come as far as its packs; ``model`` and ``run`` are in it."""
    from dataclasses import replace

    from affectlens.pipeline import RunConfig, run
    from affectlens.pipeline.settings import Settings
    from tests.tiny_run import options, save_model, small

    folder = tmp_path_factory.mktemp("packed")
    save_model(folder, positions=4096)  # examples before a prompt are many letters
    config = RunConfig.checked(**options(folder))
    settings = small(Settings.of(config))
    few = replace(settings.activations, per_split=3)
    run(config, settings=replace(settings, activations=few), until="pack")
    return folder
