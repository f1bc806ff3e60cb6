"""Logits of real llama.cpp under control vectors; run by the Python that has ``llama_cpp``.

    python worker.py MODEL.gguf REQUEST.json OUT.npy

The request has token rows of one length and files, each ``null`` or a control vector; out come
logits ``[file, row, pos, vocab]``. The files are parsed by llama.cpp's own GGUF library and laid
out as its ``common_control_vector_load`` does, which Python does not see; everything else is the C
interface.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path

import llama_cpp
import numpy as np

F32 = 0


class _Parameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def parsed(file: Path) -> dict[str, np.ndarray]:
    """Tensors of a GGUF file, by llama.cpp's library."""
    found = sorted(Path(llama_cpp.__file__).parent.rglob("libggml-base.*"))
    library = ctypes.CDLL(str(found[0]))

    def function(name: str, result: type, *arguments: type) -> ctypes._NamedFuncPointer:
        made = getattr(library, f"gguf_{name}")
        made.restype, made.argtypes = result, list(arguments)
        return made

    pointer, index, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
    opened = function("init_from_file", pointer, ctypes.c_char_p, _Parameters)
    content = opened(str(file).encode(), _Parameters(True, None))
    if not content:
        raise SystemExit(f"llama.cpp cannot read {file}")
    start = function("get_data_offset", size, pointer)(content)
    count = function("get_n_tensors", index, pointer)(content)
    name = function("get_tensor_name", ctypes.c_char_p, pointer, index)
    kind = function("get_tensor_type", ctypes.c_int, pointer, index)
    offset = function("get_tensor_offset", size, pointer, index)
    length = function("get_tensor_size", size, pointer, index)
    raw, tensors = file.read_bytes(), {}
    for i in range(count):
        if kind(content, i) != F32:
            raise SystemExit(f"{file}: a direction that is not F32")
        begin = start + offset(content, i)
        data = raw[begin : begin + length(content, i)]
        tensors[name(content, i).decode()] = np.frombuffer(data, np.float32)
    function("free", None, pointer)(content)
    return tensors


def buffer(file: Path, n_embd: int, n_layers: int) -> np.ndarray:
    """As ``common_control_vector_load_one``: no place for layer 0, the rest one after the other.

    Of full length: past the end llama.cpp keeps what an earlier vector put there, and a program
    that loads one file has put nothing there.
    """
    data = np.zeros((n_layers - 1) * n_embd, np.float32)
    for name, vector in parsed(file).items():
        match = re.fullmatch(r"direction\.(\d+)", name)
        if match is None or int(match[1]) == 0 or len(vector) != n_embd:
            raise SystemExit(f"{file}: llama.cpp refuses the tensor {name}")
        end = int(match[1]) * n_embd
        if end > len(data):
            raise SystemExit(f"{file}: the model has no block {match[1]}")
        data[end - n_embd : end] += vector
    return data


def dequantised(model: str, out: str) -> str:
    """The same weights in float32: 4-bit ones are multiplied with activations rounded to 8 bits."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    settings.nthread = 1
    code = llama_cpp.llama_model_quantize(model.encode(), out.encode(), ctypes.byref(settings))
    if code != 0:
        raise SystemExit(f"llama.cpp did not convert {model}")
    return out


def main(model: str, request: str, out: str) -> None:
    """Answer a request."""
    model = dequantised(model, f"{out}.f32.gguf")
    asked = json.loads(Path(request).read_text())
    rows = asked["tokens"]
    llama = llama_cpp.Llama(
        model, n_ctx=max(map(len, rows)) + 8, n_batch=512, logits_all=True, n_threads=1,
        n_threads_batch=1, n_gpu_layers=0, verbose=False,
    )  # fmt: skip
    n_embd, n_layers = llama.n_embd(), llama_cpp.llama_model_n_layer(llama._model.model)
    answers = []
    for file in asked["files"]:
        data = np.zeros(0, np.float32) if file is None else buffer(Path(file), n_embd, n_layers)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if file else None
        code = llama_cpp.llama_set_adapter_cvec(
            llama._ctx.ctx, pointer, data.size, n_embd, 1, n_layers
        )
        if code != 0:
            raise SystemExit(f"llama.cpp did not take {file}")
        for row in rows:
            llama.reset()
            llama._ctx.kv_cache_clear()
            llama.eval(row)
            answers.append(np.array(llama.scores[: len(row)], np.float32))
    shape = (len(asked["files"]), len(rows), *answers[0].shape)
    np.save(out, np.stack(answers).reshape(shape))


if __name__ == "__main__":
    main(*sys.argv[1:])
