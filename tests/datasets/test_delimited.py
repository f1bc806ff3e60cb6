"""Tables: what a quote means is decided by the whole file, and no line is swallowed in silence."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affectlens.core import DataError
from affectlens.datasets import check_leakage, load
from affectlens.datasets.tables.delimited import read_table


def read(tmp_path: Path, text: str, name: str = "t.tsv") -> list[tuple[str, ...]]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return [row.fields for row in read_table(path, "\t" if name.endswith("tsv") else ",").rows]


WORDS = {
    "never closed": '"Not again\tanger\nShe said "no"\tfear\n',
    "closed three lines on": 'A day\tneutral\n"Never\tanger\nWe won\thappiness\n over"\tsadness\n',
    "closed on the next line": '"Never\tanger\n"\tsadness\nGone\tfear\n',
    "one of several rows": '"Stop"\tanger\nWe won\thappiness\nGone\tfear\n',
    "text after it": '"Stop" she said\tanger\nWe won\thappiness\n',
    "both ways": '"Stop"\tanger\n"Go"\tfear\nHe said "no"\tfear\n',
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_of_a_tsv_that_quotes_nothing_are_words(tmp_path: Path, name: str, end: str) -> None:
    text = "text\temotion\n" + WORDS[name]
    expected = [tuple(line.split("\t")) for line in text.split("\n")[1:-1]]
    assert read(tmp_path, text.replace("\n", end)) == expected


fields = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(fields, fields), min_size=1, max_size=6), st.sampled_from("\t,"))
def test_what_is_quoted_throughout_comes_back(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "emotion"), *rows])
    assert read(tmp_path, buffer.getvalue(), "t.tsv" if delimiter == "\t" else "t.csv") == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(fields, fields), min_size=1, max_size=6), st.sampled_from("\t,"))
def test_what_is_quoted_where_needed_comes_back_or_is_refused(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str
) -> None:
    """As pandas and spreadsheets write; a few rows may not show that quotes join lines."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter).writerows([("text", "emotion"), *rows])
    try:
        found = read(tmp_path, buffer.getvalue(), "t.tsv" if delimiter == "\t" else "t.csv")
    except DataError as error:
        assert "quotes join lines" in str(error)
        return
    several = any(c in field for row in rows for field in row for c in "\r\n")
    assert found == rows or (several and delimiter == "\t")


def test_a_really_quoted_tsv(tmp_path: Path) -> None:
    text = 'text\temotion\n"He said ""no"""\tanger\nplain\tfear\n"a\tb"\tfear\n'
    assert [row[0] for row in read(tmp_path, text)] == ['He said "no"', "plain", "a\tb"]
    text = 'text\temotion\n"Never again"\tanger\n"We won"\tfear\n'
    assert [row[0] for row in read(tmp_path, text)] == ["Never again", "We won"]


SWALLOWING = {
    "even": "text,emotion\nA day,neutral\n" + '"Never,anger\nWe won,happiness\n over",sadness\n',
    "uneven, rows alike": 'text,emotion\nA,anger\n"Hello, you",fear\n"Never,anger\nWe won,fear\n"'
    ",fear\n",
    "stray quote elsewhere": 'text,emotion\nHe said "no",anger\n"Never\nagain",fear\n',
}


@pytest.mark.parametrize("name", SWALLOWING)
def test_lines_that_may_belong_together_or_not_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"line \d: quotes join lines \d to \d to one row"):
        read(tmp_path, SWALLOWING[name], "t.csv")


def test_line_breaks_of_a_quoted_csv_are_read_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,emotion\n"Never again\nsays he",anger\n"He said ""no""",sadness\n')
    corpus = load(path)
    assert [r.text for r in corpus] == ["Never again\nsays he", 'He said "no"']
    (found,) = check_leakage(corpus).of_kind("line_breaks")
    assert found.records == ("row_2",) and "1 row of the table runs over" in found.message
    assert not check_leakage(corpus.filter(emotion="sadness")).of_kind("line_breaks")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ('text\temotion\n"a\tanger\nb\n', "t.tsv", "line 3: 1 fields, but the header has 2"),
        ("text,emotion\na,anger\n\nb,c,d\n", "t.csv", "line 4: 3 fields, but the header has 2"),
        ('text,emotion\na,anger\n"b" c,fear\n', "t.csv", "line 3: not a CSV table"),
        ('text,emotion\n"a\nb",anger\n"c,fear\n', "t.csv", "line 4: not a CSV table"),
    ],
)
def test_ragged_rows_and_open_quotes_are_named_by_line(
    tmp_path: Path, text: str, name: str, words: str
) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path, text, name)
    assert words in str(raised.value)


def test_goemotions_and_emobank_read_quotes_the_same_way(tmp_path: Path) -> None:
    lines = ['"Never\t2\ta1', "We won\t17\ta2", ' over"\t25\ta3']
    for split in ("train", "dev", "test"):
        rows = [line + split for line in lines]
        (tmp_path / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    assert [r.text for r in load("goemotions", path=tmp_path)][:3] == ['"Never', "We won", ' over"']
    head = "id,split,V,A,D,text\na,train,3,3,3,Plain\n"
    path = tmp_path / "emobank.csv"
    path.write_text(head + 'b,train,3,3,3,"Never\nc,train,3,3,3,We won\nd,train,3,3,3, over"\n')
    with pytest.raises(DataError, match="quotes join lines 3 to 5"):
        load("emobank", path=path)
