from __future__ import annotations

import pytest

from affectlens.core import errors
from affectlens.core.emotions import EMOTIONS, TONES, VAD, emotion_name
from affectlens.core.errors import AffectLensError, UnknownNameError, closest_first, unknown


def test_the_closest_name_comes_first() -> None:
    valid = ["sadness", "anger", "fear", "surprise"]
    assert closest_first("angr", valid)[0] == "anger"
    assert closest_first("FEAR", valid)[0] == "fear"
    assert sorted(closest_first("x", valid)) == sorted(valid)
    assert closest_first("a", ["b", "a", "b"]) == ["a", "b"]


def test_the_sentence_names_what_was_wrong_and_what_is_right() -> None:
    error = unknown("layer", 99, [str(i) for i in range(30)], limit=3)
    assert isinstance(error, UnknownNameError)
    assert str(error) == "Unknown layer '99'; choose one of: 9, 19, 29 and 27 more."
    assert str(unknown("site", "z", [])) == "Unknown site 'z'; choose one of: (none)."


def test_everything_a_user_can_cause_has_one_base() -> None:
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
    ]
    assert len(classes) >= 6
    assert all(issubclass(c, AffectLensError) for c in classes)
    assert issubclass(errors.MismatchError, errors.ArtefactError)


def test_labels_people_type() -> None:
    assert emotion_name(" Joy ") == "happiness"
    assert emotion_name("ANGER") == "anger"
    with pytest.raises(UnknownNameError, match="emotion 'none'"):
        emotion_name("none", EMOTIONS)
    with pytest.raises(UnknownNameError, match="emotion 'angst'; choose one of: anger"):
        emotion_name("angst")


def test_every_tone_has_coordinates_in_range() -> None:
    assert set(VAD) >= set(TONES)
    assert all(-1 <= value <= 1 for point in VAD.values() for value in point)
    assert VAD["happiness"][0] > 0 > VAD["sadness"][0]
