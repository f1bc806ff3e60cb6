"""Small corpora, and what their activations must be: one text at a time, no batch, no hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from affectlens.core.places import Site
from affectlens.datasets.schema import Corpus, Message, Record
from tests.models.reference import reference

_REPLIES = (
    (
        "The train was cancelled.",
        "I am so angry about it, and nobody even said sorry.",
    ),
    ("She left.", "What a lovely surprise! I feel happy."),
    ("He is afraid of the dark and of the long way home, which is dark too.", "So am I."),
    ("Hello", "The person who left that there feels no disgust, I think; he was sad."),
    ("They were late again today and I had to wait for an hour in the rain.", "I see. Thank you."),
)
EMOTIONS = ("anger", "happiness", "fear", "disgust", "neutral")


def replies() -> Corpus:
    records = tuple(
        Record(
            id=f"r{i}",
            messages=(Message("user", user), Message("assistant", reply)),
            emotion=EMOTIONS[i],
            valence="neutral",
            group=f"s{i}:neutral",
            theme="home" if i % 2 else "work",
            split="test" if i == 4 else "fit",
        )
        for i, (user, reply) in enumerate(_REPLIES)
    )
    return Corpus("small", "replies", records)


def many(n: int) -> Corpus:
    """Replies of all lengths: the words of the small corpus in other orders."""
    words = [word for pair in _REPLIES for text in pair for word in text.split()]
    records = tuple(
        Record(
            id=f"m{i}",
            messages=(
                Message("user", " ".join(words[i * 7 % 40 :][: 1 + i * 5 % 11])),
                Message("assistant", " ".join(words[i * 13 % 30 :][: 1 + i * 3 % 17])),
            ),
            emotion=EMOTIONS[i % len(EMOTIONS)],
            valence="neutral",
            group=f"s{i // len(EMOTIONS)}:neutral",
            theme="home",
            split="fit",
        )
        for i in range(n)
    )
    return Corpus("many", "replies", records)


def elicited() -> Corpus:
    records = tuple(
        Record(f"e{i}", (Message("system", f"You feel {EMOTIONS[i]}."), Message("user", user)),
               EMOTIONS[i], "negative", f"s{i}", "work", "fit")
        for i, (user, _) in enumerate(_REPLIES)
    )  # fmt: skip
    return Corpus("asked", "elicited", records)


def texts() -> Corpus:
    records = tuple(
        Record(f"t{i}", (Message("text", text),), EMOTIONS[i], None, f"t{i}", "", "fit")
        for i, (_, text) in enumerate(_REPLIES)
    )
    return Corpus("said", "texts", records)


def chat_ids(tokenizer: Any, record: Record) -> tuple[list[int], int, int]:
    """Token ids of a record, and start and end of what carries its label, pieced by hand.

    The template puts special tokens or line breaks around contents, so pieces can be tokenized
    apart.
    """

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    if record.messages[0].role == "text":
        whole = ids(record.text)
        return whole, 0, len(whole)
    row: list[int] = []
    start = end = 0
    for message in record.messages:
        row += ids(f"<|im_start|>{message.role}\n")
        start, end = len(row), len(row) + len(ids(message.content))
        row += ids(message.content) + ids("<|im_end|>\n")
    if record.reply is None:
        row += ids("<|im_start|>assistant\n")
        return row, 0, len(row)
    return row, start, end


@torch.no_grad()
def site_values(family: str, model: Any, record: Record) -> Mapping[Site, Tensor]:
    """``[pos, width]`` of every site of one text, run alone."""
    ids, _, _ = chat_ids(model.tokenizer, record)
    values = reference(family, model.hf, torch.tensor([ids]))
    return {site: value[0] for site, value in values.items()}
