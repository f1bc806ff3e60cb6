"""The files of a model, looked at before transformers reads a weight.

Only safetensors and GGUF are read: pickled weights can run code.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from affectlens.core.errors import ModelError
from affectlens.models.reading_errors import first_line

_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.(safetensors|gguf)")
_POINTER = b"version https://git-lfs"
_OTHER_WEIGHTS = {
    "*.bin": "pickled weights, which can run code when read",
    "*.pt": "pickled weights, which can run code when read",
    "*.pth": "pickled weights, which can run code when read",
    "*.ckpt": "pickled weights, which can run code when read",
    "*.h5": "weights for TensorFlow",
    "*.msgpack": "weights for Flax",
    "*.onnx": "weights for ONNX",
    "*/*.onnx": "weights for ONNX",
}
"""Files that hold weights which are not read, and what these are."""


def check_is_model_folder(folder: Path) -> None:
    """Say what a folder is if it is none of a language model.

    Raises:
        ModelError: If it has no config of one: a diffusion pipeline, another format.
    """
    if (folder / "model_index.json").is_file():
        raise ModelError(
            f"{folder} holds a diffusion pipeline (model_index.json), not a language model; "
            "affectlens reads decoders that write text."
        )
    if (folder / "config.json").is_file():
        return
    if (folder / "params.json").is_file():
        raise ModelError(
            f"{folder} holds a model in its maker's own format (params.json, no config.json); use "
            "the version made for transformers."
        )
    if files := sorted(folder.glob("*.gguf")):
        raise ModelError(f"{folder} holds GGUF files; give the file itself: {files[0]}.")
    raise ModelError(f"{folder} is not a model folder: it has no config.json.")


def check_weight_files(folder: Path) -> None:
    """Look at a folder's weights before transformers does.

    Raises:
        ModelError: If there are none that can be read, or one is missing or cut short.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        if ggufs := sorted(folder.glob("*.gguf")):
            raise ModelError(f"{folder} holds GGUF files; give the file itself: {ggufs[0]}.")
        for pattern, what in _OTHER_WEIGHTS.items():
            if found := sorted(folder.glob(pattern)):
                raise ModelError(
                    f"{folder} holds {what} ({found[0].relative_to(folder)}); convert them to "
                    "safetensors first."
                )
        raise ModelError(f"{folder} holds no weights (*.safetensors).")
    tensors = {file.name: check_safetensors(file) for file in files}
    _check_shards(folder, tensors)


def _check_shards(folder: Path, tensors: dict[str, set[str]]) -> None:
    """Hold the files that are there against the index, and against their own numbers."""
    if "model.safetensors" in tensors:
        return
    index = folder / _INDEX
    if index.is_file():
        try:
            placed: dict[str, str] = dict(json.loads(index.read_bytes())["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{index} is damaged; fetch it again.") from error
        _complain_of_missing(folder, {str(file) for file in placed.values()}, tensors)
        for tensor, file in placed.items():
            if tensor not in tensors[file]:
                raise ModelError(
                    f"{folder / file} holds no {tensor}, which {_INDEX} places there; fetch both "
                    "files again, from one version of the model."
                )
        return
    shards = [match for name in tensors if (match := _SHARD.fullmatch(name))]
    if not shards:
        return
    stem, total = shards[0]["stem"], int(shards[0]["total"])
    wanted = {f"{stem}-{number:05}-of-{total:05}.safetensors" for number in range(1, total + 1)}
    _complain_of_missing(folder, wanted, tensors)
    raise ModelError(
        f"{folder} lacks {_INDEX}, which says what lies in which of its {total} weight files; "
        "fetch it too."
    )


def _complain_of_missing(folder: Path, wanted: set[str], there: dict[str, set[str]]) -> None:
    missing = sorted(wanted - set(there))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{folder} lacks {len(missing)} of its {len(wanted)} weight files ({missing[0]}{more});"
            " fetch what is missing."
        )


def check_safetensors(path: Path) -> set[str]:
    """Compare a file's size with what its header promises.

    Returns:
        Names of its tensors.

    Raises:
        ModelError: If it is cut short or its header is no header.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            first = handle.read(len(_POINTER))
            if first == _POINTER:
                raise ModelError(
                    f"{path} is a pointer of Git LFS, not the weights; run `git lfs pull` in "
                    f"{path.parent}."
                )
            handle.seek(0)
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise ValueError("header longer than the file")
            header = json.loads(handle.read(length))
        ends = {k: int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is cut short or damaged; download it again.") from error
    expected = 8 + length + max(ends.values(), default=0)
    if size != expected:
        raise ModelError(
            f"{path} is cut short ({size} bytes instead of {expected}); download it again."
        )
    return set(ends)


def check_gguf(path: Path) -> str:
    """Read a GGUF header and check that every tensor lies inside the file.

    Returns:
        The family that the file names (``general.architecture``).

    Raises:
        ModelError: If it does not exist, is no GGUF file or no language model, is a part of one, or
            is cut short.
    """
    from gguf import GGUFReader

    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    try:
        reader: Any = GGUFReader(str(path))
        end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
        family = str(_value(reader, "general.architecture") or "")
        parts = int(_value(reader, "split.count") or 1)
    except Exception as error:  # the reader indexes into a memory map and raises anything
        raise ModelError(
            f"{path} is cut short or no GGUF file ({first_line(error)}); download it again."
        ) from error
    if family == "clip":
        raise ModelError(
            f"{path} is the part of a model that reads images or sound; give the GGUF file of its "
            "language model."
        )
    split = _SHARD.fullmatch(path.name)
    if parts > 1 or split is not None:
        count = parts if parts > 1 else int(split["total"] if split else 1)
        raise ModelError(
            f"{path} is one of {count} parts of a GGUF file; join them first "
            "(`llama-gguf-split --merge`)."
        )
    if end == 0 or end > path.stat().st_size:
        raise ModelError(f"{path} is cut short; download it again.")
    return family


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()
