"""Can two models be compared? Layers, width and tokens must be the same; told before weights are
read where files can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core.errors import DataError, MismatchError
from affectlens.models.adapters import base_of, is_adapter_folder
from affectlens.models.chat.chats import encode
from affectlens.models.chat.tokenizers import read_tokenizer
from affectlens.models.configs import read_config
from affectlens.models.sources import locate

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True)
class Outline:
    """What must fit for two models to be compared.

    Attributes:
        name: What it was called.
        n_layers, d_model: Blocks, and width of the residual stream; None if files do not say.
        tokenizer: Its tokenizer.
    """

    name: str
    n_layers: int | None
    d_model: int | None
    tokenizer: Any


def outline_of(model: LanguageModel) -> Outline:
    """Of a model that is loaded."""
    return Outline(model.name, model.n_layers, model.d_model, model.tokenizer)


def outline_at(source: str) -> Outline:
    """Of a model by its files alone: config and tokenizer, no weights.

    Raises:
        UnknownNameError, ModelError: As `affectlens.models.load_model`.
    """
    where = locate(source)
    own = where
    while is_adapter_folder(where):
        where = locate(base_of(Path(where)))
    config = read_config(where)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    brings_own = (Path(own) / "tokenizer_config.json").is_file()
    return Outline(
        source,
        _number(text, "num_hidden_layers"),
        _number(text, "hidden_size"),
        read_tokenizer(own if brings_own else where),
    )


def _number(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else None


def check_outlines(base: Outline, tuned: Outline) -> None:
    """Refuse models whose layers cannot stand side by side.

    Raises:
        MismatchError: If depth or width differ.
    """
    for what, name in (("layers", "n_layers"), ("width", "d_model")):
        first, second = getattr(base, name), getattr(tuned, name)
        if None not in (first, second) and first != second:
            raise MismatchError(
                f"{base.name} has {_said(what, first)} and {tuned.name} {_said(what, second)}, so "
                "they cannot be compared layer by layer; compare a model with a fine-tune of it."
            )


def _said(what: str, value: int) -> str:
    return f"{value} layers" if what == "layers" else f"a residual stream of width {value}"


def check_tokens(base: Outline, tuned: Outline, writer: str, corpus: Corpus) -> None:
    """Refuse texts that the two models would not read alike.

    Every token that the chosen tokenizer makes of the corpus must have the same number and the same
    text in the other one.

    Args:
        base, tuned: The models.
        writer: Whose tokenizer writes, ``"base"`` or ``"tuned"``.
        corpus: What is written.

    Raises:
        MismatchError: Naming a token that differs.
        DataError: If there are no records.
    """
    if not len(corpus):
        raise DataError(f"Corpus {corpus.name} has no records; give some to compare models on.")
    one, other = (tuned, base) if writer == "tuned" else (base, tuned)
    if one.tokenizer is other.tokenizer:
        return
    for token in sorted(_used(one.tokenizer, corpus)):
        here, there = (_text(x.tokenizer, token) for x in (one, other))
        if here == there:
            continue
        alike = sum(
            other.tokenizer.get_vocab().get(text) == number
            for text, number in one.tokenizer.get_vocab().items()
        )
        instead = (
            "read both in the words of the base: --template base, template='base'"
            if writer == "tuned" and alike > len(one.tokenizer.get_vocab()) // 2
            else "compare models that share a tokenizer"
        )
        raise MismatchError(
            f"{one.name} and {other.name} do not read the same tokens: {token} is {here!r} in the "
            f"first and {'missing' if there is None else repr(there)} in the second; {instead}."
        )


def _used(tokenizer: Any, corpus: Corpus) -> set[int]:
    """Ids that occur."""
    rows: Iterable[tuple[int, ...]] = (
        encode(tokenizer, record.chat, add_generation_prompt=record.reply is None).ids
        for record in corpus
    )
    return {token for row in rows for token in row}


def _text(tokenizer: Any, token: int) -> str | None:
    return tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
