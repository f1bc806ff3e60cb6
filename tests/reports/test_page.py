"""The page: complete, self-contained, safe, and true to the data."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from html_check import Page
from sample import heard, judged, sample, unmeasured

from affectlens.core.errors import ArtefactError, DataError
from affectlens.evaluation import ARMS, Comparison
from affectlens.plotting import SweepSummary
from affectlens.reports import Example, Header, ReportData, Tuning, render, write
from affectlens.reports.markup import duration, json_block, memory, number, percent

DATA = sample()
ALL = {"reading", "geometry", "circuit", "evidence", "tuning", "arms", "judges", "examples"}
HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&amp;"\'<b>'
RTL = "\u202eقطاري أُلغي 😡 ängstlich 列車\u2028"


@pytest.fixture(scope="module")
def html() -> str:
    return render(DATA)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def sections(page: Page) -> set[str]:
    return {given["id"] or "" for tag, given in page.tags if tag == "section"}


def test_has_every_section_and_a_link_to_each(page: Page):
    assert sections(page) == ALL
    assert {url[1:] for url in page.fetched if url.startswith("#")} == ALL | {"main"}


def test_loads_nothing_from_anywhere(page: Page):
    assert page.outside() == []
    assert not any(tag in ("iframe", "object", "embed", "base") for tag, _ in page.tags)


def test_the_check_for_loads_can_fail():
    bad = '<p style="background:url(http://a/b.png)"><img src="//x/y.png"></p>'
    bad += '<style>@import "z";</style>'
    assert len(Page(bad).outside()) == 3


def test_policy_allows_exactly_the_scripts_of_the_page(page: Page):
    (policy,) = [
        given["content"]
        for tag, given in page.tags
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy and "default-src 'none'" in policy and "connect-src" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    executable = [
        body
        for (name, body), (_, given) in zip(
            page.scripts.items(), [t for t in page.tags if t[0] == "script"], strict=True
        )
        if given.get("type") != "application/json"
    ]
    assert len(executable) == 2
    hashes = re.findall(r"sha256-([\w+/=]+)", policy)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in executable]
    assert sorted(hashes) == sorted(digests)


def test_plotly_is_inlined_once(html: str):
    assert html.count("plotly.js v") == 1
    assert len(html) < 8_000_000


@pytest.mark.parametrize("part", [f.name for f in fields(ReportData) if f.name != "header"])
def test_a_stage_not_run_leaves_its_section_out(part: str):
    owned = {
        "probes": {"reading"},
        "directions": set(),
        "emotion_map": set(),
        "circuit": {"circuit"},
        "evidence": set(),
        "tuning": {"tuning"},
        "arms": {"arms"},
        "comparisons": set(),
        "judges": {"judges"},
        "examples": {"examples"},
        "sweeps": set(),  # a report of their own
        "studies": set(),  # likewise
    }[part]
    empty = {"arms": {}, "comparisons": (), "judges": (), "examples": (), "studies": ()}
    page = Page(render(replace(DATA, **{part: empty.get(part)})))
    assert sections(page) == ALL - owned
    assert {url[1:] for url in page.fetched if url.startswith("#")} == ALL - owned | {"main"}


def test_how_many_units_are_enough_is_said_where_it_was_measured(page: Page):
    assert "3 heads and 461 neurons (1 %) keep 0.620" in page.text and "enough" in page.text
    assert DATA.evidence is not None
    untold = replace(DATA, evidence=replace(DATA.evidence, enough={}))
    assert "461 neurons" not in Page(render(untold)).text


def test_header_alone_is_a_page():
    page = Page(render(ReportData(Header("some model"))))
    assert sections(page) == set() and "some model" in page.text


def test_directions_or_map_alone():
    only_map = Page(render(replace(DATA, directions=None)))
    assert "plot-map" in only_map.ids and "plot-cosines" not in only_map.ids
    neither = Page(render(replace(DATA, directions=None, emotion_map=None)))
    assert "geometry" not in sections(neither)


def test_header_names_what_made_the_run(page: Page):
    header = DATA.header
    for value in (
        header.model,
        header.model_fingerprint,
        header.corpus,
        header.corpus_fingerprint,
        header.date,
        f"affectlens {header.package_version}",
        "3.2 GiB",
        "evaluate 21 min 50 s",
        "cpu, 2 threads, bfloat16",
    ):
        assert value in page.text


def test_the_table_shows_the_numbers_given(page: Page):
    arms = {row[0][0]: row[1:] for row in page.rows if len(row) == 14 and row[0][1] is None}
    for name, arm in DATA.arms.items():
        row = arms[ARMS[name].title]
        values = [float(value or "nan") for _, value in row]
        assert values == [
            arm.accuracy,
            arm.masked_accuracy,
            arm.later_accuracy,
            arm.copied_openers,
            arm.lexicon_accuracy,
            arm.perplexity_ratio,
            arm.distinct2,
            arm.repetition,
            arm.capitals,
            arm.topic,
            arm.harmonic,
            arm.masked_harmonic,
            arm.n,
        ]
        shown = [text.replace("\u202f", "").replace("−", "-") for text, _ in row]
        for place, share in enumerate(
            ("accuracy", "masked_accuracy", "later_accuracy", "copied_openers")
        ):
            ends = getattr(arm, f"{share}_ci")
            value, low, high = (100 * x for x in (getattr(arm, share), *ends))
            assert shown[place] == f"{value:.1f}% {low:.0f}% to {high:.0f}%"
        assert shown[5] == f"{arm.perplexity_ratio:.2f}"
        assert shown[7] == f"{arm.repetition * 100:.1f}%"


def test_only_the_best_arm_is_marked(html: str):
    best = re.findall(r'<td class="best" data-value="([\d.]+)"', html)
    arms = DATA.arms.values()
    assert [float(v) for v in best] == [
        max(a.accuracy for a in arms),
        max(a.harmonic for a in arms),
    ]


def test_figure_blocks_hold_the_data(page: Page):
    block = json.loads(page.scripts["plot-probes-data"])
    line = next(t for t in block["data"] if t["name"] == "probe")
    assert DATA.probes
    assert line["y"] == list(DATA.probes.accuracy)
    for name in page.ids:
        if name.startswith("plot-") and not name.endswith("-data"):
            assert json.loads(page.scripts[f"{name}-data"])["data"]


def test_small_multiples_share_one_scale(page: Page):
    for kind in ("heads", "neurons"):
        ends = {
            json.loads(page.scripts[f"plot-{kind}-{i}-data"])["data"][0]["zmax"] for i in range(6)
        }
        assert len(ends) == 1 and ends.pop() > 0


def test_claims_that_hold_by_construction_are_said(page: Page):
    assert "−1/(6−1) = −0.20 by construction" in page.text
    assert "share by chance" in page.text


def hostile_data() -> ReportData:
    evil = HOSTILE + RTL
    return ReportData(
        header=Header(evil, evil, evil, evil, evil, evil, seconds={evil: 1.0}, facts={evil: evil}),
        probes=SweepSummary([0], [0.5], [0.4], [0.6], 0.5, 0, site=evil, baselines={evil: 0.1}),
        arms={evil: unmeasured(0.5, per_emotion={evil: 0.5})},
        comparisons=[Comparison(evil, evil, "accuracy", 0.1, (0.0, 0.2), 0.04, 2)],
        judges=[judged(evil, [evil, "b"], **{evil: [[1, 2], [3, 4]]})],
        tuning=Tuning([], {evil: {evil: 1.0}}),
        examples=[Example(evil, [heard(evil, evil, evil, evil)], heard(evil, evil, "unsteered"))],
    )


def test_hostile_text_stays_text():
    page = Page(render(hostile_data()))
    assert not any(tag in ("img", "b") and given for tag, given in page.tags)
    kinds = [given.get("type") for tag, given in page.tags if tag == "script"]
    assert kinds.count(None) == 2, "a script came in through the data"
    assert page.text.count('alert("x")') > 10
    assert page.words.count(HOSTILE + RTL) == 12, "text was changed on its way to the page"
    assert page.outside() == []


def test_texts_survive_byte_for_byte_and_set_their_own_direction(tmp_path: Path):
    said = "قطاري أُلغي.\n  اسطر — “quotes” & <tags>\t列車 😡"
    data = ReportData(Header("m"), examples=[Example("p", [heard(said, None)])])
    written = write(data, tmp_path / "sub" / "report.html").read_text(encoding="utf-8")
    page = Page(written)
    assert said in page.words
    assert ("div", {"class": "said", "dir": "auto"}) in page.tags


def test_control_characters_and_lone_surrogates_do_not_break_the_file(tmp_path: Path):
    data = ReportData(Header("a\x00b\x1b[31m\ud83dc"))
    text = write(data, tmp_path / "r.html").read_bytes().decode("utf-8")
    assert "ab[31m?c" in text and "\x00" not in text


def test_examples_show_each_arm_and_what_was_heard(page: Page):
    example = DATA.examples[0]
    assert len(example.replies) == 18
    for said in example.replies:
        assert said.reply.emotion in page.text
        assert said.reply.text in page.words
    assert page.words.count("✓ heard as anger") == 3  # twice in the first example, once after
    assert "heard as neutral" in page.words


def test_a_missing_reply_is_a_dash(page: Page):
    example = Example("p", [heard("x", None, "a", "fear"), heard("y", None, "b", "anger")])
    rows = [
        r for r in Page(render(ReportData(Header("m"), examples=[example]))).rows if len(r) == 3
    ]
    assert [cell for cell, _ in rows[1]] == [" fear", "x", "–"]
    assert [cell for cell, _ in rows[2]] == [" anger", "–", "y"]


def test_measures_nobody_took_have_no_column():
    page = Page(render(ReportData(Header("m"), arms={"circuit": unmeasured(0.5)})))
    assert [cell for cell, _ in page.rows[0]] == ["arm", "accuracy, 95 % interval", "texts"]
    assert "judges" not in sections(page)


def test_writing_is_atomic(tmp_path: Path):
    target = tmp_path / "report.html"
    write(ReportData(Header("one")), target)
    write(ReportData(Header("two")), target)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError):
        write(DATA, tmp_path / "file" / "report.html")


def test_same_data_same_bytes(html: str):
    assert render(sample()) == html


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: SweepSummary([0, 1], [0.5], [0, 0], [1, 1], 0.5, 0),
            r"probes.accuracy has shape \[1\]",
        ),
        (lambda: SweepSummary([0], [0.5], [0], [1], 0.5, 1), "probes.best is 1"),
        (lambda: replace(DATA.directions, cosines=[[1.0]]), r"needs \[6, 6\]"),
        (lambda: replace(DATA.circuit, counts=None, heads=[[0.0]]), r"needs \[6, 30, any\]"),
        (
            lambda: replace(DATA.circuit, overlap=replace(DATA.circuit.overlap, jaccard=[[1.0]])),
            r"circuit.overlap.jaccard has shape \[1, 1\]",
        ),
    ],
)
def test_wrong_shapes_are_named(build, message: str):
    with pytest.raises(DataError, match=message):
        build()


def test_numbers_in_words():
    assert percent(0.9234, 1) == "92.3\u202f%" and percent(math.nan) == percent(None) == "–"
    assert number(-0.2) == "−0.20"
    assert duration(0.94) == "0.9 s" and duration(95) == "95 s"
    assert duration(1310) == "21 min 50 s" and duration(7265) == "2 h 01 min"
    assert memory(3_420_000_000) == "3.2 GiB" and memory(50 * 2**20) == "50 MiB"


def test_json_cannot_close_its_element():
    value = {"label": HOSTILE + "<!--<script </script x"}
    (block,) = Page(json_block(json.dumps(value), "x")).scripts.values()
    assert json.loads(block) == value and "<" not in block
