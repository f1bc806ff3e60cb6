"""Texts that can be written as UTF-8."""

from __future__ import annotations

from affectlens.core.errors import DataError


def require_utf8(what: str, text: str) -> str:
    """A text that can be encoded.

    Raises:
        DataError: If it holds half a character (a lone surrogate), which JSON can write and UTF-8
            cannot; bytes of a command line that are no UTF-8 come as such.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{what} holds half a character (a lone surrogate) or bytes that are no UTF-8; give it "
            "as UTF-8 text."
        ) from None
    return text
