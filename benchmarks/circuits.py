"""Attribution on the default model against one pass per unit, and how far methods agree.

Times are CPU seconds of this process, so that other work on the machine does not count. What would
take hours one by one is measured on a part and multiplied; the table says of how many.

    OMP_NUM_THREADS=1 python benchmarks/circuits.py --run runs/demo
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import affectlens as al
from affectlens.circuits.attribution.contributions import score_units
from affectlens.circuits.attribution.gradients import GradientSettings, gradient_scores
from affectlens.circuits.attribution.scores import UnitScores, spearman
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.attribution.total_effect import total_effects
from affectlens.circuits.find import neutral_prompts
from affectlens.circuits.influence import influence
from affectlens.circuits.interventions import Intervention, heads, intervening, replace, zero
from affectlens.circuits.tasks.pairs import pairs as pairs_of
from affectlens.datasets import Corpus
from affectlens.geometry import Directions


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def said(text: str) -> None:
    print(text, flush=True)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def one_pass(model: Any, row: Any, change: Intervention) -> None:
    """One pass of the Hugging Face model over one context and continuation, a head changed."""
    context, told = row
    with torch.no_grad(), intervening(model, [change]):
        model.hf(input_ids=torch.tensor([[*context, *told]]), use_cache=False)


def _pairs(task: Any, emotion: str) -> list[Any]:
    try:
        return pairs_of(task, emotion, per_item=None)
    except al.AffectLensError:
        return []


def head_scores(model: Any, corpus: Any, directions: Any) -> None:
    ours, means = seconds(
        lambda: al.unit_means(model, corpus, directions.emotions, position="mean:reply")
    )
    more, _ = seconds(
        lambda: score_units(model, means, sublayer_directions(directions, model.anatomy))
    )
    record, n = next(iter(corpus)), 20
    ids = model.encode_chat(record.chat, add_generation_prompt=False).ids
    each, _ = seconds(
        lambda: [
            one_pass(model, (ids, ()), Intervention(at, zero(), mask))
            for at, mask in (heads(model, i, [i % 9]) for i in range(n))
        ]
    )
    count = len(corpus)
    mine, theirs = (ours + more) / count, each / n * 270
    said(
        f"| same-layer scores of all heads (and neurons), a text | {mine:.2f} | {theirs:.1f} "
        f"({n} of 270) | {theirs / mine:.0f} |"
    )


def pushes(model: Any, directions: Any) -> None:
    prompts = neutral_prompts(model, 2)
    ours, _ = seconds(lambda: influence(model, prompts, directions))
    n, total = 30, 4 * 30 * 2 * len(directions.emotions)
    at, mask = heads(model, 0, [0])
    each, _ = seconds(
        lambda: [
            one_pass(model, (prompts[0], ()), Intervention(at, zero(), mask)) for _ in range(n)
        ]
    )
    mine, theirs = ours / 2, each / n * total
    said(
        f"| influence of all sublayers, a prompt | {mine:.1f} | {theirs:.0f} ({n} of {total}) | "
        f"{theirs / mine:.0f} |"
    )


def all_heads(model: Any, task: Any, means: Any) -> None:
    one = task.first(1)
    ours, _ = seconds(lambda: total_effects(model, one, means, ["sadness"]))
    text = next(text for text in one.texts("sadness") if text)
    mean = means.mean("heads").mean(0)

    def by_hand() -> None:
        for layer in range(0, 30, 3):
            at, mask = heads(model, layer, [layer % 9])
            for _, row in text:
                one_pass(model, row, Intervention(at, replace(mean[layer]), mask))

    each, _ = seconds(by_hand)
    theirs = each * 27
    said(
        f"| exact total effect of all heads, a text of {len(text)} continuations | {ours:.1f} | "
        f"{theirs:.0f} (10 of 270) | {theirs / ours:.1f} |"
    )


def eap_ig(model: Any, task: Any, count: int) -> None:
    pairs = {e: _pairs(task, e) for e in task.emotions}
    each = -(-count // sum(bool(found) for found in pairs.values()))
    kept = {e: found[:each] for e, found in pairs.items() if found}
    n = sum(map(len, kept.values()))
    before = peak()
    took, _ = seconds(
        lambda: gradient_scores(
            model, task, Against(pairs=kept), list(kept), GradientSettings("inputs", 5)
        )
    )
    said(
        f"| EAP-IG (inputs, 5 steps) of all nodes, {n} pairs over {len(kept)} emotions | "
        f"{took:.0f} | | |"
    )
    said(f"peak memory rose from {before:.2f} to {peak():.2f} GiB")


def agreement(
    model: Any, task: Any, means: Any, directions: Any, neurons: int, emotions: Sequence[str]
) -> None:
    against = Against(means)
    found: dict[str, UnitScores] = {}
    # (EAP-IG over activations takes 150 times as long here, over inputs it wants pairs of texts.)
    name = "attribution patching"
    took, found[name] = seconds(
        lambda: gradient_scores(model, task, against, emotions, GradientSettings())
    )
    said(f"{name}: {took:.0f} s")
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(30, model.anatomy.d_mlp, dtype=torch.bool)
    size = found["attribution patching"].neurons.abs().mean(0)
    top = size.flatten().argsort(descending=True)[: neurons // 2]
    chosen.view(-1)[top] = True
    rest = torch.randperm(chosen.numel(), generator=generator)[: neurons // 2]
    chosen.view(-1)[rest] = True
    exact = {
        "sublayers": total_effects(model, task, means, emotions, kind="sublayers"),
        "heads": total_effects(model, task, means, emotions),
        "neurons": total_effects(model, task, means, emotions, kind="neurons", units=chosen),
    }
    found_by = sublayer_directions(directions, model.anatomy)
    scored = score_units(model, means, found_by, score="contrast")
    index = [scored.emotions.index(e) for e in emotions]
    direct = {"heads": scored.heads[index], "neurons": scored.neurons[index]}
    said("\n| against exact, Spearman, mean over emotions | heads | sublayers | neurons |")
    said("|---|---|---|---|")
    for name, scores in [*found.items(), ("direct contribution", direct)]:
        cells = list[str]()
        for kind in ("heads", "sublayers", "neurons"):
            values = scores.get(kind) if isinstance(scores, dict) else scores.of(kind)
            if values is None:
                cells.append("")
                continue
            pairs = [spearman(values[e], exact[kind][e]) for e in range(len(emotions))]
            each = [pair[0] for pair in pairs if pair]
            cells.append(f"{sum(each) / len(each):.2f} ({min(each):.2f}-{max(each):.2f})")
        said(f"| {name} | {' | '.join(cells)} |")


def k_curve(model: Any, task: Any, circuit: Any, means: Any) -> None:
    """All emotions at once: their units, each other's, and 20 random draws at every count."""
    most = min(len(circuit.units(e, "neurons")) for e in circuit.emotions)
    counts = tuple(2**k for k in range(8) if 2**k <= most)
    asked = al.AblationSettings(counts=counts, draws=20)
    took, curve = seconds(lambda: al.ablate(model, task, circuit, means, asked))
    passes = len(task) * len(counts) * len(circuit.emotions) * (len(circuit.emotions) + 20)
    said(
        f"| ablation curves of {len(counts)} counts and 20 random draws, {len(task)} texts, "
        f"{passes} conditions of texts | {took:.0f} | | |"
    )
    for row in curve.table_rows()[-len(circuit.emotions) :]:
        said(
            f"  {row['emotion']}: {row['change']:.3f} against {row['random']:.3f}, p {row['p']:.2g}"
        )


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--run", default="runs/demo", help="finished run folder")
    ask.add_argument("--pairs", type=int, default=64)
    ask.add_argument("--texts", type=int, default=1)
    ask.add_argument("--neurons", type=int, default=60)
    ask.add_argument("--records", type=int, default=70, help="replies that means are of")
    ask.add_argument("--emotions", type=int, default=2)
    ask.add_argument("--curve", type=int, default=12, help="texts of the ablation curve")
    given = ask.parse_args()
    model = al.load_model("smollm2-135m-instruct", dtype="float32")
    directions = Directions.load(f"{given.run}/directions.safetensors")
    emotions = directions.emotions
    replies = al.datasets.load("replies")
    some = Corpus(
        "replies", replies.design, replies.filter(role="direction").records[: given.records]
    )
    task = al.CarryOver.of(model, replies.filter(role="tune"), emotions)
    means = al.unit_means(model, some, emotions, position="mean:reply")
    said("| what | ours, s | one pass each, s | times faster |\n|---|---|---|---|")
    all_heads(model, task, means)
    head_scores(model, some, directions)
    pushes(model, directions)
    eap_ig(model, al.CarryOver.of(model, replies, emotions), given.pairs)
    circuit = al.Circuit.load(f"{given.run}/circuit.safetensors")
    k_curve(model, task.first(given.curve), circuit, means)
    chosen = list(emotions[: given.emotions])
    agreement(model, task.first(given.texts), means, directions, given.neurons, chosen)


if __name__ == "__main__":
    main()
