"""Made-up activations with a known structure."""

from __future__ import annotations

import torch
from torch import Tensor

from affectlens.activations import ActivationStore
from affectlens.core.emotions import EMOTIONS, NEUTRAL, VALENCES
from affectlens.core.places import Site

SITES = (Site(0, "resid_post"), Site(1, "resid_post"))


def planted(
    n_scenarios: int = 12,
    d: int = 24,
    *,
    signal: float = 1.0,
    noise: float = 0.5,
    content: float = 20.0,
    with_neutral: bool = True,
    seed: int = 0,
) -> tuple[ActivationStore, Tensor]:
    """Scenario × valence × tone, ``content + signal * direction[tone] + noise``.

    ``group`` is the scenario alone: the valence is needed to tell its three events apart.

    Returns:
        The store, and the planted directions ``[site, emotion, d]`` (unit, centred).
    """
    generator = torch.Generator().manual_seed(seed)
    tones = (*EMOTIONS, NEUTRAL) if with_neutral else EMOTIONS
    directions = torch.randn(len(SITES), len(EMOTIONS), d, generator=generator)
    directions = directions - directions.mean(1, keepdim=True)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    labels: dict[str, list[str]] = {
        k: [] for k in ("emotion", "valence", "group", "theme", "split")
    }
    rows: list[Tensor] = []
    for scenario in range(n_scenarios):
        for valence in VALENCES:
            body = content * torch.randn(len(SITES), d, generator=generator)
            for i, tone in enumerate(tones):
                shift = directions[:, i] if tone != NEUTRAL else torch.zeros(len(SITES), d)
                extra = noise * torch.randn(len(SITES), d, generator=generator)
                rows.append(body + signal * shift + extra)
                for name, value in {
                    "emotion": tone,
                    "valence": valence,
                    "group": f"s{scenario:02d}",
                    "theme": "work" if scenario % 2 else "home",
                    "split": "test" if scenario % 4 == 3 else "fit",
                }.items():
                    labels[name].append(value)
    order = torch.randperm(len(rows), generator=generator)  # nothing may rest on the order
    x = torch.stack(rows)[order]
    shuffled = {name: [values[i] for i in order] for name, values in labels.items()}
    arrays = {site: x[:, i].contiguous() for i, site in enumerate(SITES)}
    return ActivationStore.of(arrays, shuffled, design="elicited", position="last"), directions
