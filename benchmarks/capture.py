"""Reading activations: Hugging Face alone, ours, TransformerLens and nnsight, in one process.

Run it on a quiet machine: ``OMP_NUM_THREADS=2 python benchmarks/capture.py [repeats]``. The default
model; on a GPU also a random model of the shape of Llama-3-8B, in bfloat16.

All contenders run in turn, again and again; times are medians, "share" is the time of Hugging
Face's base model (no logits, nothing read) over the contender's, so 1.00 would be free. One token
of each text is kept, the last. First table: one batch of equally long texts, passes only. Second
table: texts of many lengths; ours is all of `capture`, from text to finished store, the others get
the batches ready-made and store nothing.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.activations import capture
from affectlens.activations.capture import prepare
from affectlens.activations.forward.engines import open_engine
from affectlens.activations.forward.gather import make_batch
from affectlens.core import Site
from affectlens.core.places import in_order
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.models import LanguageModel, load_model
from affectlens.models.anatomy.transformer_lens import build_bridge
from affectlens.models.hooking.hooks import taps
from affectlens.models.hooking.shared_weights import same_weights
from affectlens.models.registry import resolve

NAME = "smollm2-135m-instruct"
BASE = "Hugging Face, base model"
FIVE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
WORDS = ("train", "meeting", "friend", "letter", "dog", "kitchen", "flight", "rain", "money", "so")


@dataclass(frozen=True)
class Batch:
    """Padded on the right; ``last`` is where each text ends, in the flattened batch."""

    ids: Tensor
    mask: Tensor
    last: Tensor


Run = Callable[[Sequence[Batch]], Any]


def sites_of(model: LanguageModel, kinds: Sequence[str]) -> list[Site]:
    return [Site(layer, kind) for layer in range(model.n_layers) for kind in kinds]


def hugging_face(module: Any) -> Run:
    def run(batches: Sequence[Batch]) -> None:
        for batch in batches:
            module(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)

    return run


def ours(model: LanguageModel, kinds: Sequence[str]) -> Run:
    engine, sites = open_engine("transformers", model), sites_of(model, kinds)

    def run(batches: Sequence[Batch]) -> None:
        for batch in batches:
            rows: dict[Site, Tensor] = {}

            def read(site: Site, value: Tensor, batch: Batch = batch, rows: Any = rows) -> None:
                rows[site] = value.flatten(0, 1).index_select(0, batch.last)

            engine.forward(batch.ids, batch.mask, sites, read)

    return run


def transformer_lens(model: LanguageModel, kinds: Sequence[str], source: str = "") -> Run:
    """``run_with_cache`` with a names filter, over our weights or loaded as it does by default."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = (
        build_bridge(model.hf)
        if not source
        else TransformerBridge.boot_transformers(source, device=str(model.device))
    )
    names = [site.hook_name for site in sites_of(model, kinds)]

    def run(batches: Sequence[Batch]) -> None:
        for batch in batches:
            equal = bool(batch.mask.all())  # then it can slice before it stores
            _, cache = bridge.run_with_cache(
                batch.ids,
                attention_mask=batch.mask,
                names_filter=names,
                pos_slice=-1 if equal else None,
                return_type=None,
            )
            for name in names:
                value = cache[name]
                _ = value if equal else value.flatten(0, 1).index_select(0, batch.last)

    return run


def nnsight_trace(model: LanguageModel, kinds: Sequence[str], stop: bool) -> Run:
    """A trace of the whole model as nnsight's guide shows it, or one that ends after the sites."""
    import nnsight

    names = {module: name for name, module in model.hf.named_modules()}
    # One tensor per site on the default model, none of them a sum.
    found = [taps(model.anatomy, site) for site in in_order(sites_of(model, kinds))]
    places = [f"{names[one.module]}.{one.side}" for (one,) in found]
    root = nnsight.TransformersModel(
        same_weights(model.hf), task="text-generation", tokenizer=copy.deepcopy(model.tokenizer)
    )

    def run(batches: Sequence[Batch]) -> None:
        for batch in batches:
            inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
            with root.trace(**inputs) as tracer:
                rows = nnsight.save([])
                for place in places:
                    value = root.get(place)
                    value = value[0] if isinstance(value, tuple) else value
                    rows.append(value.flatten(0, 1).index_select(0, batch.last))
                if stop:
                    tracer.stop()

    return run


def contenders(model: LanguageModel, source: str) -> dict[str, Run]:
    runs = {
        "Hugging Face, with logits": hugging_face(model.hf),
        BASE: hugging_face(model.anatomy.base),
        "ours, 5 sites": ours(model, FIVE),
        "ours, `resid_post`": ours(model, FIVE[2:3]),
        "TransformerLens, 5 sites": transformer_lens(model, FIVE),
        "TransformerLens, `resid_post`": transformer_lens(model, FIVE[2:3]),
        "nnsight, 5 sites": nnsight_trace(model, FIVE, stop=False),
        "nnsight, `resid_post`": nnsight_trace(model, FIVE[2:3], stop=False),
        "nnsight, 5 sites, stopped after them": nnsight_trace(model, FIVE, stop=True),
    }
    if source:
        runs["TransformerLens as it loads by default (float32), 5 sites"] = transformer_lens(
            model, FIVE, source
        )
    return runs


