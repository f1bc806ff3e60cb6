"""Label sets, coordinates with their sources, mappings with their losses, and ontologies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import affectlens as al
from affectlens.cli import app
from affectlens.core import EMOTIONS, ArtefactError, DataError, UnknownNameError
from affectlens.core.emotions import (
    LABEL_MAPPINGS,
    LABEL_SETS,
    VAD,
    LabelMapping,
    LabelSet,
    coordinates,
    export_labels,
    import_labels,
    label_mapping,
    label_set,
)
from affectlens.core.emotions.ontology import from_jsonld, to_jsonld
from affectlens.core.emotions.parrott import TREE
from affectlens.pipeline.corpus_choice import label_names


def test_sizes_are_the_authors() -> None:
    sizes = {name: len(found) for name, found in LABEL_SETS.items()}
    assert sizes == {
        "ekman": 6,
        "plutchik": 8,
        "parrott": 6,
        "parrott_secondary": 25,
        "parrott_tertiary": 135,
        "goemotions": 28,
    }
    assert al.label_set("plutchik").labels[:2] == ("joy", "trust")
    with pytest.raises(UnknownNameError, match="plutchik"):
        al.label_set("plutchick")


def test_plutchiks_wheel() -> None:
    wheel = label_set("plutchik")
    for label, across in wheel.opposite.items():
        assert wheel.opposite[across] == label != across
    assert wheel.opposite["joy"] == "sadness" and wheel.opposite["trust"] == "disgust"
    assert wheel.opposite["anger"] == "fear" and wheel.opposite["surprise"] == "anticipation"
    around = wheel.labels
    for first, second in wheel.composed_of.values():  # dyads are of neighbours
        assert (around.index(first) + 1) % 8 == around.index(second)
    assert wheel.composed_of["remorse"] == ("sadness", "disgust")
    assert wheel.composed_of["optimism"] == ("anticipation", "joy")
    assert wheel.stronger["anger"] == "rage" and wheel.milder["anticipation"] == "interest"


def test_parrotts_tiers_hang_together() -> None:
    second, third = label_set("parrott_secondary"), label_set("parrott_tertiary")
    for word, secondary in third.broader.items():
        assert word in TREE[second.broader[secondary]][secondary]
    assert third.broader["worry"] == "nervousness" and second.broader["nervousness"] == "fear"
    assert set(second.broader.values()) == set(label_set("parrott").labels)


def test_coordinates_have_a_source_or_are_missing() -> None:
    assert {e: VAD[e] for e in EMOTIONS} == {
        "anger": (-0.51, 0.59, 0.25),
        "disgust": (-0.60, 0.35, 0.11),
        "fear": (-0.62, 0.82, -0.43),
        "happiness": (0.81, 0.51, 0.46),
        "sadness": (-0.63, -0.27, -0.33),
        "surprise": (0.40, 0.67, -0.13),
    }
    for found in LABEL_SETS.values():
        for label in found.labels:
            one = found.coordinates(label)
            assert one is None or (one.source and one.term and max(map(abs, one.vad)) <= 1)
    assert coordinates("trust") is None and "trust" not in label_set("plutchik").vad
    assert label_set("goemotions").vad["gratitude"] == (0.61, 0.10, -0.13)
    with pytest.raises(UnknownNameError, match="wrath"):
        label_set("plutchik").coordinates("wrath")


@pytest.mark.parametrize("name", LABEL_MAPPINGS)
def test_a_mapping_says_all_it_loses(name: str) -> None:
    mapping = LABEL_MAPPINGS[name]
    source, target = label_set(mapping.source), label_set(mapping.target)
    for label in source.labels:
        assert (mapping(label) is None) == (label in mapping.lost)
    together = {label for labels in mapping.merged.values() for label in labels}
    apart = set(mapping.to) - together
    assert len({mapping(label) for label in apart}) == len(apart)
    reached = {mapping(label) for label in source.with_neutral}
    assert set(mapping.unreached) == set(target.labels) - reached
    told = mapping.losses()
    assert all(label in told for label in (*mapping.lost, *mapping.unreached, *mapping.merged))


def test_mappings_follow_their_authors() -> None:
    assert label_mapping("goemotions", "plutchik")("admiration") == "trust"
    assert label_mapping("goemotions", "plutchik")("optimism") is None  # a dyad
    assert label_mapping("goemotions", "parrott")("disgust") == "anger"
    assert label_mapping("plutchik", "ekman")("joy") == "happiness"
    assert label_mapping("plutchik", "ekman").lost == ("trust", "anticipation")
    through = label_mapping("parrott_tertiary", "parrott_secondary")
    up, straight = (
        label_mapping("parrott_secondary", "parrott"),
        label_mapping("parrott_tertiary", "parrott"),
    )
    for word in label_set("parrott_tertiary").labels:
        assert up(str(through(word))) == straight(word)
    with pytest.raises(UnknownNameError, match="label mapping 'ekman-goemotions'"):
        label_mapping("ekman", "goemotions")
    with pytest.raises(UnknownNameError, match="label set 'x'"):
        label_mapping("x", "ekman")
    with pytest.raises(DataError, match="no such labels"):
        LabelMapping("ekman", "plutchik", {"anger": "rage"}, "nobody")


@pytest.mark.parametrize("name", LABEL_SETS)
def test_an_ontology_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonld"
    export_labels(label_set(name), path)
    found = import_labels(path)
    assert found.vad == label_set(name).vad
    assert to_jsonld(found) == to_jsonld(label_set(name))
    for label in found.labels:
        assert found.coordinates(label) == label_set(name).coordinates(label)
    document = json.loads(path.read_text())
    words = {key for concept in document["labels"] for key in concept} | set(document)
    assert words <= {*document["@context"], "@id", "@type", "@context"}
    assert label_names(str(path)) == list(label_set(name).with_neutral) == label_names(name)


def test_an_ontology_of_ones_own() -> None:
    own = {
        "name": "moods",
        "labels": [{"label": "calm", "opposite": "tense"}, {"label": "tense", "valence": -0.5,
                   "arousal": 0.5, "dominance": 0, "rated_by": "me"}],
        "mixtures": [{"label": "odd", "composedOf": ["calm", "tense"]}],
    }  # fmt: skip
    found = from_jsonld(own)
    assert found.labels == ("calm", "tense") and found.vad == {"tense": (-0.5, 0.5, 0.0)}
    assert found.opposite == {"calm": "tense"} and found.composed_of == {"odd": ("calm", "tense")}
    one = found.coordinates("tense")
    assert one is not None and one.source == "me"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not a JSON object"),
        ("{}", "holds no labels"),
        ('{"labels": [3]}', "a concept has no label"),
        ('{"labels": [{"label": "a", "opposite": "b"}]}', "says something of b, no label"),
        ('{"labels": [{"label": "a"}, {"label": "a"}]}', "each once"),
        ('{"labels": [{"label": "a", "valence": 3, "arousal": 0, "dominance": 0}]}', "between -1"),
        ('{"labels": [{"label": "a", "valence": 1}]}', "as numbers"),
        ('{"labels": [{"label": "a"}], "mixtures": [{"label": "m"}]}', "not composed of two"),
    ],
)
def test_a_file_that_is_no_ontology(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonld"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        import_labels(path)
    with pytest.raises(ArtefactError, match="no file"):
        import_labels(tmp_path / "none.jsonld")


def test_a_label_set_says_nothing_of_strangers() -> None:
    with pytest.raises(DataError, match="no label"):
        LabelSet("own", "", ("a", "b"), "", milder={"c": "d"})


def test_from_the_command_line(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
        assert done.exit_code == 0, done.stderr
        return done.stdout

    file = str(tmp_path / "wheel.jsonld")
    shown = said("labels", "show", "plutchik", "--export", file)
    assert "trust" in shown and "love = joy + trust" in shown and "arXiv 2404.07229" in shown
    assert said("labels", "show", file) == shown
    assert "no counterpart: trust, anticipation" in said("labels", "map", "plutchik", "ekman")
    assert "plutchik-ekman" in said("list", "label_mappings")
    wrong = CliRunner().invoke(app, ["labels", "show", "nonesuch"])
    assert wrong.exit_code == 1 and "Unknown label set" in wrong.stderr


def test_labels_of_a_set_go_wherever_labels_go(tmp_path: Path) -> None:
    from affectlens.pipeline.corpus_choice import CorpusChoice

    path = tmp_path / "own.csv"
    path.write_text("text,emotion\na,Joy\nb,trust\nc,neutral\n")
    found = CorpusChoice(str(path), labels="plutchik").load()
    assert found.label_set == (*label_set("plutchik").labels, "neutral")
    assert [r.emotion for r in found] == ["joy", "trust", "neutral"]
