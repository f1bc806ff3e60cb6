"""Mixtures of experts and hybrids: capture, steering and neurons of experts, beside the bare model.

``OMP_NUM_THREADS=1 python benchmarks/families.py [tiny|300m] [repeats]``. Random models of the
shape named, in float32 (tiny) or bfloat16. All contenders take turns, again and again; times are
medians of CPU time, "share" is that of the bare base model (no logits, nothing read) over the
contender's, so 1.00 would be free. "One pass" reads what every neuron of every expert of one layer
adds; "pass per expert" does the same by running the model once for each expert.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from affectlens import load_model
from affectlens.circuits.attribution.unit_engine import UnitEngine
from affectlens.core import Provenance, Site
from affectlens.geometry import Directions
from affectlens.models.loading import LanguageModel
from affectlens.steering import SteeringPack

EMOTIONS = ("anger", "fear")
FIVE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def shapes(size: str) -> dict[str, Any]:
    """Configs by name: a mixture of many experts, one with biases, and a hybrid."""
    import transformers as tf

    tiny = size == "tiny"
    width, layers, vocabulary = (64, 4, 512) if tiny else (768, 12, 8192)
    common = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64 if not tiny else 4,
        "num_key_value_heads": 2 if tiny else 4,
        "head_dim": 16 if tiny else 64,
        "max_position_embeddings": 512,
        **TOKENS,
    }
    expert = 32 if tiny else 192
    many = {"num_experts": 128 if tiny else 64, "num_experts_per_tok": 8}
    every_second = ["linear_attention", "full_attention"] * (layers // 2)
    return {
        "qwen3_moe": tf.Qwen3MoeConfig(
            **common, **many, intermediate_size=width * 3, moe_intermediate_size=expert
        ),
        "gpt_oss": tf.GptOssConfig(
            **common,
            num_local_experts=32,
            num_experts_per_tok=4,
            intermediate_size=expert,
            layer_types=["full_attention"] * layers,
        ),
        "qwen3_next": tf.Qwen3NextConfig(
            **common,
            **many,
            moe_intermediate_size=expert,
            shared_expert_intermediate_size=expert,
            intermediate_size=width * 3,
            layer_types=every_second,
            linear_num_key_heads=4,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
        ),
    }


def made(config: Any, size: str, device: torch.device | str = "cpu") -> LanguageModel:
    """A random model; its tokenizer is never used."""
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config)
    hf = hf.to(device, torch.float32 if size == "tiny" else torch.bfloat16).eval()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="a")
    return load_model(hf, tokenizer=tokenizer)


def steering_pack(model: LanguageModel) -> SteeringPack:
    """Random directions at the middle third of the layers."""
    sites = tuple(Site(layer, "resid_post") for layer in range(model.n_layers))
    vectors = torch.nn.functional.normalize(
        torch.randn(len(sites), len(EMOTIONS), model.d_model), dim=-1
    )
    norms = torch.ones(vectors.shape[:2])
    made_by = Provenance("directions", model=model.fingerprint, model_name=model.name)
    directions = Directions(EMOTIONS, sites, vectors, norms, "random", norms, made_by)
    return SteeringPack.from_directions(directions, model, positions="all")


def one_expert(experts: nn.Module, expert: int, kept: list[Tensor]) -> Callable[..., None]:
    """A hook that keeps the gated neurons of one expert, by the definition."""
    module: Any = experts

    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden, index, gate = (*args, *kwargs.values())[:3]
        token, k = (index == expert).nonzero(as_tuple=True)
        weight = module.gate_up_proj[expert]
        up = hidden[token] @ (weight if module.is_transposed else weight.T)
        if module.has_bias:
            up = up + module.gate_up_proj_bias[expert]
        kept.append((module._apply_gate(up) * gate[token, k, None]).sum(0))

    return hook


def contenders(model: LanguageModel, ids: Tensor) -> dict[str, Callable[[], object]]:
    """What takes turns, by name."""
    anatomy, mask = model.anatomy, torch.ones_like(ids)
    engine, pack = UnitEngine(model), steering_pack(model)
    sites = [
        Site(part.layer, kind)
        for part in anatomy.blocks
        for kind in FIVE
        if kind != "resid_mid" or part.mid_reader is not None
    ]
    last = torch.arange(1, len(ids) + 1, device=ids.device) * ids.shape[1] - 1
    part = [part for part in anatomy.blocks if part.experts is not None][-1]
    assert part.experts is not None
    neurons = Site(part.layer, "mlp_post")
    every = torch.arange(ids.numel(), device=ids.device)
    start = torch.zeros(1, dtype=torch.long, device=ids.device)

    def bare() -> None:
        anatomy.base(input_ids=ids, use_cache=False)

    def captured() -> None:
        kept: list[Tensor] = []
        engine.forward(ids, mask, sites, lambda _s, x: kept.append(x.flatten(0, 1)[last]))

    def steered() -> None:
        with pack.steer(model, {"fear": 1.0}):
            bare()

    def one_pass() -> None:
        found: list[Tensor] = []
        engine.forward(ids, mask, [neurons], lambda _s, x: found.append(x.rows(every, start)))

    def pass_per_expert() -> None:
        experts = part.experts.experts.source
        for expert in range(part.experts.experts.n_experts):
            hook = one_expert(experts, expert, [])
            handle = experts.register_forward_pre_hook(hook, with_kwargs=True)
            bare()
            handle.remove()

    return {
        "bare": bare,
        "capture, 5 sites": captured,
        "steering": steered,
        "experts, one pass": one_pass,
        "experts, pass per expert": pass_per_expert,
    }


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    for name, config in shapes(size).items():
        model = made(config, size)
        count = sum(p.numel() for p in model.hf.parameters())
        ids = torch.randint(3, config.vocab_size, (8, 64))
        runs = contenders(model, ids)
        times: dict[str, list[float]] = {run: [] for run in runs}
        with torch.inference_mode():
            for turn in range(repeats + 1):
                for run, call in runs.items():
                    if run.endswith("per expert") and turn > 1:
                        continue
                    start = time.process_time()
                    call()
                    if turn:  # the first warms up
                        times[run].append(time.process_time() - start)
        median = {run: statistics.median(values) for run, values in times.items()}
        experts = next(p.experts for p in model.anatomy.blocks if p.experts is not None)
        print(f"{name}: {count / 1e6:.1f}M parameters, {experts.experts.n_experts} experts a layer")
        for run in ("bare", "capture, 5 sites", "steering", "experts, one pass"):
            share = median["bare"] / median[run]
            print(f"  {run:20} {1000 * median[run]:9.1f} ms  share {share:.2f}")
        faster = median["experts, pass per expert"] / median["experts, one pass"]
        print(f"  one pass is {faster:.0f} times as fast as a pass per expert")


if __name__ == "__main__":
    main()
