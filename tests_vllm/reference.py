"""Make models, packs and expectations: ``python -m tests_vllm.reference``, in the main environment.

The expectations come from the package's own Transformers path, in float32. Where two tokens are
nearly as likely as each other, or a gate is nearly undecided, other kernels may decide otherwise,
so every case is given the first prompt that leaves no such doubt.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affectlens.core import Provenance
from affectlens.models import LanguageModel, load_model, pull
from affectlens.models.generation.generation import GenerationSettings, encode_prompt
from affectlens.steering import SteeringPack, generate_steered, steering
from affectlens.steering.gates import EMBEDDINGS, Readout, probabilities
from affectlens.steering.low_rank import LowRank
from tests.conftest import tiny_hf, tiny_tokenizer
from tests_vllm.cases import EMOTIONS, FOLDER, MAPPED_SPECS, NEW, REAL_SPECS, TINY_SPECS, Case

DOUBT = 2e-3
"""Least distance of a decision from the other one: logits, and probabilities of gates."""

SETTINGS = GenerationSettings(max_new_tokens=NEW, min_new_tokens=NEW, repetition_penalty=1.0)
EVENTS = (
    "My train was cancelled again.", "We won the match!", "There is a noise in the attic.",
    "My neighbour moved away.", "I found a letter from my grandmother.", "The soup was cold.",
    "They gave my seat to somebody else.", "The results of the test came today.",
    "A dog followed me home.", "I forgot my keys at work.", "Tell me about your morning.",
    "What is in this old box?",
)  # fmt: skip


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    make_tiny()
    make_real()


def make_tiny() -> None:
    """A llama that vLLM can run too (its attention wants heads of 32), and others."""
    save_tiny("tiny")
    save_tiny("other", seed=1)
    save_tiny("wide", hidden_size=96)
    model = load_model(FOLDER / "tiny", dtype="float32")
    pack = random_pack(model, size=0.35)
    pack.save(FOLDER / "tiny.safetensors")
    replace(pack, readout=None, gates=None).save(FOLDER / "blind.safetensors")
    # Its gates are decided by what it reads by, which is too late for circuits.
    second = random_pack(model, size=0.35, seed=5)
    replace(second, gates=None).save(FOLDER / "second.safetensors")
    for name in ("other", "wide"):
        random_pack(load_model(FOLDER / name), size=0.35).save(FOLDER / f"{name}.safetensors")
    write("tiny", expected(model, pack, TINY_SPECS, random_prompts(200)))
    mapped = SteeringPack.merge(pack, low_rank_pack(model, size=0.35))
    mapped.save(FOLDER / "mapped.safetensors")
    write("mapped", expected(model, mapped, MAPPED_SPECS, random_prompts(200)))


def make_real() -> None:
    folder = pull("smollm2-135m-instruct")
    model = load_model(folder, dtype="float32")
    pack = random_pack(model, size=0.08)
    pack.save(FOLDER / "real.safetensors")
    (FOLDER / "real.json").write_text(json.dumps({"folder": str(folder)}))
    write("real", expected(model, pack, REAL_SPECS, chats(model)))


def save_tiny(name: str, seed: int = 0, hidden_size: int = 64) -> None:
    """Weights large enough that replies do not end in one token over and over."""
    hf = tiny_hf("llama", seed, head_dim=32, hidden_size=hidden_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in hf.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.25 * noise if weight.ndim > 1 else weight.mean() + 0.2 * noise)
    tokenizer = tiny_tokenizer()
    hf.generation_config.eos_token_id = tokenizer.eos_token_id
    hf.save_pretrained(FOLDER / name)
    tokenizer.save_pretrained(FOLDER / name)


def random_pack(model: LanguageModel, size: float, seed: int = 0) -> SteeringPack:
    """All emotions in both modes, circuits on all layers, with probes after two blocks.

    Gates are decided at the embeddings or after the first third of the blocks.

    Args:
        size: Norm of a natural dose, as a share of the residual's at that place.
    """
    generator = torch.Generator().manual_seed(seed)
    n, d = model.n_layers, model.d_model
    rms = residual_rms(model)
    layers = {
        "residual.resid_post": tuple(range(n // 3, n)),
        "circuit.o_proj_out": tuple(range(n)),
        "circuit.down_proj_out": tuple(range(n)),
    }
    vectors = {
        name: torch.randn(len(EMOTIONS), len(at), d, generator=generator)
        * (rms[list(at)] * size / len(at) ** 0.5)[:, None]
        for name, at in layers.items()
    }
    where = (n // 3, n - 1)
    classes = (*EMOTIONS, "neutral")
    weights = torch.randn(len(where), len(classes), d, generator=generator)
    weights = weights / (rms[list(where)] * d**0.5)[:, None, None]
    bias = 0.1 * torch.randn(2, 7, generator=generator)
    words = torch.randn(1, len(classes), d, generator=generator) / (embedding_rms(model) * d**0.5)
    doses = {e: 0.6 + 0.2 * i for i, e in enumerate(EMOTIONS)}
    return SteeringPack(
        EMOTIONS, vectors, layers, n, d,
        recommended={"residual": doses, "circuit": doses},
        positions={"residual": "last_prompt+generated", "circuit": "generated"},
        rms=rms,
        readout=Readout(classes, where, weights, bias),
        gates=Readout(
            classes, (EMBEDDINGS, n // 3), torch.cat([words, weights[:1]]), bias[[1, 0]]
        ),
        provenance=Provenance("pack", model=model.fingerprint, model_name=model.name),
    )  # fmt: skip


def low_rank_pack(model: LanguageModel, size: float, rank: int = 2) -> SteeringPack:
    """Maps of all emotions after the blocks that the residual mode steers.

    Args:
        size: Norm of what a map adds, as a share of the residual's: half of it whatever is read.
        rank: Rows of each map.
    """
    generator = torch.Generator().manual_seed(7)
    n, d, name = model.n_layers, model.d_model, "low_rank.resid_post"
    layers, k = tuple(range(n // 3, n)), len(EMOTIONS)
    length = (residual_rms(model)[list(layers)] * size / len(layers) ** 0.5)[:, None]

    def drawn(*shape: int) -> Tensor:
        return torch.randn(k, len(layers), *shape, generator=generator)

    doses = {e: 0.6 + 0.2 * i for i, e in enumerate(EMOTIONS)}
    return SteeringPack(
        EMOTIONS,
        {name: drawn(d) * length / 2},
        {name: layers},
        n,
        d,
        recommended={"low_rank": doses},
        positions={"low_rank": "last_prompt+generated"},
        low_rank={name: LowRank(drawn(rank, d) * size / d**0.5, drawn(rank, d) / rank**0.5)},
        provenance=Provenance("pack", model=model.fingerprint, model_name=model.name),
    )


def residual_rms(model: LanguageModel) -> Tensor:
    """After each block, on a prompt that needs no tokenizer."""
    ids = torch.arange(20)[None] + 5
    found: list[float] = []
    handles = [
        part.block.register_forward_hook(
            lambda _m, _a, out: found.append(float(_first(out)[0, 1:].float().pow(2).mean().sqrt()))
        )
        for part in model.anatomy.blocks
    ]
    with torch.no_grad():
        model.hf(input_ids=ids)
    for handle in handles:
        handle.remove()
    return torch.tensor(found)


def embedding_rms(model: LanguageModel) -> Tensor:
    """Of a token's vector."""
    return model.hf.get_input_embeddings().weight[5:100].float().pow(2).mean().sqrt().detach()


