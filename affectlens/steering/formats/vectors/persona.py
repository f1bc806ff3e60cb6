"""Persona vectors (arXiv 2507.21509): a ``.pt`` file with one tensor ``[n_layers + 1, d_model]``.

Row R is entry R of Transformers' ``hidden_states``, so row 0 is the embeddings and block N, counted
from 0, has row N + 1. ``eval_persona.py --layer R`` adds row R to the output of block R - 1, that
row alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from affectlens.core import ArtefactError
from affectlens.steering.formats.vectors.pt_file import read_pt, write_pt
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    VectorFile,
    VectorFormat,
    damaged,
    gathered,
    vector_of,
)

_MOST_ROWS = 4096


def write(content: BlockVectors, path: Path) -> None:
    """Rows of blocks that are not steered are zero."""
    rows = torch.zeros(content.n_layers + 1, content.d_model)
    for block, vector in content.vectors.items():
        rows[block + 1] = vector
    write_pt(rows, path)


def read(path: Path) -> VectorFile:
    """The rows of blocks.

    Raises:
        ArtefactError: If the file is damaged, or holds no such tensor.
    """
    rows: Any = read_pt(path)
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or not 2 <= len(rows) <= _MOST_ROWS:
        raise ArtefactError(
            f"{path} holds no persona vectors: they are one tensor of n_layers + 1 rows."
        )
    if rows.numel() > path.stat().st_size:
        raise damaged(path, f"it claims {rows.numel()} numbers")
    found = {row - 1: vector_of(path, f"row {row}", rows[row]) for row in range(1, len(rows))}
    notes: list[str] = []
    if bool(rows[0].any()):
        notes.append("Row 0 is of the embeddings, where packs do not steer; it was left out.")
    if bool(rows[-1].any()):
        notes.append(
            f"If output_hidden_states made it, row {len(rows) - 1} was measured behind the final "
            "norm, not after the last block."
        )
    return gathered(path, found, tuple(notes), len(rows) - 1)


PERSONA = VectorFormat(
    "persona-pt",
    "persona vectors: row N+1 is added after block N, counted from 0, one row at a time",
    ".pt",
    "persona vectors steer those that --steering_type names",
    lambda block: f"row {block + 1}",
    write,
    read,
    one_at_a_time=True,
)
