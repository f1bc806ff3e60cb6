"""Always saying the same: the most frequent class, or the mean."""

from __future__ import annotations

import torch

from affectlens.sweeps.controls.base import Control, Row, Setting


def majority(setting: Setting) -> list[Row]:
    """The most frequent class (or the mean) of the fitting rows, said of every held-out row."""
    design = setting.design
    n = len(design.y)
    if setting.numbers:
        said = design.y[design.fit].mean().expand(n, 1)
    else:
        top = int(design.y[design.fit].mode().values)
        said = torch.nn.functional.one_hot(torch.full((n,), top), len(design.classes))
    return setting.beside("majority", setting.outputs(said), note="the same of every row")


MAJORITY = Control(
    "majority",
    "always the most frequent class of the fitting rows, or their mean",
    "The classes are uneven, so a high accuracy means little.",
    majority,
    numbers=True,
)
