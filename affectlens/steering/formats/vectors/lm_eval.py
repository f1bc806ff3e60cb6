"""lm-evaluation-harness, ``--model steered --model_args …,steer_path=FILE.pt``.

A dict of modules, named within the model that carries no head: ``layers.N`` is added to the output
of block N, counted from 0 (EleutherAI/lm-evaluation-harness, models/hf_steered.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

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

_BLOCK = re.compile(r"(?:\w+\.)*(?:layers|h|blocks|block)\.(\d{1,6})")


def write(content: BlockVectors, path: Path) -> None:
    """Each vector with coefficient 1, to be added."""
    plain = {
        f"{content.block_list}.{block}": {
            "action": "add",
            "steering_vector": vector.detach().cpu().to(torch.float32).clone(),
            "steering_coefficient": 1.0,
            "bias": None,
            "head_index": None,
        }
        for block, vector in content.vectors.items()
    }
    write_pt(plain, path)


def read(path: Path) -> VectorFile:
    """Coefficient times vector of each block.

    Raises:
        ArtefactError: If the file is damaged, or does anything but add to outputs of blocks.
    """
    modules: Any = read_pt(path)
    if not isinstance(modules, dict) or not modules:
        raise ArtefactError(f"{path} is no file of the model `steered`: it is no dict of modules.")
    found: dict[int, torch.Tensor] = {}
    for name, one in cast("dict[Any, Any]", modules).items():
        match = _BLOCK.fullmatch(str(name))
        if match is None:
            raise ArtefactError(f"{path} steers the module {name}, which is no block.")
        try:
            action, bias = one["action"], one.get("bias")
            head, factor = one.get("head_index"), float(one.get("steering_coefficient", 1.0))
            vector = vector_of(path, str(name), one["steering_vector"]) * factor
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(path, f"{name}: {error}") from error
        if action != "add" or bias is not None or head is not None:
            raise ArtefactError(
                f"{path} does not just add at {name} (action {action!r}); only additions to a "
                "whole block's output can be read."
            )
        if int(match[1]) in found:
            raise ArtefactError(f"{path} steers block {match[1]} twice.")
        found[int(match[1])] = vector
    return gathered(path, found)


LM_EVAL = VectorFormat(
    "lm-eval",
    "lm-evaluation-harness, model steered: layers.N is added after block N, counted from 0",
    ".pt",
    "lm-evaluation-harness steers every token, the prompt's too",
    "module {}".format,
    write,
    read,
)
