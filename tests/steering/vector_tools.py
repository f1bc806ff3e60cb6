"""What other tools do with their files, by their documented layouts and without our code.

Writers make the files that each tool makes; readers add what it would add, as plain hooks on the
modules of a Transformers model.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Vectors = Mapping[int, Tensor]
U32, I32, STRING, F32 = 4, 5, 8, 0


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_bytes(
    keys: list[tuple[str, int, Any]], tensors: Mapping[str, Tensor], kind: int = F32
) -> bytes:
    """A GGUF file, version 3, little-endian, aligned to 32 bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, type_, value in keys:
        packed = _text(value) if type_ == STRING else struct.pack("<i", value)
        head += _text(name) + struct.pack("<I", type_) + packed
    data = b""
    for name, tensor in tensors.items():
        head += _text(name) + struct.pack("<I", tensor.ndim)
        head += struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape))
        head += struct.pack("<IQ", kind, len(data))
        raw = tensor.float().numpy().tobytes()
        data += raw + bytes(-len(raw) % 32)
    return head + bytes(-len(head) % 32) + data


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Keys and F32 tensors of a GGUF file."""
    raw, at = path.read_bytes(), 0

    def take(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", raw, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        size = take("Q")
        at += size
        return raw[at - size : at].decode()

    assert take("4s") == b"GGUF" and take("I") == 3
    n_tensors, n_keys = take("Q"), take("Q")
    keys: dict[str, Any] = {}
    for _ in range(n_keys):
        name, type_ = text(), take("I")
        keys[name] = text() if type_ == STRING else take({U32: "I", I32: "i"}[type_])
    places: dict[str, tuple[list[int], int]] = {}
    for _ in range(n_tensors):
        name, n = text(), take("I")
        shape = [take("Q") for _ in range(n)]
        assert take("I") == F32
        places[name] = shape, take("Q")
    start = at + -at % keys.get("general.alignment", 32)
    return keys, {
        name: torch.tensor(struct.unpack_from(f"<{shape[0]}f", raw, start + offset))
        for name, (shape, offset) in places.items()
    }


def generator_gguf(vectors: Vectors) -> bytes:
    """llama-cvector-generator: a signed count, ``direction.{i+1}`` for what it saw at block i."""
    keys = [("general.architecture", STRING, "controlvector"),
            ("controlvector.model_hint", STRING, "llama"),
            ("controlvector.layer_count", I32, len(vectors))]  # fmt: skip
    return gguf_bytes(keys, {f"direction.{n}": v for n, v in vectors.items()})


def repeng_gguf(vectors: Vectors) -> bytes:
    """repeng's ``export_gguf``: an unsigned count."""
    keys = [("general.architecture", STRING, "controlvector"),
            ("controlvector.model_hint", STRING, "mistral"),
            ("controlvector.layer_count", U32, len(vectors))]  # fmt: skip
    return gguf_bytes(keys, {f"direction.{n}": v for n, v in vectors.items()})


def easysteer_gguf(vectors: Vectors, component: str | None = "hidden_states") -> bytes:
    """EasySteer's ``StatisticalControlVector.export_gguf``."""
    native = {"version": 1, "component": component, "metadata": {"mapping": []}}
    keys = [("general.architecture", STRING, "controlvector"),
            ("controlvector.model_hint", STRING, "qwen2"),
            ("controlvector.method", STRING, "diffmean"),
            ("controlvector.layer_count", U32, len(vectors)),
            ("controlvector.easysteer", STRING, json.dumps(native))]  # fmt: skip
    return gguf_bytes(keys, {f"direction.{n}": v for n, v in vectors.items()})


def svec_text(vectors: Vectors, *, rows: bool = False) -> str:
    """activation-steering's ``SteeringVector.save``; with a row per token as AISteer360 does."""
    directions = {str(n): [v.tolist()] if rows else v.tolist() for n, v in vectors.items()}
    return json.dumps(
        {
            "model_type": "llama",
            "directions": directions,
            "explained_variances": dict.fromkeys(directions, 0.5),
        }
    )


def save_lm_eval(path: Path, vectors: Vectors, coefficient: float = 1.0, **more: Any) -> None:
    """The dict that hf_steered.py documents."""
    one = {"steering_coefficient": coefficient, "action": "add", "bias": None, "head_index": None}
    torch.save(
        {f"layers.{n}": {"steering_vector": v, **one, **more} for n, v in vectors.items()}, path
    )


def save_persona(path: Path, rows: Tensor) -> None:
    """generate_vec.py's ``torch.save`` of the stacked differences of hidden states."""
    torch.save(rows, path)


def safetensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file."""
    head: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.float().numpy().tobytes()
        head[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _blocks(hf: Any) -> Any:
    """The list of blocks, and its name below the model that carries no head."""
    return hf.base_model.h if hasattr(hf.base_model, "h") else hf.base_model.layers


def _output(vector: Tensor) -> Callable[..., Any]:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector, *output[1:])
        return output + vector

    return hook


@contextmanager
def _held(handles: list[Any]) -> Generator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def llama_cpp(hf: Any, path: Path) -> Any:
    """``common_control_vector_load`` into a buffer without block 0, ``apply``, ``build_cvec``."""
    _, tensors = read_gguf(path)
    numbers = {int(name.removeprefix("direction.")): v for name, v in tensors.items()}
    assert all(n > 0 for n in numbers), "direction.0 is an error there"
    width = len(next(iter(numbers.values())))
    buffer = torch.zeros(max(numbers) * width)
    for n, vector in numbers.items():
        buffer[(n - 1) * width : n * width] += vector
    blocks, handles = _blocks(hf), []
    for il in range(1, len(blocks)):
        offset = width * (il - 1)
        if offset + width <= len(buffer):
            handles.append(
                blocks[il].register_forward_hook(_output(buffer[offset : offset + width]))
            )
    return _held(handles)


def easysteer(hf: Any, path: Path) -> Any:
    """``_read_gguf`` and the hook of the decoder layer with that number."""
    keys, tensors = read_gguf(path)
    assert json.loads(keys["controlvector.easysteer"])["component"] == "hidden_states"
    assert json.loads(keys["controlvector.easysteer"])["version"] == 1
    numbers = {int(name.removeprefix("direction.")): v for name, v in tensors.items()}
    blocks = _blocks(hf)
    return _held([blocks[n].register_forward_hook(_output(v)) for n, v in numbers.items()])


def cast(hf: Any, path: Path) -> Any:
    """LeashLayer: the vector is added to what goes into the layer."""
    data = json.loads(path.read_text())
    assert data["model_type"] and {int(k) for k in data["explained_variances"]}

    def into(vector: Tensor) -> Callable[..., Any]:
        return lambda _module, args, kwargs: ((args[0] + vector, *args[1:]), kwargs)

    blocks = _blocks(hf)
    return _held(
        [
            blocks[int(n)].register_forward_pre_hook(into(torch.tensor(v)), with_kwargs=True)
            for n, v in data["directions"].items()
        ]
    )


def caa(hf: Any, path: Path) -> Any:
    """AISteer360's CAA, here with every layer of the file."""
    data = json.loads(path.read_text())
    blocks = _blocks(hf)
    return _held(
        [
            blocks[int(n)].register_forward_hook(_output(torch.tensor(v)))
            for n, v in data["directions"].items()
        ]
    )


def lm_eval(hf: Any, path: Path) -> Any:
    """``SteeredModel``: named modules of the base model."""
    steer_config = torch.load(path, weights_only=True)
    handles = []
    for name, module in hf.base_model.named_modules():
        if name in steer_config:
            one = steer_config[name]
            assert one["action"] == "add" and one["bias"] is None and one["head_index"] is None
            handles.append(
                module.register_forward_hook(
                    _output(one["steering_vector"] * one["steering_coefficient"])
                )
            )
    assert len(handles) == len(steer_config), "Not all hookpoints could be resolved"
    return _held(handles)


def persona(hf: Any, path: Path) -> Any:
    """eval_persona.py: ``vector = load(path)[layer]``, ``ActivationSteerer(layer_idx=layer-1)``."""
    rows = torch.load(path, weights_only=True)
    blocks = _blocks(hf)
    assert len(rows) == len(blocks) + 1
    return _held(
        [
            blocks[layer - 1].register_forward_hook(_output(rows[layer]))
            for layer in range(1, len(rows))
        ]
    )


def hook_tensors(hf: Any, path: Path) -> Any:
    """A reader of plain safetensors."""
    raw = path.read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    head = json.loads(raw[8 : 8 + size])
    blocks, handles = _blocks(hf), []
    for name, about in head.items():
        if name == "__metadata__":
            continue
        n = int(name.split(".")[1])
        assert name == f"blocks.{n}.hook_resid_post"
        numbers = struct.unpack_from(
            f"<{about['shape'][0]}f", raw, 8 + size + about["data_offsets"][0]
        )
        handles.append(blocks[n].register_forward_hook(_output(torch.tensor(numbers))))
    return _held(handles)


READERS: dict[str, Callable[[Any, Path], Any]] = {
    "gguf": llama_cpp,
    "easysteer": easysteer,
    "svec": cast,
    "svec-caa": caa,
    "lm-eval": lm_eval,
    "persona-pt": persona,
    "safetensors": hook_tensors,
}
