"""Tables of delimited text: whether a quote is syntax or a word is decided by the whole file.

A quoted field begins and ends with a quote, and quotes inside it are doubled. Texts hold quotes of
their own, though, and many ``.tsv`` files quote nothing: read as if they did, a text that begins
with a quote swallows the lines up to the next one. So a table is read both ways, and where they
differ the file itself must show which is meant; otherwise it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from affectlens.core import DataError
from affectlens.datasets.tables.text_files import read_text

_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        line: Where it starts, from 1.
        last: Where it ends: another line only if a quoted field holds a line break.
        fields: Its texts, without the quotes around them.
        quoted: Which fields had quotes around them.
    """

    line: int
    last: int
    fields: tuple[str, ...]
    quoted: tuple[bool, ...]

    @property
    def broken(self) -> bool:
        """Whether it runs over several lines."""
        return self.last > self.line


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        columns: Their names, each once, without white space around them.
        rows: All rows, each with as many fields as there are columns.
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        for row in self.rows:
            yield row.line, dict(zip(self.columns, row.fields, strict=True))


class _NoQuoting(Exception):
    """The quote that opens a field in this line does not close it."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def read_table(path: Path, delimiter: str = ",", columns: Sequence[str] | None = None) -> Table:
    """Read a table.

    Args:
        path: In UTF-8.
        delimiter: Between fields. Of a table with tabs a quote is a word unless the file is
            really quoted; of one with commas it is syntax.
        columns: Names, for a file without a header.

    Raises:
        DataError: Naming the line, if a row has another number of fields than the header, a quote
            never ends, or quotes are used so that lines may belong together or not.
    """
    text = read_text(path)
    rows = _rows(path, text, delimiter)
    if columns is None:
        header, *rows = rows
        names = tuple(name.strip() for name in header.fields)
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise DataError(f"{path}, line {header.line}: two columns {repeated[0]!r}.")
    else:
        names = tuple(columns)
    for row in rows:
        if len(row.fields) != len(names):
            what = "the header has" if columns is None else "a row has"
            raise DataError(
                f"{path}, line {row.line}: {len(row.fields)} fields, but {what} {len(names)}; put "
                f"quotes around text that holds {delimiter!r}."
            )
    return Table(names, tuple(rows))


def _rows(path: Path, text: str, delimiter: str) -> list[TableRow]:
    plain = [
        TableRow(line, line, fields, (False,) * len(fields))
        for line, content in enumerate(_BREAK.split(text), start=1)
        if content
        for fields in [tuple(content.split(delimiter))]
    ]
    if '"' not in text:
        return plain
    tabs = delimiter == "\t"
    even = all(len(row.fields) == len(plain[0].fields) for row in plain)
    try:
        quoted = _scan(text, delimiter)
    except _NoQuoting as error:
        if tabs:  # then no quote is syntax, and rows must fit without
            return plain
        raise DataError(
            f"{path}, line {error.line}: not a CSV table; the quote that opens a field there does "
            "not close it. Put quotes around the whole text and double those inside."
        ) from None
    return _decided(path, plain, quoted, even=even, tabs=tabs)


def _decided(
    path: Path, plain: list[TableRow], quoted: list[TableRow], *, even: bool, tabs: bool
) -> list[TableRow]:
    """The reading that the file itself shows to be meant.

    Args:
        path: For messages.
        plain: Each line a row, quotes as words.
        quoted: Quotes as syntax.
        even: Whether all rows of ``plain`` have as many fields.
        tabs: Whether a quote is a word unless shown otherwise.
    """
    broken = [row for row in quoted if row.broken]
    everywhere = all(all(row.quoted) for row in quoted)
    if everywhere or not any(any(row.quoted) for row in quoted):
        return quoted
    stray = next((r for r in quoted for f, q in zip(r.fields, r.quoted, strict=True)
                  if not q and '"' in f), None)  # fmt: skip
    usual = stray is None and _as_writers_do(quoted)
    if not broken:
        return plain if tabs and even and not usual else quoted
    several = len(plain[0].fields) > 1
    if tabs and even and several and not _columns_quoted(quoted, broken):
        return plain
    doubtful = stray is not None or (even and not (several and _columns_quoted(quoted, broken)))
    if not tabs and not several:
        doubtful = stray is not None
    if doubtful or _like_rows(plain, quoted, broken):
        first = broken[0]
        raise DataError(
            f"{path}, line {first.line}: quotes join lines {first.line} to {first.last} to one "
            "row, and nothing shows whether they are meant to; put quotes around every text and "
            "double those inside, or use JSON lines."
        )
    return quoted


def _as_writers_do(rows: Sequence[TableRow]) -> bool:
    """Whether each column is quoted in all rows, or only where a field needs it."""
    _, *body = rows
    for column in range(max(len(row.fields) for row in rows)):
        cells = [(r.fields[column], r.quoted[column]) for r in body if column < len(r.fields)]
        needless = [text for text, quoted in cells if quoted and not re.search(r'["\r\n\t,]', text)]
        if needless and not all(quoted for _, quoted in cells):
            return False
    return True


def _columns_quoted(rows: Sequence[TableRow], broken: Sequence[TableRow]) -> bool:
    """Whether the fields with line breaks lie in columns that are quoted in every row, of many."""
    _, *body = rows
    columns = {i for row in broken for i, field in enumerate(row.fields) if _BREAK.search(field)}
    whole = all(i < len(row.quoted) and row.quoted[i] for row in body for i in columns)
    return whole and len(body) > len(broken)


def _like_rows(
    plain: Sequence[TableRow], quoted: Sequence[TableRow], broken: Sequence[TableRow]
) -> bool:
    """Whether the lines of a row with line breaks look like rows of their own.

    They do if all have as many fields as the table, and one ends with what other rows have in
    their last column.
    """
    width = len(quoted[0].fields)
    known = {row.fields[-1].strip() for row in quoted[1:] if not row.broken} - {""}
    by_line = {row.line: row for row in plain}
    for row in broken:
        lines = [by_line[n] for n in range(row.line, row.last + 1) if n in by_line]
        alike = width > 1 and all(len(line.fields) == width for line in lines)
        if alike and any(line.fields[-1].strip() in known for line in lines[:-1]):
            return True
    return False


def _scan(text: str, delimiter: str) -> list[TableRow]:
    """Rows with quotes as syntax; blank lines are passed over.

    Raises:
        _NoQuoting: If a quote opens a field and does not close it.
    """
    ends = re.escape(delimiter) + "\r\n"
    closed = re.compile(rf'"([^"]*(?:""[^"]*)*)"(?=[{ends}]|\Z)')
    bare = re.compile(rf"[^{ends}]*")
    rows: list[TableRow] = []
    at, line = 0, 1
    while at < len(text):
        first, fields, quoted = line, list[str](), list[bool]()
        while True:
            opens = text.startswith('"', at)
            found = (closed if opens else bare).match(text, at)
            if found is None:
                raise _NoQuoting(line)
            fields.append(found[1].replace('""', '"') if opens else found[0])
            quoted.append(opens)
            line += len(_BREAK.findall(found[0])) if opens else 0
            at = found.end()
            if not text.startswith(delimiter, at):
                break
            at += len(delimiter)
        if fields != [""] or quoted[0]:
            rows.append(TableRow(first, line, tuple(fields), tuple(quoted)))
        at += 2 if text.startswith("\r\n", at) else 1
        line += 1
    return rows