def captures(model: LanguageModel, corpus: Corpus, folder: Path) -> dict[str, Callable[[], Any]]:
    def whole(sites: str, out: Path | None) -> Callable[[], Any]:
        def run() -> None:
            capture(model, corpus, sites=sites, positions="last", out=out, resume=False)
            if out is not None:
                shutil.rmtree(out)

        return run

    five = ",".join(FIVE)
    return {
        "ours, 5 sites, to memory": whole(five, None),
        "ours, 5 sites, to disk": whole(five, folder / "five"),
        "ours, `resid_post`, to memory": whole("resid_post", None),
        "ours, `resid_post`, to disk": whole("resid_post", folder / "one"),
    }


def corpus_of(n: int) -> Corpus:
    """Texts of 10 to 120 words."""
    generator = torch.Generator().manual_seed(0)
    records = list[Record]()
    for i in range(n):
        length = int(torch.randint(10, 121, (1,), generator=generator))
        words = torch.randint(0, len(WORDS), (length,), generator=generator).tolist()
        text = " ".join(WORDS[word] for word in words)
        records.append(Record(f"t{i}", (Message("text", text),), "fear", None, f"t{i}", "", "fit"))
    return Corpus("benchmark", "texts", tuple(records))


def batches_of(model: LanguageModel, corpus: Corpus) -> list[Batch]:
    """The batches that `capture` makes of a corpus."""
    plan = prepare(model, corpus, positions="last").plan
    made = [make_batch(plan, texts, model.device, "right") for texts in plan.batches]
    return [Batch(batch.ids, batch.mask, batch.picks["last"].index) for batch in made]


def one_batch(model: LanguageModel, texts: int, tokens: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 40_000, (texts, tokens), generator=generator)
    ids, mask = model.encode_batch(ids.tolist())
    return Batch(ids, mask, torch.arange(1, texts + 1, device=ids.device) * tokens - 1)


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_mib(run: Callable[[], Any], device: torch.device) -> float:
    """Most memory in use during a run, above what was in use before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def table(runs: dict[str, Callable[[], Any]], device: torch.device, repeats: int) -> None:
    with torch.inference_mode():
        for run in runs.values():  # warm up
            run()
        memory = {name: peak_mib(run, device) for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                times[name].append(seconds(run, device))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print("| what | time, ms | share | peak memory, MiB |\n|---|---|---|---|")
    for name, value in medians.items():
        share = medians[BASE] / value
        print(f"| {name} | {value * 1000:,.0f} | {share:.2f} | {memory[name]:,.0f} |")


def measure(
    model: LanguageModel, batch: Batch, n_texts: int, repeats: int, source: str = ""
) -> None:
    rivals = contenders(model, source)
    texts, tokens = batch.ids.shape
    print(
        f"\n{model.name}, {model.dtype}, {model.device}: one batch of {texts} × {tokens} tokens\n"
    )
    table({k: lambda run=run: run([batch]) for k, run in rivals.items()}, model.device, repeats)
    corpus = corpus_of(n_texts)
    batches = batches_of(model, corpus)
    sizes = [int(b.mask.sum()) for b in batches]
    print(f"\n{n_texts} texts, {sum(sizes):,} tokens in {len(sizes)} batches\n")
    runs = {
        k: lambda run=run: run(batches) for k, run in rivals.items() if not k.startswith("ours")
    }
    with tempfile.TemporaryDirectory() as folder:
        runs |= captures(model, corpus, Path(folder))
        table(runs, model.device, max(3, repeats // 4))


def llama_8b(tokenizer: Any) -> LanguageModel:
    """Random weights of the shape of Llama-3-8B, on the GPU."""
    import transformers as tf
    from transformers.initialization import no_init_weights

    config = tf.LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        dtype=torch.bfloat16,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"), no_init_weights():
        hf = tf.LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.fill_(1) if parameter.ndim == 1 else parameter.normal_(std=0.02)
    return load_model(hf, tokenizer=tokenizer)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    model = load_model(NAME, device="cpu", dtype="bfloat16")
    print(f"{torch.get_num_threads()} threads")
    measure(model, one_batch(model, 16, 64), 100, repeats, str(resolve(NAME)))
    if torch.cuda.is_available():
        large = llama_8b(model.tokenizer)
        measure(large, one_batch(large, 16, 512), 2000, repeats)


if __name__ == "__main__":
    main()
