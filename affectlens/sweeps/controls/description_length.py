"""Description length: in how few bits the labels can be told to one who has the activations.

Online code (Voita and Titov, arXiv 2003.12298): growing shares of the rows are fitted on, and the
next share is told under that probe's probabilities; the first is told uniformly.

    L = t_1 log2 K - sum_i log2 p_i(y of rows t_i + 1 .. t_{i+1})

*Compression* is ``n log2 K / L``: 1 where the probe knows nothing. A code that is short because
little data suffices tells that the label is easy to read, not merely possible.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.probes.calibration.base import SIGMOID, SOFTMAX, linked
from affectlens.probes.crossval import fit_probes
from affectlens.probes.design import Design
from affectlens.sweeps.controls.base import Control, Row, Setting, shuffled_places

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def portions(design: Design, seed: int) -> list[Tensor]:
    """Growing sets of fitting rows, of whole groups in a random order; the last has all of them.

    The first has every class, since no probe can be fitted on fewer.
    """
    random = np.random.default_rng(seed)
    place, count = shuffled_places(design.groups, design.fit, random)
    found: list[Tensor] = []
    for share in SHARES:
        rows = design.fit & (place < math.ceil(share * count))
        complete = len(set(design.y[rows].tolist())) == len(design.classes)
        if complete and (not found or int(rows.sum()) > int(found[-1].sum())):
            found.append(rows)
    return found


def code_length(
    x: Float[Tensor, "site n d"], design: Design, penalty: Float[Tensor, "site 1"], setting: Setting
) -> Float[Tensor, " site"]:
    """Bits that tell the labels of all fitting rows, at every site."""
    sets = portions(design, setting.fitting.seed)
    masks = torch.stack(sets[:-1]).float() if len(sets) > 1 else torch.zeros(0, len(design.y))
    bits = torch.full((len(x),), float(sets[0].sum()) * math.log2(len(design.classes)))
    if len(sets) == 1:
        return bits
    said = fit_probes(x, design, penalty, masks, setting.probe).logits(x)[:, :, 0].double()
    softmax = setting.probe.link == SOFTMAX
    logs = said.log_softmax(-1) if softmax else linked(said, SIGMOID, exclusive=True).log()
    told = logs.gather(-1, design.y[None, None, :, None].expand(*logs.shape[:3], 1))[..., 0]
    for i, (before, after) in enumerate(pairwise(sets)):
        bits = bits - (told[:, i, after & ~before].sum(1) / math.log(2)).float()
    return bits


def description_length(setting: Setting) -> list[Row]:
    """Bits per row and compression at every site."""
    design = setting.design
    n, uniform = int(design.fit.sum()), math.log2(len(design.classes))
    rows: list[Row] = []
    for i, site in enumerate(setting.sites):
        x = setting.rows.read([site], design)
        penalty = torch.tensor([[setting.cell.sweep.penalty[i]]])
        bits = float(code_length(x, design, penalty, setting)[0])
        name, note = site.hook_name, f"{n} rows; uniform code {uniform:.3f} bits each"
        rows.append(setting.row("description_length", "bits per row", bits / n, site=name,
                                note=note))  # fmt: skip
        rows.append(setting.row("description_length", "compression", n * uniform / bits, site=name))
    return rows


DESCRIPTION_LENGTH = Control(
    "description_length",
    "bits that tell the labels by an online code: how easily they are read",
    "With enough data any probe reads anything; how easily does this one?",
    description_length,
)
