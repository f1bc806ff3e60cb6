"""Circuits, influence, refinement and steering of models that are partly on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.circuits import find_circuit
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings
from affectlens.steering import generate_steered, refine
from affectlens.steering.refine import RefineSettings
from tests.circuits.helpers import WORDS, random_directions, small_corpus
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.steering.oracle import PROMPTS, random_pack

PLACES = ("embed_tokens", "rotary_emb", "layers.0", "layers.1", "layers.2", "norm")


@pytest.mark.parametrize(
    ("family", "dtype"), [("llama", "float32"), ("llama", "bfloat16"), ("gemma3", "float32")]
)
def test_everything_is_as_in_memory(family: str, dtype: str, tmp_path: Path) -> None:
    tiny_hf(family).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    places = {f"model.{name}": "disk" if name[-1] in "12" else "cpu" for name in PLACES}
    models = [
        load_model(tmp_path / "model", dtype=dtype, device="cpu"),
        load_model(
            tmp_path / "model",
            dtype=dtype,
            device_map={**places, "lm_head": "cpu" if family == "gemma3" else "disk"},
            offload_folder=tmp_path / "offload",
        ),
    ]
    assert models[1].hf.model.layers[1].mlp.down_proj.weight.is_meta
    found: list[Any] = []
    for model in models:
        directions = random_directions(model)
        circuit = find_circuit(
            model, small_corpus(), directions, split=None, prompts=[PROMPTS[0]], words=WORDS
        )
        settings = RefineSettings(steps=2, max_reply_tokens=4)
        refined = refine.refine_circuit(model, circuit, small_corpus(), settings=settings)
        pack = random_pack(model)
        texts = generate_steered(
            model, pack, PROMPTS, "anger=1.5", GenerationSettings(max_new_tokens=4)
        )
        found.append((circuit, refined, circuit.folded(model), texts))
    (one, better, folded, texts), (two, again, folded_too, texts_too) = found
    assert one.neurons == two.neurons and one.heads == two.heads
    assert one.influence is not None and two.influence is not None
    for name, values in one.influence.values.items():
        torch.testing.assert_close(two.influence.values[name], values)
    torch.testing.assert_close(folded_too, folded)
    torch.testing.assert_close(again.delta_neurons, better.delta_neurons)
    torch.testing.assert_close(again.delta_heads, better.delta_heads)
    assert texts == texts_too
