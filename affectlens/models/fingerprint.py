"""A short name for a set of weights that stays the same in bfloat16 and float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.core.artefact import fingerprint
from affectlens.core.errors import ModelError

N_PARAMETERS = 8
N_ELEMENTS = 64
_FACTS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)
_WRAPPER = "._original_component"

Sample = tuple[str, list[int], list[float]]
"""Name, shape and some elements of a parameter."""


def model_fingerprint(hf: Any) -> str:
    """Hash of the shape of a model and of 64 elements of 8 evenly spaced parameters.

    Values are rounded to bfloat16 first, so loading the same weights in float32 gives the same
    name. A model wrapped by a ``TransformerBridge`` has the name of the plain one.

    Raises:
        ModelError: If the weights are not in memory.
    """
    parameters = _plain_parameters(hf)
    names = sorted(parameters)
    samples: list[Sample] = []
    for name in _picked(names):
        values = parameters[name].detach()
        if values.is_meta:
            raise ModelError(f"The weights of {type(hf).__name__} are not loaded; load them first.")
        samples.append(_sample(name, values))
    return _fingerprint(type(hf).__name__, hf.config, len(names), samples)


def checkpoint_fingerprint(folder: Path) -> str:
    """`model_fingerprint` of a folder's safetensors, read without loading the model.

    Raises:
        OSError, KeyError, ValueError: If there are no safetensors or config, or a parameter of the
            model is not stored under its own name (quantised or fused checkpoints).
    """
    import transformers
    from safetensors import safe_open

    config = transformers.AutoConfig.from_pretrained(folder)
    family = str((config.architectures or [""])[0])
    stored: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            stored |= dict.fromkeys(handle.keys(), file)
    if not stored:
        raise OSError(f"no safetensors in {folder}")
    with torch.device("meta"):
        plain = getattr(transformers, family)(config)
    names = sorted(name for name, _ in plain.named_parameters())
    prefix = f"{plain.base_model_prefix}."
    samples: list[Sample] = []
    for name in _picked(names):
        key = name if name in stored else name.removeprefix(prefix)
        with safe_open(stored[key], framework="pt") as handle:
            samples.append(_sample(name, handle.get_tensor(key)))
    return _fingerprint(family, config, len(names), samples)


def _picked(names: Sequence[str]) -> list[str]:
    return [names[i * len(names) // N_PARAMETERS] for i in range(N_PARAMETERS)]


def _sample(name: str, values: Tensor) -> Sample:
    flat = values.reshape(-1)
    index = torch.arange(N_ELEMENTS, device=flat.device) * len(flat) // N_ELEMENTS
    rounded = flat[index].to(torch.bfloat16).float().cpu()
    return name, list(values.shape), rounded.tolist()


def _fingerprint(family: str, config: Any, n: int, samples: Sequence[Sample]) -> str:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    facts = {name: getattr(text, name, None) for name in _FACTS}
    return fingerprint(family, facts, n, list(samples))


def _plain_parameters(hf: Any) -> dict[str, Tensor]:
    """Parameters by the names they have on an unwrapped model."""
    parameters = dict(hf.named_parameters())
    if not any(_WRAPPER in name for name in parameters):
        return parameters
    with torch.device("meta"):
        plain = type(hf)(hf.config)
    wanted = {name for name, _ in plain.named_parameters()}
    wrapped = hf.named_parameters(remove_duplicate=False)
    cleaned = {name.replace(_WRAPPER, ""): value for name, value in wrapped}
    return {name: value for name, value in cleaned.items() if name in wanted}
