"""Reading weights and tokenizers from folders, GGUF files and the hub, with checks first.

Only safetensors and GGUF are read: pickled weights can run code, and so can code from the hub.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from affectlens.core.errors import ModelError
from affectlens.models.chat.special_tokens import end_of_turn
from affectlens.models.library_bars import no_library_bars

ENGLISH = "The weather was nice yesterday, so we went for a walk in the park with our two dogs."
MAX_LOSS = 7.0
"""Nats per token on :data:`ENGLISH`; a sound small model is near 3, a broken conversion near 12."""


def from_pretrained(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a local folder or a hub id with transformers, on the CPU, in evaluation mode.

    Raises:
        ModelError: If anything is missing, cut short, or needs code from the hub.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if Path(source).is_dir():
        check_folder(Path(source))
    with one_sentence(source), no_library_bars():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        hf, info = loaded
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if info.get("missing_keys"):
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"{source}: {len(missing)} weights are missing ({missing[0]}, ...); download it again."
        )
    return hf.eval(), tokenizer


def from_gguf(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Convert a GGUF file to a plain transformers model and check that it still speaks English.

    Raises:
        ModelError: If the file is cut short, of a family transformers cannot convert, or comes
            out broken.
    """
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    check_gguf(path)
    # From 5.17 on, weights stay packed wherever the optional `kernels` package is installed.
    gguf_config: Any = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    with one_sentence(str(path)), no_library_bars():
        folder, file = str(path.parent), path.name
        hf: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=dtype, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
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


def check_folder(folder: Path) -> None:
    """Look at a model folder before transformers does.

    Raises:
        ModelError: If it has no config, only pickled weights, or a weight file is cut short.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            raise ModelError(
                f"{folder} holds pickled weights, which can run code when read; convert them to "
                "safetensors first."
            )
        raise ModelError(f"{folder} holds no weights (*.safetensors).")
    for file in files:
        check_safetensors(file)


def check_safetensors(path: Path) -> None:
    """Compare a file's size with what its header promises.

    Raises:
        ModelError: If it is cut short or its header is no header.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise ValueError("header longer than the file")
            header = json.loads(handle.read(length))
        ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is cut short or damaged; download it again.") from error
    if size != 8 + length + max(ends, default=0):
        raise ModelError(
            f"{path} is cut short ({size} bytes instead of {8 + length + max(ends, default=0)}); "
            "download it again."
        )


def check_gguf(path: Path) -> None:
    """Read a GGUF header and check that every tensor lies inside the file.

    Raises:
        ModelError: If it does not exist, is no GGUF file, or is cut short.
    """
    from gguf import GGUFReader

    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    try:
        reader: Any = GGUFReader(str(path))
        end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    except Exception as error:  # the reader indexes into a memory map and raises anything
        raise ModelError(
            f"{path} is cut short or no GGUF file ({_line(error)}); download it again."
        ) from error
    if end == 0 or end > path.stat().st_size:
        raise ModelError(f"{path} is cut short; download it again.")


@contextmanager
def one_sentence(source: str) -> Generator[None, None, None]:
    """Turn whatever goes wrong while reading a model into a `ModelError` of one sentence."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and the hub each have their own classes
        line = _line(error)
        if "trust_remote_code" in str(error):
            line = "it needs code from the hub, which affectlens does not run"
        elif not Path(source).exists():
            line = f"not a local path, and the hub did not give it: {line}"
        raise ModelError(f"Could not load {source}: {line.rstrip('.')}.") from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
