"""A short name for a set of weights that stays the same in bfloat16 and float32."""

from __future__ import annotations

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


def model_fingerprint(hf: Any) -> str:
    """Hash of the shape of a model and of 64 elements of 8 evenly spaced parameters.

    Values are rounded to bfloat16 first, so loading the same weights in float32 gives the same
    name. A model wrapped by a ``TransformerBridge`` has the name of the plain one.

    Raises:
        ModelError: If the weights are not in memory.
    """
    config = hf.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    facts = {name: getattr(text, name, None) for name in _FACTS}
    parameters = _plain_parameters(hf)
    names = sorted(parameters)
    picked = [names[i * len(names) // N_PARAMETERS] for i in range(N_PARAMETERS)]
    samples: list[tuple[str, list[int], list[float]]] = []
    for name in picked:
        values = parameters[name].detach()
        if values.is_meta:
            raise ModelError(f"The weights of {type(hf).__name__} are not loaded; load them first.")
        flat = values.reshape(-1)
        index = torch.arange(N_ELEMENTS, device=flat.device) * len(flat) // N_ELEMENTS
        rounded = flat[index].to(torch.bfloat16).float().cpu()
        samples.append((name, list(values.shape), rounded.tolist()))
    return fingerprint(type(hf).__name__, facts, len(names), samples)


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
