"""Reading weights from folders, GGUF files and the hub, with checks first and last.

Only safetensors and GGUF are read: pickled weights can run code, and so can code from the hub.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from affectlens.core.errors import ModelError
from affectlens.models.chat.special_tokens import end_of_turn
from affectlens.models.chat.tokenizers import read_tokenizer
from affectlens.models.checkpoint_files import check_weight_files
from affectlens.models.configs import auto_class, read_config
from affectlens.models.library_bars import no_library_bars
from affectlens.models.reading_errors import one_sentence

ENGLISH = "The weather was nice yesterday, so we went for a walk in the park with our two dogs."
MAX_LOSS = 7.0
"""Nats per token on :data:`ENGLISH`; a sound small model is near 3, a broken conversion near 12."""


def from_pretrained(
    source: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    with_tokenizer: bool = True,
    options: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Load a local folder or a hub id with transformers, in evaluation mode.

    Config, files and tokenizer come first, so what cannot be used is refused before a weight is
    read.

    Args:
        source: Folder or hub id.
        dtype: Of the weights.
        device: Where to; a ``device_map`` among the options says otherwise.
        with_tokenizer: Whether its tokenizer is read too; None is returned for it otherwise.
        options: What transformers is told besides: ``device_map``, ``quantization_config``, ….

    Raises:
        ModelError: If anything is missing, cut short, or needs code from the hub.
    """
    config = read_config(source)
    if Path(source).is_dir():
        check_weight_files(Path(source))
    tokenizer = read_tokenizer(source) if with_tokenizer else None
    options = dict(options or {})
    packed = "quantization_config" in options or hasattr(config, "quantization_config")
    if packed and "device_map" not in options:  # packed weights are not moved afterwards
        options["device_map"] = {"": str(device)}
    with one_sentence(source), no_library_bars():
        loaded: Any = auto_class(config).from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
            **options,
        )
        hf, info = loaded
    check_loaded(hf, info, source)
    return (hf if "device_map" in options else hf.to(device)).eval(), tokenizer


def check_loaded(hf: Any, info: Mapping[str, Any], source: str) -> None:
    """Refuse a model some of whose weights transformers made up.

    Args:
        hf: What transformers loaded.
        info: What it says of it: ``missing_keys``, ``mismatched_keys``, ``unexpected_keys``.
        source: What the user called it.

    Raises:
        ModelError: If a weight is missing, or of another shape than the config asks for.
    """
    wrong: list[Any] = sorted(info.get("mismatched_keys") or (), key=str)
    if wrong:
        name, there, wanted = wrong[0]
        raise ModelError(
            f"{source}: {len(wrong)} weights have another shape than its config.json asks for "
            f"({name} is {_shape(there)}, not {_shape(wanted)}); use the config that belongs to "
            "these weights."
        )
    missing, others = (sorted(info.get(f"{k}_keys") or ()) for k in ("missing", "unexpected"))
    if missing:
        total = len(hf.state_dict())
        why = (
            f"it holds {len(others)} of other names ({others[0]}, ...), so they belong to another "
            "class of model or are in another format; use a version saved by transformers"
            if others
            else "use a complete copy of the model"
        )
        raise ModelError(
            f"{source} lacks {len(missing)} of the {total} weights of a {type(hf).__name__} "
            f"({missing[0]}, ...); {why}."
        )


def _shape(size: Sequence[int]) -> str:
    return "×".join(str(n) for n in size)


def from_gguf(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Convert a GGUF file to a plain transformers model and check that it still speaks English.

    Raises:
        ModelError: If the file is cut short, of a family transformers cannot convert, or comes
            out broken.
    """
    import transformers
    from transformers import AutoModelForCausalLM, GenerationConfig

    read_config(str(path))
    tokenizer = read_tokenizer(str(path))
    # From 5.17 on, weights stay packed wherever the optional `kernels` package is installed.
    gguf_config: Any = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    with one_sentence(str(path)), no_library_bars():
        folder, file = str(path.parent), path.name
        hf: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=dtype, **options
        )
        if hasattr(hf.config, "quantization_config"):  # before 5.17, unpacked or not
            hf = without_quantisation(hf)
    hf = hf.eval()
    end = end_of_turn(tokenizer)
    if end is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    for name, value in ids.items():
        setattr(hf.config, name, value)
    hf.generation_config = GenerationConfig(**ids)
    check_english(hf, tokenizer, str(path))
    return hf, tokenizer


def without_quantisation(loaded: Any) -> Any:
    """The same weights in a fresh model that does not claim to be quantised."""
    config = loaded.config
    plain = {k: v for k, v in config.to_dict().items() if k != "quantization_config"}
    weights = loaded.state_dict()
    # Built on the CPU, not on meta: buffers that are no weights (rotary tables) must be real.
    dtype = next(loaded.parameters()).dtype
    fresh = type(loaded)._from_config(type(config)(**plain), dtype=dtype)
    fresh.load_state_dict(weights, assign=True)
    fresh.tie_weights()
    return fresh.eval()


def save_model(hf: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model folder that `from_pretrained` reads."""
    with no_library_bars():
        hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@torch.no_grad()
def english_loss(hf: Any, tokenizer: Any) -> float:
    """Mean negative log-likelihood of a fixed English sentence, nats per token."""
    ids = torch.tensor([tokenizer(ENGLISH)["input_ids"]], device=hf.device)
    logits = hf(input_ids=ids).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def check_english(hf: Any, tokenizer: Any, name: str) -> None:
    """Refuse a model that finds plain English absurd.

    Raises:
        ModelError: If the loss is above 7 nats, or near that of guessing in a small vocabulary.
    """
    loss = english_loss(hf, tokenizer)
    limit = min(MAX_LOSS, 0.9 * math.log(hf.get_input_embeddings().weight.shape[0]))
    if not loss <= limit:
        raise ModelError(
            f"{name} came out broken: its loss on an English sentence is {loss:.1f} nats per token "
            f"(at most {limit:.1f} is plausible); transformers probably converts the tokenizer or "
            "the weights of this family wrongly, so use a safetensors version of the model."
        )
