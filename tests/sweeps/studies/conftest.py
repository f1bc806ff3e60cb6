"""Replies of known emotion for a tiny model, and a probe of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from affectlens.models import load_model
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.sweeps.request import Fitting
from affectlens.sweeps.studies import Answering, MalleabilityRequest
from tests.sweeps.conftest import EMOTIONS, THINGS, choice

if TYPE_CHECKING:
    from affectlens.models import LanguageModel

SMALL = Fitting(penalties=(0.01, 1.0), folds=3, draws=100, permutations=5)
ANSWERS = Answering(tokens=6)


def reply_rows() -> list[dict[str, Any]]:
    """A user's message and a reply in each emotion, in groups."""
    return [
        {
            "id": f"r{g}-{emotion}",
            "prompt": f"The {THINGS[g % len(THINGS)]} came {g} days late.",
            "reply": f"Oh, I am {words} {THINGS[g % len(THINGS)]} as well.",
            "emotion": emotion,
            "group": f"r{g:02d}",
        }
        for g in range(12)
        for emotion, words in EMOTIONS.items()
    ]


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> CorpusChoice:
    """`reply_rows` as a corpus."""
    path = tmp_path_factory.mktemp("known") / "known.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reply_rows()), encoding="utf-8")
    return choice(str(path))


def asked(files: dict[str, str], known: CorpusChoice, out: Path, **changes: Any) -> Any:
    """Twelve texts under two system prompts."""
    options: dict[str, Any] = {
        "model": files["model"],
        "corpus": choice(files["plain"]),
        "ruler": known,
        "out": out,
        "site": "resid_post@1",
        "systems": {"glad": "You are glad.", "same": "You are glad."},
        "texts": 12,
        "answering": ANSWERS,
        "fitting": SMALL,
        "device": "cpu",
        "dtype": "float32",
        **changes,
    }
    return MalleabilityRequest(**options)


@pytest.fixture(scope="session")
def model(files: dict[str, str]) -> LanguageModel:
    """The tiny model."""
    return load_model(files["model"], device="cpu", dtype="float32")


@cache
def plain(folder: str) -> tuple[Any, Any]:
    """Tokenizer and model as Transformers loads them."""
    import transformers as tf

    hf: Any = tf.AutoModelForCausalLM.from_pretrained(folder)
    return tf.AutoTokenizer.from_pretrained(folder), hf.float().eval()


def hidden(folder: str, chat: list[dict[str, str]]) -> Callable[[str], torch.Tensor]:
    """Mean residual stream behind block 1 over a text in a whole chat, by plain Transformers."""
    tokenizer, hf = plain(folder)
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    with torch.no_grad():
        ids = torch.tensor([coded["input_ids"]])
        states = hf(ids, output_hidden_states=True).hidden_states[2][0]

    def mean(content: str) -> torch.Tensor:
        start = text.index(content)
        end = start + len(content)
        inside = [i for i, (a, b) in enumerate(coded["offset_mapping"]) if a < end and b > start]
        return states[inside].mean(0)

    return mean
