"""What attention sinks do to means: norms by depth, and a probe that reads texts with and without.

A probe is fitted on replies (``mean:reply``, which no sink is part of) and reads unseen plain
texts as their mean without sinks, and as the mean over all of their tokens.

Usage: ``python benchmarks/sinks.py [model] [groups]``
"""

from __future__ import annotations

import sys

import torch

from affectlens import load_model
from affectlens.activations import ActivationStore, capture
from affectlens.datasets import Corpus, Message, Record, load
from affectlens.probes import Sweep, sweep


def main(name: str = "smollm2-135m-instruct", groups: str = "40") -> None:
    """Print one line for every fourth block."""
    model = load_model(name)
    sites = [f"resid_post@{layer}" for layer in range(2, model.n_layers, 4)]
    print(f"{name}: left out of means are {model.sinks.describe(model.tokenizer)}")
    replies = load("replies").filter(role="direction")
    few = set(replies.groups()[: int(groups)])
    kept = tuple(record for record in replies if record.group in few)
    fitted = capture(model, Corpus("replies", "replies", kept), sites=sites)
    probes = sweep(fitted, draws=10)
    texts = tuple(
        Record(r.id, (Message("text", r.text),), r.emotion, None, r.id, "", "test")
        for r in load("tones").filter(role="test").records[:98]
    )
    positions = ("mean:text", "mean:text+sinks", "all")
    read = capture(model, Corpus("texts", "texts", texts), sites=sites, positions=positions)
    print(f"{len(kept)} replies fitted, {len(texts)} texts read, chance 1/{len(probes.classes)}")
    print("block  first token / median  mean: without, with  accuracy: without, with")
    tokens = read.select(position="all").column("token")
    first = torch.tensor([token == 0 for token in tokens])
    for i, site in enumerate(read.sites):
        norms = read.to_torch(site, "all").norm(dim=1)
        ratio = float(norms[first].median() / norms[~first].median())
        sizes = [float(read.to_torch(site, p).norm(dim=1).median()) for p in positions[:2]]
        right = [_accuracy(read, probes, i, p) for p in positions[:2]]
        print(
            f"{site.layer:5d}  {ratio:20.1f}  {sizes[0]:11.1f}, {sizes[1]:6.1f}  "
            f"{right[0]:14.2f}, {right[1]:.2f}"
        )


def _accuracy(store: ActivationStore, probes: Sweep, index: int, position: str) -> float:
    weights, bias, classes = probes.weights[index], probes.bias[index], probes.classes
    scores = store.to_torch(store.sites[index], position).float() @ weights.float().T + bias.float()
    found = [classes[k] for k in scores.argmax(-1).tolist()]
    labels = store.column("emotion", position)
    return sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)


if __name__ == "__main__":
    main(*sys.argv[1:])
