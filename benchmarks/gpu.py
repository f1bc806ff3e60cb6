"""On a GPU: is everything what it is on the CPU, and how fast is it?

``benchmarks/gpu.sh`` runs it. First tiny random models, in float32, on the CPU and on the device:
every site of a capture, steered and gated logits and replies, contributions and the circuit. Then
how often a capture and a steered step wait for the device. Then speed, in bfloat16: random models
of 1B and 8B shape (``--small``: tiny ones), and the mixtures and hybrids of ``families.py``. Times
are medians of interleaved repeats with the device synchronised; "share" is the bare base model's
time over the contender's. Sections begin only while there is time left. Exits with 1 if a number is
not what it is on the CPU.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import families

from affectlens import capture, find_circuit, load_model
from affectlens.activations.forward.engines import open_engine
from affectlens.circuits import Budget
from affectlens.core import Site
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.geometry import directions
from affectlens.models import LanguageModel
from affectlens.models.anatomy.levels import has
from affectlens.models.generation.generation import GenerationSettings, generate_ids
from affectlens.probes import sweep
from affectlens.steering import SteeringPack, generate_steered

EMOTIONS = ("anger", "fear", "happiness")
FIVE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
READ = (*FIVE, "z", "mlp_post")
TOLERANCE = 2e-4
"""Relative difference between devices in float32 that is put down to the order of summation."""
WORDS = [*EMOTIONS, *(f"w{i}" for i in range(90))]


def tokenizer() -> Any:
    """A word a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {word: i for i, word in enumerate(["<pad>", "<end>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


def texts() -> Corpus:
    """Twelve groups of replies of many lengths, every emotion in each."""
    generator = torch.Generator().manual_seed(0)
    records: list[Record] = []
    for group in range(12):
        user = f"w{group} w{group + 20}"
        for emotion in EMOTIONS:
            n = int(torch.randint(3, 14, (1,), generator=generator))
            filler = " ".join(f"w{int(i)}" for i in torch.randint(90, (n,), generator=generator))
            messages = (Message("user", user), Message("assistant", f"{emotion} {filler}"))
            split = "test" if group % 4 == 3 else "fit"
            records.append(
                Record(f"{group}:{emotion}", messages, emotion, None, f"g{group}", "", split)
            )
    return Corpus("texts", "replies", tuple(records), label_set=EMOTIONS)


def tiny(*, small: bool) -> dict[str, Any]:
    """Random models by name, in float32 on the CPU."""
    import transformers as tf

    common: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        **families.TOKENS,
    }
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    configs: dict[str, Any] = {
        "llama": tf.LlamaConfig(**common, attention_bias=True),
        "qwen3_moe": tf.Qwen3MoeConfig(**common, **experts, head_dim=16),
    }
    if not small:
        configs |= {
            "gemma3": tf.Gemma3TextConfig(**common, head_dim=16, sliding_window=8),
            "gpt2": tf.GPT2Config(vocab_size=128, n_embd=64, n_layer=3, n_head=4, n_positions=256),
            "gpt_neox": tf.GPTNeoXConfig(
                **{k: v for k, v in common.items() if k != "num_key_value_heads"}
            ),
            "mamba2": tf.Mamba2Config(
                vocab_size=128, hidden_size=64, num_hidden_layers=3, num_heads=8, head_dim=16,
                state_size=16, n_groups=2, **families.TOKENS,
            ),
            "gpt_oss": tf.GptOssConfig(
                **common, head_dim=16, num_local_experts=8, num_experts_per_tok=2
            ),
        }  # fmt: skip
    made: dict[str, Any] = {}
    for name, config in configs.items():
        torch.manual_seed(0)
        hf = tf.AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in hf.parameters():
                if parameter.ndim > 1:  # far from the near-identity that they are made as
                    parameter.normal_(std=0.5 / parameter.shape[-1] ** 0.5)
        made[name] = hf
    return made


def sites_of(model: LanguageModel, kinds: Sequence[str]) -> list[Site]:
    """Those that it has."""
    parts = model.anatomy.blocks
    return [
        site
        for part in parts
        for kind in kinds
        if has(part, site := Site(part.layer, kind)) or (kind == "mlp_post" and part.experts)
    ]


def figures(model: LanguageModel) -> dict[str, Tensor]:
    """What is compared between devices, by name; everything starts from the weights alone."""
    corpus, found = texts(), dict[str, Tensor]()
    store = capture(model, corpus, sites=sites_of(model, READ), positions=["last", "mean:reply"])
    for site in store.sites:
        for position in ("last", "mean:reply"):
            found[f"capture {site.kind}"] = torch.cat(
                [found.get(f"capture {site.kind}", torch.empty(0)),
                 store.to_torch(site, position).flatten()]
            )  # fmt: skip
    posts = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    towards = directions(store.select(split="fit"), position="mean:reply", sites=posts, splits=2)
    found["directions"] = towards.vectors
    probes = sweep(store, position="mean:reply", sites=posts, folds=2, draws=10, penalties=(0.1,))
    pack = SteeringPack.from_directions(towards, model, layers=(1,)).with_readout(probes, gates=0)
    prompts = [model.tokenizer(text)["input_ids"] for text in ("w1 w2 w3", "fear w4", "w5 " * 9)]
    specs = ["anger=2;unit=natural", "none", "fear=2;unit=natural;gate=anger>0.2"]
    ids, mask = model.encode_batch(prompts, "left")
    with torch.no_grad(), pack.steer(model, specs, prompt_lengths=[len(row) for row in prompts]):
        steered = model.hf(
            input_ids=ids, attention_mask=mask, position_ids=model.position_ids(mask)
        ).logits
    found["steered logits"] = steered[mask.bool()].cpu()
    settings = GenerationSettings(max_new_tokens=6, min_new_tokens=6)
    replies = generate_steered(model, pack, prompts, specs, settings)
    found["steered replies (tokens)"] = torch.tensor(replies)
    if any(part.n_heads or part.n_neurons for part in model.anatomy.blocks):
        circuit = find_circuit(
            model, corpus, towards, position="mean:reply", budget=Budget(per_sublayer=4.0),
            prompts=prompts, words={e: (e,) for e in EMOTIONS},
        )  # fmt: skip
        found["contributions of neurons"] = circuit.neuron_scores
        found["contributions of heads"] = circuit.head_scores
        assert circuit.influence is not None
        found["influence"] = circuit.influence.chosen
        found["folded circuit"] = torch.cat([x.cpu() for x in circuit.folded(model)])
    return found


def correctness(device: torch.device, *, small: bool) -> bool:
    """Print the largest differences between the CPU and the device; whether all are small."""
    print(f"## The CPU and {device}: largest relative difference, float32\n")
    sound = True
    for name, hf in tiny(small=small).items():
        there = copy.deepcopy(hf).to(device)
        here, found = (figures(load_model(one, tokenizer=tokenizer())) for one in (hf, there))
        same = load_model(hf, tokenizer=tokenizer()).fingerprint
        wrong = load_model(there, tokenizer=tokenizer()).fingerprint != same
        parts: list[str] = []
        for what, value in here.items():
            error = float(
                (found[what] - value).float().norm() / value.float().norm().clamp_min(1e-9)
            )
            bad = not error <= TOLERANCE
            wrong |= bad
            parts.append(f"{what} {error:.0e}{' WRONG' if bad else ''}")
        sound &= not wrong
        print(f"- {name}: {'WRONG' if wrong else 'same'} ({'; '.join(parts)})")
    return sound


def waits(device: torch.device) -> None:
    """Print how often one pass waits for the device, as CUDA itself tells."""
    print("\n## How often the device is waited for\n")
    if device.type != "cuda":
        print("Only CUDA tells.")
        return
    import transformers as tf

    config = tf.LlamaConfig(
        vocab_size=128, hidden_size=64, num_hidden_layers=8, num_attention_heads=4,
        intermediate_size=128, **families.TOKENS,
    )  # fmt: skip
    model = load_model(tf.LlamaForCausalLM(config).to(device).eval(), tokenizer=tokenizer())
    engine, sites = open_engine("transformers", model), sites_of(model, READ)
    ids = torch.randint(3, 90, (8, 16), device=device)
    mask, pack = torch.ones_like(ids), families.steering_pack(model)

    def captured() -> None:
        engine.forward(ids, mask, sites, lambda _site, _value: None, left=False)

    def steered() -> None:
        with pack.steer(model, "fear=1", prompt_lengths=[16] * 8), torch.no_grad():
            model.hf(input_ids=ids, use_cache=False)

    for name, run in (("a capture of 7 sites × 8 layers", captured), ("a steered pass", steered)):
        run()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        torch.cuda.set_sync_debug_mode("default")
        print(f"- {name}: {sum('synchroniz' in str(one.message) for one in caught)}")


def shaped(size: str, device: torch.device) -> LanguageModel:
    """A random Llama of a size, in bfloat16 (tiny: float32)."""
    import transformers as tf
    from transformers.initialization import no_init_weights

    sizes = {
        "tiny": (64, 128, 4, 4, 2, 512),
        "1B": (2048, 8192, 16, 32, 8, 128_256),
        "8B": (4096, 14_336, 32, 32, 8, 128_256),
    }
    width, mlp, layers, heads, kv_heads, vocabulary = sizes[size]
    dtype = torch.float32 if size == "tiny" else torch.bfloat16
    config = tf.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=8192,
        **families.TOKENS,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device, no_init_weights():
        hf = tf.LlamaForCausalLM(config).eval()
    torch.set_default_dtype(before)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.fill_(1) if parameter.ndim == 1 else parameter.normal_(std=0.02)
    return load_model(hf, tokenizer=tokenizer())


def timed(
    runs: Mapping[str, Callable[[], object]], device: torch.device, n: int
) -> dict[str, float]:
    """Median seconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(n + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(medians: dict[str, float]) -> None:
    """Print times and shares of the first row."""
    bare = next(iter(medians.values()))
    print("| what | time, ms | share |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value * 1000:,.1f} | {bare / value:.2f} |")


def speed(size: str, device: torch.device, *, small: bool) -> None:
    """Passes and replies of a dense model."""
    model = shaped(size, device)
    texts_, tokens, rows, new = (2, 8, 2, 3) if small else (16, 512, 64, 32)
    ids = torch.randint(3, 90, (texts_, tokens), device=device)
    mask, last = torch.ones_like(ids), torch.arange(1, texts_ + 1, device=device) * tokens - 1
    engine, pack = open_engine("transformers", model), families.steering_pack(model)

    def bare() -> None:
        model.anatomy.base(input_ids=ids, use_cache=False)

    def captured(kinds: Sequence[str]) -> Callable[[], object]:
        wanted = sites_of(model, kinds)

        def run() -> None:
            kept: list[Tensor] = []
            read = lambda _s, x: kept.append(x.flatten(0, 1)[last])  # noqa: E731
            engine.forward(ids, mask, wanted, read, left=False)

        return run

    def steered() -> None:
        with pack.steer(model, "fear=1"):
            bare()

    print(f"\n## {size}-shaped, {model.dtype}, one batch of {texts_} × {tokens} tokens\n")
    with torch.inference_mode():
        runs = {"base model": bare, "capture, 5 sites": captured(FIVE),
                "capture, `resid_post`": captured(("resid_post",)), "steered": steered}  # fmt: skip
        table(timed(runs, device, 2 if small else 9))
    prompts = [[int(t) for t in row] for row in torch.randint(3, 90, (rows, 16))]
    settings = GenerationSettings(max_new_tokens=new, min_new_tokens=new)
    replies = {
        "replies": lambda: generate_ids(model, prompts, settings),
        "replies, steered": lambda: generate_steered(
            model, pack, prompts, ["fear=1", "anger=1"] * (rows // 2), settings
        ),
    }
    print(f"\n{rows} replies of {new} tokens\n")
    medians = timed(replies, device, 1 if small else 3)
    table(medians)
    print(f"\n{rows * new / medians['replies']:,.0f} tokens/s unsteered.")


def other_kinds(device: torch.device, *, small: bool) -> None:
    """Mixtures and hybrids, as ``families.py`` has them."""
    size = "tiny" if small else "300m"
    for name, config in families.shapes(size).items():
        if small and name != "qwen3_moe":
            continue
        model = families.made(config, size, device)
        ids = torch.randint(3, config.vocab_size, (2, 8) if small else (8, 64), device=device)
        runs = families.contenders(model, ids)
        del runs["experts, pass per expert"]
        print(f"\n## {name}, {size}\n")
        with torch.inference_mode():
            table(timed(runs, device, 1 if small else 7))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections there is time for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny models only: does it run?")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=7.5)
    given = parser.parse_args(arguments)
    device, started = torch.device(given.device), time.monotonic()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"# {name}, torch {torch.__version__}\n")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sound = correctness(device, small=given.small)
    waits(device)
    dense = ["tiny"] if given.small else ["1B", "8B"]
    sections: list[tuple[str, Callable[[], None]]] = [
        (size, lambda size=size: speed(size, device, small=given.small)) for size in dense
    ]
    sections.append(("families", lambda: other_kinds(device, small=given.small)))
    for what, run in sections:
        if time.monotonic() - started > 60 * given.minutes * 0.75:
            print(f"\n{what}: no time left.")
            continue
        run()
    print(f"\n{time.monotonic() - started:.0f} s in all.")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
