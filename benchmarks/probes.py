"""Probe sweeps against a joblib loop over scikit-learn's LogisticRegression.

    python benchmarks/probes.py                        # a problem of the shape of the authored one
    python benchmarks/probes.py --problem goemotions   # 20,000 texts (random rows), 5 × 5 folds
    python benchmarks/probes.py --store runs/demo/activations/replies   # activations of a model
    python benchmarks/probes.py --sites 4 --threads 1  # fewer sites, one core, on both sides alike

Without a store, rows are random with planted classes, their features correlated as those of a
residual stream are. Both sides fit the same folds, penalties and standardised features on so many
cores; scikit-learn to its default tolerance (1e-4), ours to that of a sweep's folds. Printed are
wall and CPU seconds (of worker processes only once they are gone: believe it with --threads 1),
their ratios, how often the predictions agree, the peak of the resident set, and the time of 2,000
bootstrap draws of all scores at all sites.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from affectlens.geometry.logistic import fit_logistic
from affectlens.probes.crossval import TOL
from affectlens.probes.folds import assign_folds, group_ids
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import scores

D, CLASSES = 576, 7
AT_ONCE = 4  # sites that a sweep hands over together


@dataclass(frozen=True)
class Problem:
    rows: int
    groups: int
    penalties: tuple[float, ...]
    folds: int
    nested: bool


PROBLEMS = {
    "authored": Problem(840, 120, (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0), 5, nested=True),
    "goemotions": Problem(20_000, 20_000, (1e-4, 1e-3, 1e-2, 0.1, 1.0), 5, nested=False),
}


def rows_of(problem: Problem, sites: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations with planted classes, and folds of groups."""
    generator = torch.Generator().manual_seed(0)
    n = problem.rows
    groups = torch.arange(n) * problem.groups // n
    y = torch.randint(CLASSES, (n,), generator=generator)
    mixing = torch.randn(D, D, generator=generator) * torch.logspace(0, -2, D)[:, None]
    means = 0.3 * torch.randn(CLASSES, D, generator=generator)
    x = torch.randn(sites, n, D, generator=generator).add_(means[y]) @ mixing
    return x, y, assign_folds(groups, problem.folds, 0)


def stored(
    path: str, problem: Problem, sites: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations, labels and folds of scenarios of a store."""
    from affectlens.activations import ActivationStore

    store = ActivationStore.open(path)
    wanted = store.sites[:: max(1, len(store.sites) // sites)][:sites]
    labels = store.column("emotion")
    y = torch.tensor([store.label_set.index(label) for label in labels])
    fold = assign_folds(group_ids(store.column("scenario")), problem.folds, 0)
    return torch.stack([store.to_torch(site) for site in wanted]), y, fold


def masks_of(problem: Problem, fold: torch.Tensor) -> torch.Tensor:
    left_out: list[tuple[int, ...]] = [(f,) for f in range(problem.folds)]
    if problem.nested:
        left_out += list(combinations(range(problem.folds), 2))
    return torch.stack([(~torch.isin(fold, torch.tensor(out))).float() for out in left_out])


def spent() -> tuple[float, float]:
    """Wall and CPU seconds, those of child processes too."""
    mine, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu = mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
    return time.perf_counter(), cpu


def theirs_of(x: np.ndarray, y: np.ndarray, mask: np.ndarray, c: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x[mask])
    model = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(x[mask]), y[mask])
    return model.predict(scaler.transform(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", choices=list(PROBLEMS), default="authored")
    parser.add_argument("--sites", type=int, default=31)
    parser.add_argument("--theirs", type=int, help="sites that scikit-learn fits; default: all")
    parser.add_argument("--store", help="Of seven tones; default: random rows.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    problem = PROBLEMS[given.problem]
    if given.store is None:
        x, y, fold = rows_of(problem, given.sites)
    else:
        x, y, fold = stored(given.store, problem, given.sites)
        problem = replace(problem, rows=len(y), groups=len(y) // CLASSES)
    masks = masks_of(problem, fold)
    fits = given.sites * len(masks) * len(problem.penalties)
    print(f"{given.problem}: {given.sites} sites × {len(masks)} folds × {len(problem.penalties)} C")

    start = spent()
    said: list[torch.Tensor] = []
    for some in x.split(AT_ONCE):
        found = fit_logistic(some, y, problem.penalties, n_classes=CLASSES, weight=masks, tol=TOL)
        said.extend(found.logits(some).argmax(-1))
    ours = [b - a for a, b in zip(start, spent(), strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"ours: {ours[0]:.1f} s, CPU {ours[1]:.1f} s, {fits} fits, peak {peak:.2f} GiB")

    theirs, agree = joblib_loop(x[: given.theirs], y, masks, problem, torch.stack(said))
    share = given.sites / len(x[: given.theirs])
    print(f"joblib + scikit-learn: {theirs[0] * share:.1f} s, CPU {theirs[1] * share:.1f} s")
    print(f"ratio: wall {theirs[0] * share / ours[0]:.1f}, CPU {theirs[1] * share / ours[1]:.1f}")
    print(f"predictions that agree: {agree:.4%}")

    held = held_out(x, y, problem)
    start = spent()
    scores(held, draws=2000)
    wall, cpu = (b - a for a, b in zip(start, spent(), strict=True))
    print(f"2,000 draws, {len(held)} rows × {len(x)} sites: {wall:.1f} s, CPU {cpu:.1f} s")


def joblib_loop(
    x: torch.Tensor, y: torch.Tensor, masks: torch.Tensor, problem: Problem, said: torch.Tensor
) -> tuple[list[float], float]:
    from joblib import Parallel, delayed

    todo: list[Any] = [
        delayed(theirs_of)(site.numpy(), y.numpy(), mask.bool().numpy(), c)
        for site in x
        for mask in masks
        for c in problem.penalties
    ]
    start = spent()
    found = np.stack(Parallel(n_jobs=torch.get_num_threads())(todo))
    used = [b - a for a, b in zip(start, spent(), strict=True)]
    mine = said[: len(x)].reshape(found.shape).numpy()
    return used, float((found == mine).mean())


def held_out(x: torch.Tensor, y: torch.Tensor, problem: Problem) -> HeldOut:
    """As many rows as the test split of the problem has, with any scores."""
    n = problem.rows if problem.nested else problem.rows // 4
    names = tuple(f"g{i * problem.groups // problem.rows}" for i in range(n))
    outputs = torch.randn(len(x), n, CLASSES, generator=torch.Generator().manual_seed(1))
    return HeldOut(names, names, y[:n], outputs, tuple(map(str, range(CLASSES))))


if __name__ == "__main__":
    main()
