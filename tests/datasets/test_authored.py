"""The shipped corpora: counts, splits, roles, prompts."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from affectlens.core import EMOTIONS, TONES, VALENCES, UnknownNameError
from affectlens.datasets import SPLITS, Corpus, check_leakage, elicitation_prompt, load

SHIPPED = ("scenarios", "replies", "tones", "events")


@pytest.fixture(scope="module")
def corpora() -> dict[str, Corpus]:
    return {name: load(name) for name in SHIPPED}


def test_counts(corpora: dict[str, Corpus]) -> None:
    assert len(corpora["scenarios"].scenarios()) == 120
    assert len(corpora["scenarios"].groups()) == 120 * 3
    assert len(corpora["scenarios"]) == 120 * 3 * 7
    assert len(corpora["replies"]) == 840 == 7 * len(corpora["replies"].groups())
    assert len(corpora["tones"]) == 1008 == 7 * len(corpora["tones"].groups())
    assert len(corpora["events"]) == 360
    for name in ("scenarios", "replies", "tones"):
        assert corpora[name].labels() == TONES
        corpora[name].require_complete_groups(TONES)
    assert corpora["events"].labels() == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_splits_and_roles_never_share_a_scenario(corpora: dict[str, Corpus], name: str) -> None:
    uses: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for record in corpora[name]:
        uses[record.scenario].add((record.split, record.role))
    assert all(len(use) == 1 for use in uses.values())
    expected = {("fit", "direction"), ("fit", "judge"), ("tune", "tune"), ("test", "test")}
    assert set.union(*uses.values()) == expected


def test_one_scenario_has_one_role_in_all_corpora(corpora: dict[str, Corpus]) -> None:
    """A judge fitted on replies must not meet a scenario whose prompts gave directions."""
    roles: defaultdict[str, set[str]] = defaultdict(set)
    for name in ("scenarios", "replies", "events"):
        for record in corpora[name]:
            roles[record.scenario].add(record.role)
    assert len(roles) == 120 and all(len(found) == 1 for found in roles.values())


def test_split_of_scenarios_by_their_number(corpora: dict[str, Corpus]) -> None:
    per_theme: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for record in corpora["events"]:
        per_theme[record.theme][record.scenario] = (record.split, record.role)
    assert len(per_theme) == 8
    for found in per_theme.values():
        in_order = [found[scenario] for scenario in sorted(found)]
        fitting = [use for use in in_order if use[0] != "test"]
        pair = [("fit", "direction"), ("fit", "judge")]
        assert fitting == pair * 4 + [("tune", "tune")] * 2
        assert in_order.count(("test", "test")) == 5


def test_split_of_tones_by_topic(corpora: dict[str, Corpus]) -> None:
    found: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
    for record in corpora["tones"]:
        found[int(record.group[-2:])].add((record.split, record.role))
    assert sorted(found) == list(range(18))
    for topic, uses in found.items():
        if topic >= 13:
            expected = ("test", "test")
        elif topic >= 11:
            expected = ("tune", "tune")
        else:
            expected = ("fit", "judge" if topic % 2 else "direction")
        assert uses == {expected}


def test_elicited_prompts_differ_only_in_the_emotion_word() -> None:
    anger = elicitation_prompt("anger")
    for emotion in EMOTIONS:
        assert elicitation_prompt(emotion) == anger.replace("anger", emotion)
    assert anger.count("anger") == 1
    neutral = elicitation_prompt("neutral")
    assert anger.endswith(neutral) and not any(emotion in neutral for emotion in EMOTIONS)
    assert all(prompt == prompt.strip() and "\n" not in prompt for prompt in (anger, neutral))


def test_elicited_records_have_byte_identical_user_messages(corpora: dict[str, Corpus]) -> None:
    events = {record.group: record.messages for record in corpora["events"]}
    for record in corpora["scenarios"]:
        system, user = record.messages
        assert system.content == elicitation_prompt(str(record.emotion))
        assert (user,) == events[record.group]
    for record in corpora["replies"]:
        assert record.messages[:1] == events[record.group]
        assert record.reply == record.messages[1].content


def test_group_is_scenario_and_valence(corpora: dict[str, Corpus]) -> None:
    for name in ("scenarios", "replies", "events"):
        for record in corpora[name]:
            assert record.group == f"{record.scenario}:{record.valence}"
    counts = Counter(record.valence for record in corpora["scenarios"])
    assert counts == dict.fromkeys(VALENCES, 840)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_corpora_do_not_leak(corpora: dict[str, Corpus], name: str) -> None:
    assert check_leakage(corpora[name]).messages == ()


def test_replies_are_as_the_readme_says(corpora: dict[str, Corpus]) -> None:
    report = check_leakage(corpora["replies"])
    assert all(24 < mean < 27 for mean in report.statistics["length"].values())
    assert set(report.statistics["capitals"].values()) == {0.0}


def test_choice_of_emotions() -> None:
    corpus = load("scenarios", emotions=["joy", "neutral"])
    assert corpus.labels() == ("happiness", "neutral") and len(corpus) == 720
    with pytest.raises(UnknownNameError, match="choose one of: anger"):
        load("scenarios", emotions=["angr"])


def test_alias_with_a_design() -> None:
    assert load("authored").fingerprint == load("replies").fingerprint
    assert load("authored", design="elicited").fingerprint == load("scenarios").fingerprint
    assert load("authored", design="tones").fingerprint == load("tones").fingerprint
    with pytest.raises(UnknownNameError, match="choose one of: replies"):
        load("authored", design="reply")


def test_ids_are_unique_and_order_is_fixed(corpora: dict[str, Corpus]) -> None:
    for name, corpus in corpora.items():
        assert len({record.id for record in corpus}) == len(corpus)
        assert load(name).fingerprint == corpus.fingerprint
        assert {record.split for record in corpus} == set(SPLITS)
