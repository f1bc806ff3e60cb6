"""Sentence embeddings against the encoder called by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.evaluation.topic import Embedder


@pytest.fixture(scope="module")
def embed() -> Embedder:
    return Embedder()


def by_hand(embed: Embedder, text: str) -> np.ndarray:
    batch = embed.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        mean = embed.encoder(**batch).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


@pytest.mark.model
def test_embeddings_are_the_encoders_whatever_the_batch(embed: Embedder) -> None:
    texts = ["My train was cancelled.", "A cat sat on the mat, and then it slept.", "Hi"]
    found = embed([*texts, texts[0]])
    for row, text in zip(found, [*texts, texts[0]], strict=True):
        np.testing.assert_allclose(row, by_hand(embed, text), atol=1e-5)


@pytest.mark.model
def test_a_long_text_is_read_to_its_end(embed: Embedder) -> None:
    start = "The train was late and nobody said why. " * 40
    one, other = embed([start + "Bake the bread for an hour.", start + "He plays the violin."])
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(one), 1, atol=1e-5)
    near, far = embed(["The train was late.", "Bake the bread."])
    assert one @ near > one @ far
