"""What foreign vector files hold: one vector per block, added to what the block puts out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import ArtefactError
from affectlens.core.places import WritePoint

PerBlock = Mapping[int, Float[Tensor, " d_model"]]
"""Block, counted from 0, to what is added to its output, ``resid_post``."""


@dataclass(frozen=True, eq=False)
class BlockVectors:
    """One request to steer, folded into a vector per block: all that foreign formats can hold.

    Attributes:
        vectors: What is added, strength included.
        n_layers, d_model: Of the model.
        request: The steering spec that it is.
        model_name, model: The model's name, and its fingerprint.
        block_list: Name of the list of blocks within the model that carries no head, for formats
            that name modules.
    """

    vectors: PerBlock
    n_layers: int
    d_model: int
    request: str
    model_name: str = ""
    model: str = ""
    block_list: str = "layers"


@dataclass(frozen=True, eq=False)
class VectorFile:
    """What was read.

    Attributes:
        vectors: By block, float32, zero vectors left out.
        n_layers: Of the model, if the file tells.
        notes: What a user should know of it, a sentence each.
    """

    vectors: PerBlock
    n_layers: int | None = None
    notes: tuple[str, ...] = ()


def any_block(_blocks: Collection[int], _n_layers: int) -> None:
    """The check of tools that can steer every block."""


@dataclass(frozen=True)
class VectorFormat:
    """A row of the table.

    Attributes:
        name: What ``--format`` takes.
        help: Whose it is and how it counts blocks, in one line.
        ending: Of its files, with the dot; their readers go by it.
        tokens: Which tokens its reader steers, as the end of a sentence.
        label: What a block is called in the file.
        check: Given the blocks and how many the model has, a DataError says which of them the tool
            cannot steer.
        write: Writes a file, atomically.
        read: Inverse; an ArtefactError says what is wrong with the file.
        one_at_a_time: Whether its reader applies the vector of one block alone.
    """

    name: str
    help: str
    ending: str
    tokens: str
    label: Callable[[int], str]
    write: Callable[[BlockVectors, Path], None]
    read: Callable[[Path], VectorFile]
    one_at_a_time: bool = False
    check: Callable[[Collection[int], int], None] = any_block


def hook_name(block: int) -> str:
    """Where a block's vector is added, by TransformerLens's name."""
    return WritePoint(block, "resid_post").hook_name


def existing(path: Path) -> Path:
    """The path of a file.

    Raises:
        ArtefactError: If there is none.
    """
    if not path.is_file():
        raise ArtefactError(f"There is no file {path}.")
    return path


def damaged(path: Path, why: object) -> ArtefactError:
    """The sentence for a file that cannot be read."""
    line = (str(why).strip().splitlines() or [type(why).__name__])[0].rstrip(".")
    return ArtefactError(f"{path} is cut short or damaged ({line}); fetch or make it again.")


def vector_of(path: Path, name: str, value: Any) -> Float[Tensor, " d_model"]:
    """A vector of a file, as float32.

    Raises:
        ArtefactError: If it is no finite vector, or claims to be larger than its file.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != 1:
        raise ArtefactError(f"{path}: {name} is no vector of numbers.")
    if not 0 < value.numel() <= path.stat().st_size:
        raise damaged(path, f"{name} has {value.numel()} numbers")
    vector = value.detach().to(torch.float32).clone()
    if not bool(vector.isfinite().all()):
        raise ArtefactError(f"{path}: {name} holds NaN or infinity.")
    return vector


def gathered(
    path: Path, found: PerBlock, notes: tuple[str, ...] = (), n_layers: int | None = None
) -> VectorFile:
    """The vectors of a file that are not zero, by block.

    Raises:
        ArtefactError: If there are none, or their widths differ.
    """
    vectors = {block: found[block] for block in sorted(found) if bool(found[block].any())}
    if not vectors:
        raise ArtefactError(f"{path} holds no vector that would be added after a block.")
    widths = {len(vector) for vector in vectors.values()}
    if len(widths) > 1:
        raise ArtefactError(f"{path} holds vectors of the widths {sorted(widths)}; it is damaged.")
    return VectorFile(vectors, n_layers, notes)
