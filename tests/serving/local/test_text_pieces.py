"""Text token by token against the text of all tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from affectlens.serving.local.text_pieces import TextPieces


def utf8(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(ids).decode(errors="replace")


def words(ids: Sequence[int]) -> str:
    """A tokenizer that strips a text's first space, as SentencePiece's do."""
    return "".join(f" w{i}" for i in ids).lstrip()


TEXTS = ["plain", "a naïve café, 東京 — 🙂🙃!", "\n\n", "ends in half a character é"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_whole_text(text: str) -> None:
    ids = list(text.encode())[: -1 if text.endswith("é") else None]
    pieces = TextPieces(utf8)
    parts = [pieces.add(i) for i in ids]
    assert all("\ufffd" not in part for part in parts)
    assert "".join(parts) + pieces.end() == utf8(ids)


def test_spaces_between_words_are_kept() -> None:
    pieces = TextPieces(words)
    parts = [pieces.add(i) for i in (3, 1, 4)]
    assert parts == ["w3", " w1", " w4"] and pieces.end() == ""


def test_stop_strings_against_cutting_the_whole_text() -> None:
    rng = random.Random(0)
    stopped = 0
    for _ in range(300):
        text = "".join(rng.choice("ab é") for _ in range(20))
        stops = ["".join(rng.choice("ab é") for _ in range(rng.randint(2, 5))) for _ in range(2)]
        pieces, said = TextPieces(utf8, stops), ""
        for byte in text.encode():
            said += pieces.add(byte)
            # What has been said is never taken back.
            assert text.startswith(said)
            if pieces.stopped:
                break
        said += pieces.end()
        # The stop that is complete first ends the text.
        ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
        assert said == (text[: min(ends)[1]] if ends else text)
        assert pieces.stopped == bool(ends)
        stopped += bool(ends)
    assert 50 < stopped < 290


def test_a_stop_string_before_the_least_length_is_text() -> None:
    pieces = TextPieces(utf8, ["ab", "cd"], least=4)
    said = "".join(pieces.add(i) for i in b"xab.c" if not pieces.stopped)
    assert said == "xab." and not pieces.stopped
    assert pieces.add(ord("d")) == "" and pieces.stopped  # it had begun before, and ends now
