"""The control task: labels drawn at random, but always the same for the same group or word.

A probe that has learnt them by heart does well on rows of groups or words that it has seen, though
there is nothing to read. Its accuracy there is what the probe can memorise; *selectivity* is the
accuracy on the real labels less that (Hewitt and Liang, arXiv 1909.03368). Rows are held out within
groups (or words), so that each is seen in the fit.

- by ``group``: rows of one content share a label;
- by ``word``: rows whose last word is the same share a label.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.core.statistics import bootstrap_interval
from affectlens.probes.crossval import out_of_fold
from affectlens.probes.design import Design
from affectlens.sweeps.controls.base import TOL, Control, Row, Setting

_LEAST = 20  # rows of types that occur twice, for a figure worth telling
_WORD = re.compile(r"[^\W\d_]+")


def control_design(
    design: Design, types: Sequence[Hashable], seed: int
) -> tuple[Design, Bool[Tensor, " n"]] | None:
    """A design whose labels are random by type, and the rows that take part.

    Args:
        design: Of the real labels, whose classes and their shares are kept.
        types: What rows with the same label share.
        seed: Of labels and folds.

    Returns:
        None if too few rows have a type that occurs twice, or there are fewer types than classes.
    """
    random = np.random.default_rng(seed)
    members: dict[Hashable, list[int]] = {}
    for i, kind in enumerate(types):
        members.setdefault(kind, []).append(i)
    several = [rows for rows in members.values() if len(rows) > 1]
    used = [i for rows in several for i in rows]
    folds = design.folds
    if len(used) < _LEAST or len(several) < len(design.classes):
        return None
    told = random.permutation(_quota(design, len(several)))
    y = torch.zeros(len(types), dtype=torch.long)
    fold = torch.full((len(types),), -1)
    start = 0
    for rows, label in zip(several, told, strict=True):
        y[rows] = int(label)
        shuffled = random.permutation(rows)
        fold[shuffled] = (torch.arange(len(rows)) + start) % folds  # rows of a type lie apart
        start += len(rows)
    takes_part = torch.zeros(len(types), dtype=torch.bool)
    takes_part[used] = True
    return replace(design, y=y, fold=fold, fit=takes_part, nested=True), takes_part


def _quota(design: Design, count: int) -> list[int]:
    """So many labels, each at least once, else in the shares of the real ones."""
    share = torch.bincount(design.y, minlength=len(design.classes)).double()
    exact = (share / share.sum() * (count - len(share))).numpy()
    times = np.floor(exact).astype(int)
    for k in np.argsort(times - exact, kind="stable")[: count - len(share) - int(times.sum())]:
        times[k] += 1
    return [k for k, n in enumerate(times) for _ in range(1 + n)]


def memorised(
    x: Float[Tensor, "site n d"], design: Design, penalty: Sequence[float], setting: Setting
) -> Float[Tensor, "site n"]:
    """Whether each row is right under the fit without its fold, at the penalty of its site."""
    tried = torch.tensor(penalty)[:, None]
    return out_of_fold(x, design, tried, setting.probe, tol=TOL)


def control_task(setting: Setting) -> list[Row]:
    """What the probe memorises at every site, and its selectivity."""
    design, cell = setting.design, setting.cell
    words = [(_WORD.findall(r.text.lower()) or [""])[-1] for r in setting.records]
    rows: list[Row] = []
    for by, types in (("group", design.groups), ("word", words)):
        made = control_design(design, list(types), setting.fitting.seed)
        if made is None:
            note = f"too few rows share a {by} for labels to be learnt by it"
            rows.append(setting.row("control_task", f"accuracy by {by}", float("nan"), note=note))
            continue
        control, used = made
        clusters = [str(t) for t, u in zip(types, used, strict=True) if u]
        for i, site in enumerate(setting.sites):
            x = setting.rows.read([site], design)
            right = memorised(x, control, [cell.sweep.penalty[i]], setting)[0][used].double()
            low, high = bootstrap_interval(
                right.numpy(), clusters, draws=setting.fitting.draws, random=setting.fitting.seed
            )
            name, value = site.hook_name, float(right.mean())
            real = float(setting.cell.sweep.scores["accuracy"][i])
            note = f"{int(used.sum())} rows, {len(set(clusters))} {by}s"
            rows.append(
                setting.row("control_task", f"accuracy by {by}", value, site=name,
                            low=float(low), high=float(high), note=note)
            )  # fmt: skip
            rows.append(
                setting.row("control_task", f"selectivity by {by}", real - value, site=name)
            )
    return rows


CONTROL_TASK = Control(
    "control_task",
    "random labels by group and by word: what the probe memorises, and its selectivity",
    "The probe learns the task by itself; the model need not hold the answer.",
    control_task,
)
