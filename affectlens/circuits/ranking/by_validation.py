"""Units that hold on other texts: chosen again and again, or one block after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.gradients import gradient_scores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.attribution.total_effect import set_effects
from affectlens.circuits.ranking.base import Search, Strategy
from affectlens.circuits.ranking.reranked import reranked
from affectlens.circuits.tasks.base import Text, TextTask
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.circuits.tasks import Task

FOLDS, RESAMPLES = 8, 200
"""Parts that texts are scored in, by scenario, and times that parts are drawn with replacement."""
BLOCKS, WIDTH = 8, 3
"""Steps in which a greedy circuit grows, and how many times its size the candidates are."""


@dataclass(frozen=True, eq=False)
class Part(TextTask):
    """Some items of a task.

    Attributes:
        whole: The task.
        items: Which.
    """

    whole: TextTask
    items: tuple[int, ...]
    name: str = field(init=False)
    remedy: str = field(init=False)
    emotions: tuple[str, ...] = field(init=False)
    scenarios: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.whole.name)
        object.__setattr__(self, "remedy", self.whole.remedy)
        object.__setattr__(self, "emotions", self.whole.emotions)
        scenarios = tuple(self.whole.scenarios[i] for i in self.items)
        object.__setattr__(self, "scenarios", scenarios)

    @property
    def fingerprint(self) -> str:
        """Hash of the task and the items."""
        return fingerprint(cast("Task", self.whole).fingerprint, self.items)

    def first(self, items: int) -> Part:
        """The first of the items."""
        return Part(self.whole, self.items[:items])

    def weighted(self, item: int, emotion: int) -> Text:
        """See `TextTask.weighted`."""
        return self.whole.weighted(self.items[item], emotion)

    def constants(self, item: int, emotion: int) -> Text:
        """See `TextTask.constants`."""
        return self.whole.constants(self.items[item], emotion)


def folds(task: TextTask, count: int, seed: int) -> list[Part]:
    """Parts of a task, each scenario in one of them; as many as there are scenarios at most.

    Raises:
        DataError: If there is one scenario only.
    """
    names = sorted(set(task.scenarios))
    if len(names) < 2:
        raise DataError("A consensus needs texts of two scenarios or more; give more texts.")
    generator = torch.Generator().manual_seed(seed)
    turn = torch.randperm(len(names), generator=generator).tolist()
    fold_of = {names[i]: n % min(count, len(names)) for n, i in enumerate(turn)}
    return [
        Part(task, tuple(i for i, s in enumerate(task.scenarios) if fold_of[s] == n))
        for n in range(min(count, len(names)))
    ]


def _consensus(search: Search) -> Circuit:
    """Stability selection: how often a unit is among the highest when texts are drawn anew."""
    task, means = search.ranked_by
    if not isinstance(task, TextTask):
        raise DataError(
            f"The task {task.name} cannot be told in parts, as a consensus needs; use another."
        )
    emotions, against = search.circuit.emotions, Against(means)
    each = list[tuple[Tensor, Tensor]]()
    for part in folds(task, FOLDS, search.seed):
        columns = [task.emotions.index(emotion) for emotion in emotions]
        if all(any(part.weighted(i, e) for i in range(len(part))) for e in columns):
            scores = gradient_scores(search.model, part, against, emotions)
            each.append((scores.neurons, scores.heads))
    if len(each) < 2:
        raise DataError("Too few parts of the texts have every emotion; give more texts.")
    neurons, heads = (torch.stack(kind) for kind in zip(*each, strict=True))
    return reranked(
        search.circuit,
        often_highest(neurons, search.neurons, search.seed),
        often_highest(heads, search.heads, search.seed),
        neurons=search.neurons,
        heads=search.heads,
        how="consensus of attribution patching",
    )


def often_highest(
    scores: Float[Tensor, "fold emotion layer unit"], count: int, seed: int
) -> Float[Tensor, "emotion layer unit"]:
    """Share of resamples of the folds in which a unit is among so many highest.

    Equal shares are told apart by the mean score, which adds less than one resample does.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(scores)
    hits = torch.zeros(scores.shape[1:]).flatten(1)
    for _ in range(RESAMPLES if count else 0):
        drawn = torch.randint(n, (n,), generator=generator)
        top = scores[drawn].mean(0).flatten(1).topk(count, dim=1).indices
        hits.scatter_add_(1, top, torch.ones(top.shape))
    mean = scores.mean(0).flatten(1)
    rank = mean / mean.abs().max().clamp_min(1e-12) * 0.49 / RESAMPLES
    return (hits / RESAMPLES + rank).unflatten(1, scores.shape[2:])


def _greedy(search: Search) -> Circuit:
    """Blocks of candidates, each time the one without which the validation margin falls most."""
    model, emotions = search.model, search.circuit.emotions
    ranking, means = search.ranked_by
    first = gradient_scores(model, ranking, Against(means), emotions)
    task = search.validation or ranking
    chosen = list[Tensor]()
    for scores, count, kind in (
        (first.neurons, search.neurons, "neurons"),
        (first.heads, search.heads, "heads"),
    ):
        found = torch.full_like(scores, -1.0)
        for e, emotion in enumerate(emotions if count else ()):
            size = -(-count // BLOCKS)
            order = scores[e].flatten().argsort(descending=True)[: WIDTH * count]
            left = list(order.split(size))
            near = scores[e] / (2 * scores[e].abs().max().clamp_min(1e-12))
            taken = torch.zeros(scores[e].numel(), dtype=torch.bool)
            for rank in range(-(-count // size)):
                sets = list[Tensor]()
                for block in left:
                    more = taken.clone()
                    more[block] = True
                    sets.append(more.view(scores[e].shape))
                falls = set_effects(model, task, means, emotion, kind=kind, sets=sets)
                best = left.pop(int(falls.argmax()))
                taken[best] = True
                found[e].view(-1)[best] = 1.0 - (rank - near.flatten()[best]) / (2 * BLOCKS)
        chosen.append(found)
    return reranked(
        search.circuit,
        *chosen,
        neurons=search.neurons,
        heads=search.heads,
        how="greedy by validation",
    )


CONSENSUS = Strategy(
    "consensus", "units that are among the highest whichever texts are drawn", _consensus
)
GREEDY = Strategy(
    "greedy", "blocks of units, each the one that validation texts need most", _greedy
)
