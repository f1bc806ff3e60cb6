"""All families, their random models, and which of them stand for the others in every test run."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf

from tests.families.dense import DENSE
from tests.families.hybrids import HYBRIDS
from tests.families.mixtures import MIXTURES
from tests.families.shapes import Family
from tests.families.wrappers import WRAPPERS

GROUPS: dict[str, dict[str, Family]] = {
    "Dense": DENSE,
    "Mixtures of experts": MIXTURES,
    "State space and hybrids": HYBRIDS,
    "With images or sound": WRAPPERS,
}
FAMILIES: dict[str, Family] = {
    name: one for group in GROUPS.values() for name, one in group.items()
}

REPRESENTATIVE = (
    "granite_real",
    "gemma4_e2b",
    "opt_postnorm350m",
    "qwen3_moe",
    "deepseek_v3",
    "granitemoehybrid_mamba",
    "mamba2",
    "falcon_h1",
    "nemotron_h",
    "qwen3_next",
    "minimax",
    "qwen3_vl",
)
"""They differ in kind: scaled, third term, normed stream, experts, latent attention, two mixers."""

_DECAYS = ("a_log", "dt_bias", "mixer.d", "mamba.d", "decay", "time_first")
_STATE = ("a_log", "conv1d", "x_proj", "dt_proj", "time_")


def build(name: str) -> Any:
    """A random model of a family, float32, with norms far from trivial and biases that matter."""
    torch.manual_seed(0)  # for what is not drawn here
    family = FAMILIES[name]
    config = family.config()
    hf: Any = (
        getattr(tf, family.cls)(config)
        if family.cls
        else tf.AutoModelForCausalLM.from_config(config)
    )
    hf = hf.float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in sorted(hf.named_parameters()):
            _draw(key.lower(), parameter, generator)
        for key, buffer in hf.named_buffers():
            if key.endswith("layer_scalar"):
                buffer.fill_(family.end)
    hf.tie_weights()
    hf.generation_config.eos_token_id = None  # replies of one length
    return hf


def shell(name: str) -> Any:
    """The same on PyTorch's meta device: shapes and no values."""
    family = FAMILIES[name]
    config = family.config()
    with torch.device("meta"):
        if family.cls:
            config._attn_implementation = "eager"
            hf: Any = getattr(tf, family.cls)(config)
        else:
            hf = tf.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return hf.bfloat16().eval()


def _draw(name: str, parameter: Any, generator: torch.Generator) -> None:
    noise = torch.randn(parameter.shape, generator=generator)
    norm = "norm" in name or ".ln" in name or "_ln" in name
    if parameter.ndim == 1 and not norm and any(part in name for part in _DECAYS):
        return  # what a state forgets stays as it was made
    if parameter.ndim == 1:
        parameter.copy_(0.3 * noise + (0.8 if norm and name.endswith("weight") else 0.1))
    elif not any(part in name for part in _STATE):
        parameter.copy_(noise * 0.5 / max(parameter.shape[-1], 1) ** 0.25)
