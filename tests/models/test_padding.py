"""A row computes the same whatever else is in its batch; where padding matters, it is not used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from affectlens.activations import capture
from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.core.errors import ModelError
from affectlens.core.places import Site
from affectlens.evaluation.perplexity import reply_nll
from affectlens.models.anatomy.padding import Padding
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.models.generation.generation import generate_ids
from affectlens.models.hooking.hooks import reading
from affectlens.models.loading import LanguageModel, load_model
from tests.activations import plain
from tests.conftest import VOCAB, make_tiny, tiny_hf, tiny_tokenizer

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
START = tuple(range(20, 32))  # a beginning that prompts share
PROMPTS = [(*START, 5, 6, 7), (*START, *range(40, 59)), (*START, 9), (*START, *range(70, 82))]
SETTINGS = GenerationSettings(max_new_tokens=6)


class ByColumn(tf.GPT2LMHeadModel):
    """A GPT-2 that takes position ids and does not look at them."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("position_ids", None)
        return super().forward(*args, **kwargs)


def config(family: str) -> Any:
    match family:
        case "mpt":
            sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2}
            return tf.MptConfig(**COMMON, **sizes, max_seq_len=256)
        case "gpt_neo":
            return tf.GPTNeoConfig(
                **COMMON,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                window_size=40,
                intermediate_size=64,
                max_position_embeddings=256,
            )
        case "bloom":
            return tf.BloomConfig(**COMMON, hidden_size=32, n_layer=2, n_head=4)
        case _:  # rotary factors by the longest row of a batch
            return tf.Phi3Config(
                **COMMON,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=256,
                original_max_position_embeddings=32,
                rope_parameters={
                    "rope_type": "longrope",
                    "rope_theta": 10000.0,
                    "short_factor": [1.0, 1.1, 1.2, 1.3],
                    "long_factor": [1.5, 2.0, 3.0, 4.0],
                    "original_max_position_embeddings": 32,
                },
            )


def made(family: str) -> LanguageModel:
    if family == "by column":
        hf: Any = ByColumn(tiny_hf("gpt2").config).eval()
    elif family in ("llama", "opt"):
        return make_tiny(family)
    elif family == "mistral":
        return make_tiny(family, sliding_window=40)
    else:
        hf = tf.AutoModelForCausalLM.from_config(config(family)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(hf.named_parameters()):
            if "norm" not in name and ".ln_" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return load_model(hf, tokenizer=tiny_tokenizer())


@pytest.mark.parametrize(
    ("family", "columns", "wanted"),
    [
        ("llama", 256, Padding()),
        ("opt", 256, Padding()),
        ("bloom", 256, Padding()),
        ("mistral", 32, Padding()),  # within its window
        ("mistral", 64, Padding(between=False)),
        ("gpt_neo", 32, Padding()),
        ("gpt_neo", 64, Padding(between=False)),
        ("mpt", 32, Padding(between=False)),
        ("phi3", 32, Padding()),
        ("phi3", 64, Padding(left=False, right=False, between=False, chunks=False)),
        ("by column", 32, Padding(left=False, between=False)),
    ],
)
def test_what_a_family_bears(family: str, columns: int, wanted: Padding) -> None:
    assert made(family).padding.upto(columns) == wanted


@pytest.mark.parametrize("family", ["mpt", "gpt_neo", "mistral", "phi3", "by column", "bloom"])
def test_replies_together_are_those_alone(family: str) -> None:
    model = made(family)
    alone = [generate_ids(model, [row], SETTINGS)[0] for row in PROMPTS]
    assert generate_ids(model, PROMPTS, SETTINGS) == alone
    assert len(set(alone)) > 1


def test_texts_are_read_scored_and_averaged_together_as_alone() -> None:
    """Some texts are longer than the 32 tokens at which this Phi-3 turns to other angles."""
    model = made("phi3")
    corpus = plain.replies()
    sites = [Site(1, "resid_post"), Site(0, "z")]
    together = capture(model, corpus, sites=sites, positions="mean:reply")
    alone = capture(model, corpus, sites=sites, positions="mean:reply", max_tokens_per_batch=1)
    for site in sites:
        values = together.to_torch(site, "mean:reply"), alone.to_torch(site, "mean:reply")
        torch.testing.assert_close(*values, atol=1e-5, rtol=1e-4)

    replies = [(3, 4, 5, 6), (7, 8), (9, 10, 11), (12,)]
    nll = reply_nll(model, PROMPTS, replies)
    for i, (prompt, reply) in enumerate(zip(PROMPTS, replies, strict=True)):
        with torch.no_grad():
            logits = model.hf(input_ids=torch.tensor([[*prompt, *reply]])).logits[0]
        scores = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        wanted = -scores[range(len(reply)), list(reply)].mean()
        assert nll[i] == pytest.approx(float(wanted), rel=1e-4)

    emotions = ("anger", "happiness")
    means = [
        unit_means(model, corpus, emotions, grouped=False, max_tokens_per_batch=size)
        for size in (4096, 1)
    ]
    torch.testing.assert_close(means[0].neurons, means[1].neurons, atol=1e-5, rtol=1e-4)


def test_bases_without_position_ids_are_scored() -> None:
    for family in ("mpt", "bloom"):
        model = made(family)
        both = reply_nll(model, PROMPTS[:2], [(3, 4), (5, 6, 7)])
        one = [reply_nll(model, PROMPTS[:1], [(3, 4)])[0]]
        one += [reply_nll(model, PROMPTS[1:2], [(5, 6, 7)])[0]]
        np.testing.assert_allclose(both, one, rtol=1e-4)


def test_padding_on_the_left_that_matters_is_refused_in_a_capture() -> None:
    with pytest.raises(ModelError, match=r"changes what .* computes; use padding='right'"):
        capture(made("by column"), plain.replies(), sites="resid_post", padding="left")


def test_the_check_is_not_noticed_by_hooks() -> None:
    model = make_tiny("llama")
    shapes: list[tuple[int, ...]] = []
    with reading(model.anatomy, [Site(0, "z")], lambda _, x: shapes.append(tuple(x.shape[:2]))):
        together = generate_ids(model, PROMPTS, GenerationSettings(max_new_tokens=1))
    assert len(shapes) <= 2 and together
    assert all(rows in (1, len(PROMPTS)) for rows, _ in shapes)
