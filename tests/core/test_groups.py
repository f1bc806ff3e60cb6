"""Groups of rows against counting in plain sight, on made-up labels."""

from __future__ import annotations

import random

import pytest

from affectlens.core.groups import GroupKey, Groups, group_key, group_name

EMOTIONS = ("anger", "fear", "joy")


@pytest.fixture(params=range(8))
def labelled(request: pytest.FixtureRequest) -> tuple[list[str | None], list[GroupKey]]:
    rng = random.Random(request.param)
    labels = rng.choices([*EMOTIONS, "neutral", None], k=40)
    keys = [group_key(rng.choice("abc"), rng.choice(["positive", "negative"])) for _ in labels]
    return labels, keys


Labelled = tuple[list[str | None], list[GroupKey]]


def rows_of(labelled: Labelled, key: GroupKey, emotion: str) -> list[int]:
    pairs = enumerate(zip(*labelled, strict=True))
    return [row for row, pair in pairs if pair == (emotion, key)]


class TestGroups:
    """Which groups there are, and which of them are complete."""

    def test_each_row_is_in_the_cell_of_its_label_and_content(self, labelled: Labelled) -> None:
        found = Groups.find(*labelled, EMOTIONS)
        assert list(found.cells) == list(dict.fromkeys(labelled[1]))
        for key, cell in found.cells.items():
            for emotion in (*EMOTIONS, "neutral"):
                assert list(cell.get(emotion, ())) == rows_of(labelled, key, emotion)

    def test_a_group_is_complete_with_a_row_of_every_emotion(self, labelled: Labelled) -> None:
        found = Groups.find(*labelled, EMOTIONS)
        lacks = {
            key: tuple(e for e in EMOTIONS if not rows_of(labelled, key, e)) for key in found.cells
        }
        assert found.lacking() == {key: emotions for key, emotions in lacks.items() if emotions}
        assert set(found.complete().cells) == {
            key for key, emotions in lacks.items() if not emotions
        }
        assert not found.complete().lacking()

    def test_only_some_rows(self, labelled: Labelled) -> None:
        some = range(0, 40, 3)
        found = Groups.find(*labelled, EMOTIONS, some)
        held = [row for cell in found.cells.values() for rows in cell.values() for row in rows]
        assert sorted(held) == [row for row in some if labelled[0][row]]

    def test_the_two_contents_of_a_name_do_not_complete_each_other(self) -> None:
        keys = [group_key("work", "negative"), group_key("work", "positive")]
        found = Groups.find(["anger", "fear"], keys, ["anger", "fear"])
        assert not found.complete().cells
        assert found.lacking() == {keys[0]: ("fear",), keys[1]: ("anger",)}

    def test_neutral_alone_shows_nothing(self) -> None:
        keys = [group_key("a", None), group_key("b", None), group_key("b", None)]
        found = Groups.find(["neutral", "neutral", "fear"], keys, EMOTIONS)
        assert list(found.shown().cells) == [keys[1]] and list(found.cells) == [keys[0], keys[1]]

    def test_repeated(self) -> None:
        keys = [group_key("a", None)] * 4
        assert (
            Groups.find(["anger", "fear", "neutral", "neutral"], keys, EMOTIONS).repeated() is None
        )
        twice = Groups.find(["anger", "fear", "joy", "fear"], keys, EMOTIONS)
        assert twice.repeated() == (("a", ""), "fear")


class TestShares:
    """A group counts once per emotion, however many rows it has there."""

    def test_by_brute_force(self, labelled: Labelled) -> None:
        found = Groups.find(*labelled, EMOTIONS)
        for groups in (found, found.complete()):
            expected = [
                1 / len(rows_of(labelled, key, label))
                if label in EMOTIONS and key in groups.cells
                else 0
                for label, key in zip(*labelled, strict=True)
            ]
            assert groups.shares(40) == expected


@pytest.mark.parametrize(
    ("group", "valence", "name"),
    [
        ("work_01", "negative", "work_01:negative"),
        ("work_01:negative", "negative", "work_01:negative"),
        ("work_01", None, "work_01"),
        ("work_01", "", "work_01"),
    ],
)
def test_names(group: str, valence: str | None, name: str) -> None:
    assert group_name(group_key(group, valence)) == name
    assert group_key(group, None) == group_key(group, "")