def random_prompts(vocab: int) -> Iterator[tuple[list[int], str | None]]:
    """Token ids of very different lengths, none of which begins another one."""
    generator = torch.Generator().manual_seed(7)
    while True:
        length = int(torch.randint(3, 90, (1,), generator=generator))
        yield torch.randint(5, vocab, (length,), generator=generator).tolist(), None


def chats(model: LanguageModel) -> Iterator[tuple[list[int], str | None]]:
    for i in range(10_000):
        text = f"{EVENTS[i % len(EVENTS)]} {EVENTS[i // len(EVENTS)]}" if i >= 12 else EVENTS[i]
        yield list(encode_prompt(model, text)), text


def expected(
    model: LanguageModel,
    pack: SteeringPack,
    specs: Mapping[str, str | None],
    prompts: Iterator[tuple[list[int], str | None]],
) -> list[Case]:
    """Every spec on a prompt of its own."""
    found: dict[str, Case] = {}
    for _ in range(40):
        left = [name for name in specs if name not in found]
        if not left:
            return [found[name] for name in specs]
        rows = [next(prompts) for _ in left]
        asked = [specs[name] for name in left]
        replies = generate_steered(model, pack, [ids for ids, _ in rows], asked, SETTINGS)
        for name, (ids, text), spec, reply in zip(left, rows, asked, replies, strict=True):
            case = examined(model, pack, name, spec, ids, text, reply)
            if case is not None:
                found[name] = case
    raise AssertionError(f"No prompt leaves no doubt for {', '.join(left)}.")


