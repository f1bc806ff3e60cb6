"""JSON lines: one value a line, read and written the same way everywhere.

Only a line feed ends a line. `str.splitlines` also splits at U+2028, U+2029, U+0085 and some
control characters, all of which a text may hold; so nothing here uses it, and what is written has
none of them unescaped, for the sake of readers that do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from affectlens.core.artefact import write_text
from affectlens.core.errors import ArtefactError

# JSON escapes what is below a space itself. Half a character (a lone surrogate) cannot be UTF-8.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def json_line(value: Any) -> str:
    """A value as JSON on one line, whatever splits the lines."""
    plain = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", plain)


def split_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1, without their ends."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def parse_jsonl(text: str) -> list[Any]:
    """The values of JSON lines; blank lines are passed over.

    Raises:
        json.JSONDecodeError: If a line is no JSON.
    """
    return [json.loads(line) for _, line in split_lines(text)]


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one value a line, atomically."""
    write_text(path, "".join(f"{json_line(row)}\n" for row in rows))


def read_jsonl(path: Path) -> list[Any]:
    """Inverse of `write_jsonl`.

    Raises:
        ArtefactError: If the file is missing, not UTF-8, or a line is no JSON.
    """
    try:
        return parse_jsonl(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"There is no file {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); delete it and run again.") from error
