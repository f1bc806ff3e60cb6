"""The words before any block: what the tokens are, before the model has done anything with them."""

from __future__ import annotations

from dataclasses import replace

from affectlens.probes.fitting import EMBEDDINGS
from affectlens.sweeps.controls.base import Control, Row, Setting


def static_embeddings(setting: Setting) -> list[Row]:
    """The same probe before the first block, at the same tokens.

    Where positions are learnt and added to the embeddings (GPT-2), they are in it.
    """
    sites = setting.cell.sweep.sites
    if EMBEDDINGS not in sites:
        note = "these sites are of another width than the embeddings"
        return [setting.row("static_embeddings", "accuracy", float("nan"), note=note)]
    i = sites.index(EMBEDDINGS)
    other = replace(setting.held, outputs=setting.held.outputs[i : i + 1])
    return setting.beside("static_embeddings", other, note="before the first block")


STATIC_EMBEDDINGS = Control(
    "static_embeddings",
    "the same probe before the first block",
    "The answer is in the words; the model adds nothing.",
    static_embeddings,
    numbers=True,
)