def examined(
    model: LanguageModel,
    pack: SteeringPack,
    name: str,
    spec: str | None,
    prompt: list[int],
    text: str | None,
    reply: Sequence[int],
) -> Case | None:
    """A case with its log-probabilities and readings; None if a decision is in doubt."""
    resolved, readout, gates = pack.resolve(spec), pack.readout, pack.gates
    assert readout is not None and gates is not None
    decider = pack.decider(resolved) if resolved.gate else 0
    before: list[Tensor] = []
    after: dict[int, Tensor] = {}
    blocks = model.anatomy.blocks
    # What comes before a block is what comes after the one before, but for the first.
    watched = blocks[max(gates.layers[decider], 0)].block
    if gates.layers[decider] == EMBEDDINGS:
        handles = [watched.register_forward_pre_hook(lambda _m, args: before.append(args[0][0]))]
    else:
        handles = [watched.register_forward_hook(lambda _m, _a, out: before.append(_first(out)[0]))]
    ids = torch.tensor([[*prompt, *reply]])
    with torch.no_grad(), steering(model, pack, spec, prompt_lengths=[len(prompt)]):
        handles += [
            blocks[layer].block.register_forward_hook(
                lambda _m, _a, out, layer=layer: after.__setitem__(layer, _first(out)[0])
            )
            for layer in readout.layers
        ]
        logits = model.hf(input_ids=ids).logits[0].float()
    for handle in handles:
        handle.remove()
    chosen = slice(len(prompt) - 1, len(prompt) + len(reply) - 1)
    logits = logits[chosen]
    best = logits.topk(2).values
    if bool(((best[:, 0] - best[:, 1]) < DOUBT).any()):
        return None
    if tuple(logits.argmax(-1).tolist()) != tuple(reply):  # an end of text would have come first
        return None
    if resolved.gate is not None:
        index = gates.classes.index(resolved.gate.label)
        shares = probabilities(before[0], gates.weights[decider], gates.bias[decider])[:, index]
        if bool(((shares - resolved.gate.threshold).abs() < DOUBT).any()):
            return None
        above = shares[len(prompt) :] > resolved.gate.threshold
        if bool(above.all() or not above.any()):  # both are to be seen
            return None
    if resolved and tuple(reply) == generate_steered(model, pack, [prompt], None, SETTINGS)[0]:
        return None
    scores = torch.stack(
        [
            after[layer][chosen].float() @ readout.weights[i].T + readout.bias[i]
            for i, layer in enumerate(readout.layers)
        ],
        1,
    )
    logprobs = logits.log_softmax(-1)[torch.arange(len(reply)), torch.tensor(reply)]
    return Case(
        name, spec, prompt, text, list(reply), logprobs.tolist(),
        scores.softmax(-1).tolist(), scores.mean(0).softmax(-1).tolist(),
    )  # fmt: skip


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def write(name: str, cases: Sequence[Case]) -> None:
    path: Path = FOLDER / f"{name}.cases.json"
    path.write_text(json.dumps([asdict(case) for case in cases]))


if __name__ == "__main__":
    main()
