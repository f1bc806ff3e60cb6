"""Steering the slow way: one row, no cache, no padding, token by token, own hooks, own arithmetic.

Shares nothing with the package but the tensors of a pack and where a block's projections are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from affectlens.core import Provenance
from affectlens.models.loading import LanguageModel
from affectlens.steering.pack import SteeringPack

EMOTIONS = ("anger", "fear", "happiness")
PROMPTS = ([5, 17, 33, 90, 12, 61], [44, 7], [101, 102, 103, 104, 105, 9, 8, 7, 6, 5, 4], [150])


def random_pack(model: LanguageModel, seed: int = 0, size: float = 0.4) -> SteeringPack:
    """Both modes, some layers, one emotion absent from one layer, recommended doses all unlike."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        "residual.resid_post": (0, 2),
        "circuit.o_proj_out": (1, 2),
        "circuit.down_proj_out": (0, 1, 2),
    }
    vectors = {
        name: torch.randn(len(EMOTIONS), len(n), model.d_model, generator=generator) * size
        for name, n in layers.items()
    }
    vectors["residual.resid_post"][2, 0] = 0
    return SteeringPack(
        emotions=EMOTIONS,
        vectors=vectors,
        layers=layers,
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={
            mode: {e: 0.5 + i + 0.25 * m for i, e in enumerate(EMOTIONS)}
            for m, mode in enumerate(("residual", "circuit"))
        },
        positions={"residual": "last_prompt+generated", "circuit": "generated"},
        rms=torch.arange(1.0, model.n_layers + 1),
        provenance=Provenance("pack", model=model.fingerprint, model_name="tiny"),
    )


def steered_at(positions: str, index: int, prompt_length: int) -> bool:
    """Whether a token is steered."""
    if positions == "all":
        return True
    if positions == "prompt":
        return index < prompt_length
    if positions == "generated":
        return index >= prompt_length
    assert positions == "last_prompt+generated"
    return index >= prompt_length - 1


def slow_logits(
    model: LanguageModel,
    pack: SteeringPack,
    ids: list[int],
    prompt_length: int,
    weights: Mapping[str, float],
    mode: str,
    positions: str,
) -> Tensor:
    """Logits ``[pos, vocab]`` of one row; weights in natural doses, added."""
    handles: list[Any] = []
    for name, vectors in pack.vectors.items():
        if not name.startswith(mode + "."):
            continue
        for i, layer in enumerate(pack.layers[name]):
            part = model.anatomy.blocks[layer]
            module = {
                "resid_post": part.block,
                "o_proj_out": part.o_proj,
                "down_proj_out": part.down_proj,
            }[name.split(".")[1]]
            delta = torch.zeros(model.d_model)
            for emotion, weight in weights.items():
                delta = delta + weight * vectors[pack.emotions.index(emotion), i]

            def hook(_module: Any, _args: Any, output: Any, delta: Tensor = delta) -> Any:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                row = (
                    hidden if hidden.ndim == 2 else hidden[0]
                )  # OPT's MLPs join batch and position
                for t in range(len(row)):
                    if steered_at(positions, t, prompt_length):
                        row[t] += delta.to(hidden.dtype)
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


def slow_generate(
    model: LanguageModel,
    pack: SteeringPack,
    prompt: list[int],
    weights: Mapping[str, float],
    mode: str,
    positions: str,
    *,
    new: int,
    penalty: float = 1.1,
) -> tuple[int, ...]:
    """Greedy, everything recomputed at every step."""
    ids = list(prompt)
    for _ in range(new):
        scores = slow_logits(model, pack, ids, len(prompt), weights, mode, positions)[-1].clone()
        for token in set(ids):
            scores[token] = (
                scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
            )
        token = int(scores.argmax())
        if token in model.eos_ids:
            break
        ids.append(token)
    return tuple(ids[len(prompt) :])
