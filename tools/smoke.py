"""What must work where nothing but the package and its dependencies are installed.

A tiny random model and a pack for it are made, steered by the command line, and what belongs to an
extra that is not there is refused in a sentence. Run it in the environment to try, anywhere but in
a checkout; any failure is an exception.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

IMPORT_MS = 50
SIZE_MB = 1500
N_LAYERS, D_MODEL = 2, 32
COMMAND = Path(sys.executable).with_name("affectlens")
TIMED = "import time; t = time.process_time(); import affectlens; print(time.process_time() - t)"


def said(*arguments: str, code: int = 0) -> str:
    """What a command prints; it must end with that code."""
    done = subprocess.run([str(COMMAND), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def import_ms() -> float:
    """Milliseconds of processor time of ``import affectlens``: what else runs adds nothing."""
    runs = [subprocess.check_output([sys.executable, "-c", TIMED], text=True) for _ in range(5)]
    return 1000 * min(map(float, runs))


def installed_mb() -> float:
    """Size on disk of the environment without pip, in MB (10^6 bytes)."""
    folder = Path(sys.prefix)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    counted = (path for path in files if "pip" not in path.relative_to(folder).parts)
    return sum(path.stat().st_blocks * 512 for path in counted) / 1e6


def save_model(folder: Path) -> None:
    """A random Llama of two blocks with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    reader = Tokenizer(models.BPE(vocabulary, [], unk_token="<|unk|>"))
    reader.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=reader, pad_token="<|pad|>", eos_token="<|im_end|>", unk_token="<|unk|>"
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>{% endfor %}<|im_start|>assistant\n"
    )
    config: Any = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=D_MODEL,
        intermediate_size=64,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_pack(model_folder: Path, file: Path) -> None:
    """A pack that adds random vectors after the first block, for that model."""
    import torch

    import affectlens as al
    from affectlens.core.artefact import Provenance

    model = al.load_model(str(model_folder), device="cpu", dtype="float32")
    generator = torch.Generator().manual_seed(0)
    pack = al.SteeringPack(
        emotions=("anger", "sadness"),
        vectors={"residual.resid_post": 5 * torch.randn(2, 1, D_MODEL, generator=generator)},
        layers={"residual.resid_post": (0,)},
        n_layers=N_LAYERS,
        d_model=D_MODEL,
        recommended={"residual": {"anger": 1.0, "sadness": 1.0}},
        positions={"residual": "all"},
        provenance=Provenance("pack", model.fingerprint, str(model_folder)),
    )
    pack.save(file)
    with pack.steer(model, "anger=3"):
        steered = model.generate("Hello", max_new_tokens=8)
    assert steered != model.generate("Hello", max_new_tokens=8)


def serve_and_ask(folder: Path) -> None:
    """Start the local server, and hold a steered reply against an unsteered one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    pack, model = str(folder / "pack.safetensors"), str(folder / "model")
    command = ["serve", "--backend", "transformers", "--pack", pack, "--model", model]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [str(COMMAND), *command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"{url}/health", server, folder / "server.log")
            replies = [reply(url, model, spec) for spec in ("none", "anger=3")]
        finally:
            server.terminate()
            server.wait(timeout=60)
    assert replies[0] != replies[1], replies


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers."""
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(log.read_text())


def reply(url: str, model: str, spec: str) -> str:
    """What the server says to a greeting."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 8,
        "temperature": 0,
        "vllm_xargs": {"affectlens": spec},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def main() -> None:
    """Try everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        import affectlens

        where = Path(affectlens.__file__)
        assert sys.prefix in str(where), f"{where} is not of this environment"
        assert said("--version").strip() == affectlens.__version__
        for words in (("--help",), ("list",), ("models", "list"), ("labels", "show", "plutchik")):
            assert said(*words)
        assert "840" in said("datasets", "list")
        save_model(folder / "model")
        save_pack(folder / "model", folder / "pack.safetensors")
        asked = ("steer", "Hello", "-e", "anger=3", "--max-new-tokens", "8")
        assert "anger=3" in said(*asked, "--pack", str(folder / "pack.safetensors"))
        assert "Unknown emotion" in said(
            "steer", "Hello", "-e", "angr=1", "--pack", str(folder / "pack.safetensors"), code=1
        )
        if find_spec("pyarrow") is None:
            refused = said(
                "capture", str(folder / "model"), "replies", "--out", str(folder / "acts"), code=1
            )
            assert "pip install 'affectlens[study]'" in refused and "Traceback" not in refused
        if find_spec("uvicorn") is not None:
            serve_and_ask(folder)
        milliseconds, size = import_ms(), installed_mb()
    print(f"import affectlens: {milliseconds:.0f} ms; environment without pip: {size:.0f} MB")
    assert milliseconds < IMPORT_MS, f"import affectlens takes {milliseconds:.0f} ms"
    if find_spec("pyarrow") is None:
        assert size < SIZE_MB, f"the environment takes {size:.0f} MB"


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"smoke test passed in {time.perf_counter() - started:.0f} s")
