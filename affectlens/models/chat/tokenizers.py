"""Reading a tokenizer, and saying what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affectlens.core import ModelError
from affectlens.models.library_bars import no_library_bars
from affectlens.models.reading_errors import first_line

_INSTEAD = "or give one: load_model(..., tokenizer=...)"


def read_tokenizer(source: str) -> Any:
    """The tokenizer that comes with a folder, a hub id or a GGUF file.

    Raises:
        ModelError: If there is none, it needs code that comes with it, or it knows no words.
    """
    from transformers import AutoTokenizer

    path = Path(source)
    try:
        with no_library_bars():
            if path.suffix == ".gguf":
                folder, file = str(path.parent), path.name
                tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file)
            else:
                tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers, tokenizers and the hub each have their own classes
        raise ModelError(_sentence(source, error)) from error
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if not set(tokenizer.get_vocab()) - special:
        raise ModelError(f"The tokenizer of {source} knows no words: {_lacking(path)}.")
    return tokenizer


def _sentence(source: str, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"The tokenizer of {source} needs Python code that comes with it, which affectlens "
            f"does not run; use a version with a tokenizer.json, {_INSTEAD}."
        )
    if "backend tokenizer from one of" in str(error):
        return f"{source} has no tokenizer: {_lacking(Path(source))}."
    return (
        f"The tokenizer of {source} cannot be read ({first_line(error).rstrip('.')}); fetch its "
        f"tokenizer files again, {_INSTEAD}."
    )


def _lacking(path: Path) -> str:
    if path.is_dir():
        return f"fetch its tokenizer files too (tokenizer.json or tokenizer.model), {_INSTEAD}"
    return f"use a version that brings it, {_INSTEAD}"
