"""What files of sparse autoencoders and transcoders hold: a vector per feature, for one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from affectlens.core import ArtefactError, DataError

_PLACE = re.compile(r"blocks\.(\d{1,6})\.hook_(resid_pre|resid_post|mlp_out)")

OF_NO_MODEL = "The file does not say of which model it is; only the width could be checked."
"""The note of features whose model is not known."""


@dataclass(frozen=True, eq=False)
class Feature:
    """What one feature adds when its activation is 1.

    Attributes:
        vector: Its row of the decoder, float32.
        block: Block to whose output it is added; None if the file does not say.
        model_name: Of the model it was found in; "" if the file does not say.
        notes: What a user should know of it, a sentence each.
        config: File beside the weights that says what they mean; None if there is none.
    """

    vector: Float[Tensor, " d_model"]
    block: int | None
    model_name: str = ""
    notes: tuple[str, ...] = ()
    config: Path | None = None


@dataclass(frozen=True)
class DictionaryFormat:
    """A row of the table.

    Attributes:
        name: What ``--format`` takes.
        help: Whose it is and what the file says of itself, in one line.
        read: One feature of a file, by number from 0; an ArtefactError says what is wrong with the
            file, a DataError that it has no such feature or is of a place that packs cannot reach.
    """

    name: str
    help: str
    read: Callable[[Path, int], Feature]


def block_of(path: Path, hook: str) -> int:
    """The block after which adding is the same as adding at a place.

    What is added before a block was added after the one before it, and nothing reads between what
    an MLP puts out and the end of its block.

    Args:
        path: For the sentence.
        hook: TransformerLens's name.

    Raises:
        DataError: If there is none.
    """
    match = _PLACE.fullmatch(hook)
    block = None if match is None else int(match[1]) - (match[2] == "resid_pre")
    if block is None or block < 0:
        raise DataError(
            f"{path} is of {hook or 'a place it does not name'}; packs add features at "
            "blocks.N.hook_resid_post, hook_mlp_out, and hook_resid_pre except that of block 0."
        )
    return block


def require_feature(path: Path, index: int, features: int) -> None:
    """Refuse a number that no feature has.

    Raises:
        DataError: Naming how many there are.
    """
    if not 0 <= index < features:
        raise DataError(
            f"{path} has {features} features, numbered from 0; there is no feature {index}."
        )


def require_alive(path: Path, index: int, vector: Float[Tensor, " d_model"]) -> None:
    """Refuse a feature that writes nothing.

    Raises:
        ArtefactError: If its vector is zero.
    """
    if not bool(vector.any()):
        raise ArtefactError(f"Feature {index} of {path} writes nothing (it is dead); use another.")
