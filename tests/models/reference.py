"""What every site of a tiny model holds, computed by hand: no hooks, no attention of transformers.

Attention, rotary embeddings, gating and residual additions are spelt out per family; only linear
layers and norms are called.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from affectlens.core.places import Site

POST_NORM = ("gemma3", "olmo2")
LEARNT_POSITIONS = ("gpt2", "opt")


def reference(family: str, hf: Any, ids: Tensor) -> dict[Site, Tensor]:
    """Values of all sites for token ids ``[batch, pos]`` without padding."""
    base = hf.base_model
    positions = torch.arange(ids.shape[1])[None]
    match family:
        case "gpt2":
            x = base.wte(ids) + base.wpe(positions)
            layers = base.h
        case "gpt_neox":
            x, layers = base.embed_in(ids), base.layers
        case "opt":
            decoder = base.decoder
            place = torch.nn.functional.embedding(positions + 2, decoder.embed_positions.weight)
            x, layers = decoder.embed_tokens(ids) + place, decoder.layers
        case _:
            x, layers = base.embed_tokens(ids), base.layers
    values: dict[Site, Tensor] = {}
    for layer, block in enumerate(layers):
        values[Site(layer, "resid_pre")] = x
        z = _attention(family, hf, block, layer, x, positions)
        attn, mlp = _parts(family, block)
        o_proj, down_proj = _projections(family, attn, mlp)
        attn_out = o_proj(z)
        if family in POST_NORM:
            attn_out = block.post_attention_layernorm(attn_out)
        mid = x + attn_out
        hidden = _mlp(family, block, mlp, x if family == "gpt_neox" else mid)
        mlp_out = down_proj(hidden)
        if family in POST_NORM:
            mlp_out = block.post_feedforward_layernorm(mlp_out)
        x = mid + mlp_out
        values |= {
            Site(layer, "z"): z,
            Site(layer, "attn_out"): attn_out,
            Site(layer, "mlp_post"): hidden,
            Site(layer, "mlp_out"): mlp_out,
            Site(layer, "resid_post"): x,
        }
        if family != "gpt_neox":
            values[Site(layer, "resid_mid")] = mid
    return values


def _parts(family: str, block: Any) -> tuple[Any, Any]:
    name = {"gpt2": "attn", "gpt_neox": "attention"}.get(family, "self_attn")
    return getattr(block, name), block if family == "opt" else block.mlp


def _projections(family: str, attn: Any, mlp: Any) -> tuple[Any, Any]:
    match family:
        case "gpt2":
            return attn.c_proj, mlp.c_proj
        case "gpt_neox":
            return attn.dense, mlp.dense_4h_to_h
        case "opt":
            return attn.out_proj, mlp.fc2
        case _:
            return attn.o_proj, mlp.down_proj


def _mlp(family: str, block: Any, mlp: Any, x: Tensor) -> Tensor:
    gelu = torch.nn.functional.gelu
    match family:
        case "gpt2":
            return gelu(mlp.c_fc(block.ln_2(x)), approximate="tanh")
        case "gpt_neox":
            return gelu(mlp.dense_h_to_4h(block.post_attention_layernorm(x)))
        case "opt":
            return torch.relu(mlp.fc1(block.final_layer_norm(x)))
        case "gemma3":
            x = block.pre_feedforward_layernorm(x)
            return gelu(mlp.gate_proj(x), approximate="tanh") * mlp.up_proj(x)
        case "phi3":
            gate, up = mlp.gate_up_proj(block.post_attention_layernorm(x)).chunk(2, dim=-1)
            return torch.sigmoid(gate) * gate * up
        case "olmo2":
            gate = mlp.gate_proj(x)
            return torch.sigmoid(gate) * gate * mlp.up_proj(x)
        case _:
            x = block.post_attention_layernorm(x)
            gate = mlp.gate_proj(x)
            return torch.sigmoid(gate) * gate * mlp.up_proj(x)


def _attention(
    family: str, hf: Any, block: Any, layer: int, x: Tensor, positions: Tensor
) -> Tensor:
    config, (attn, _) = hf.config, _parts(family, block)
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", heads) or heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    batch, length, _ = x.shape

    def split(value: Tensor, n: int) -> Tensor:
        return value.reshape(batch, length, n, d_head).transpose(1, 2)

    scale = d_head**-0.5
    if family == "gpt2":
        q, k, v = (split(part, heads) for part in attn.c_attn(block.ln_1(x)).chunk(3, dim=-1))
    elif family == "gpt_neox":
        qkv = attn.query_key_value(block.input_layernorm(x)).reshape(batch, length, heads, 3, -1)
        q, k, v = (qkv[:, :, :, i].transpose(1, 2) for i in range(3))
    elif family == "phi3":
        sizes = [heads * d_head, groups * d_head, groups * d_head]
        q, k, v = attn.qkv_proj(block.input_layernorm(x)).split(sizes, dim=-1)
        q, k, v = split(q, heads), split(k, groups), split(v, groups)
    elif family == "olmo2":
        q, k, v = attn.q_norm(attn.q_proj(x)), attn.k_norm(attn.k_proj(x)), attn.v_proj(x)
        q, k, v = split(q, heads), split(k, groups), split(v, groups)
    else:
        y = block.self_attn_layer_norm(x) if family == "opt" else block.input_layernorm(x)
        q, k, v = (
            split(attn.q_proj(y), heads),
            split(attn.k_proj(y), groups),
            split(attn.v_proj(y), groups),
        )
        if family in ("qwen3", "gemma3"):
            q, k = attn.q_norm(q), attn.k_norm(k)
    window = length
    if family == "gemma3":
        scale = config.query_pre_attn_scalar**-0.5
        kind = config.layer_types[layer]
        window = config.sliding_window if kind == "sliding_attention" else length
        theta = config.rope_parameters[kind]["rope_theta"]
    elif family not in LEARNT_POSITIONS:
        theta = config.rope_parameters["rope_theta"]
    if family not in LEARNT_POSITIONS:
        share = 0.25 if family == "gpt_neox" else 1.0
        q, k = (_rotate(t, positions, theta, int(d_head * share)) for t in (q, k))
    k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
    scores = (q @ k.transpose(-1, -2)) * scale
    distance = positions[0][:, None] - positions[0][None, :]
    scores = scores.masked_fill((distance < 0) | (distance >= window), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, heads * d_head)


def _rotate(t: Tensor, positions: Tensor, theta: float, n: int) -> Tensor:
    frequency = theta ** (-torch.arange(0, n, 2).float() / n)
    angle = positions[0][:, None].float() * frequency
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    turned, rest = t[..., :n], t[..., n:]
    swapped = torch.cat([-turned[..., n // 2 :], turned[..., : n // 2]], dim=-1)
    return torch.cat([turned * cos + swapped * sin, rest], dim=-1)
