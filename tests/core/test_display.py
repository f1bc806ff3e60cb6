"""Artefacts in a line, in a notebook and as a data frame: what they say is what they hold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import pytest
from sample import arm

import affectlens as al
from affectlens.core.display import Displayed
from affectlens.core.errors import DataError, ModelError, UnknownNameError
from affectlens.geometry import emotion_map
from tests.circuits.test_circuit import random_circuit
from tests.conftest import make_tiny
from tests.geometry.synthetic import SITES, planted
from tests.steering.oracle import random_pack


class Toy(Displayed):
    def brief(self) -> dict[str, object]:
        return {"size": 3, "name": "<b>"}

    def table_rows(self) -> list[dict[str, object]]:
        return [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_one_line_and_a_small_table() -> None:
    assert repr(Toy()) == "Toy(size=3, name=<b>)"
    assert "&lt;b&gt;" in Toy()._repr_html_() and "<b>" not in Toy()._repr_html_()


def test_rows_become_a_data_frame() -> None:
    frame = Toy().to_pandas()
    assert list(frame.columns) == ["a", "b"] and frame["a"].tolist() == [1, 2]


def test_without_pandas_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModelError, match=r"needs pandas: pip install 'affectlens\[study\]'"):
        Toy().to_pandas()


@pytest.fixture(scope="module")
def artefacts() -> dict[str, Any]:
    store, _ = planted()
    model = make_tiny("llama", max_position_embeddings=1024)
    return {
        "ActivationStore": store,
        "Directions": al.directions(store),
        "Sweep": al.sweep(store, draws=50),
        "Circuit": random_circuit(model),
        "SteeringPack": random_pack(model),
        "Corpus": al.datasets.load("replies"),
        "EmotionMap": emotion_map(al.directions(store), SITES[0]),
        "Overlap": random_circuit(model).overlap("neurons"),
        "ArmMetrics": arm(0.5, 0.4, 2.0),
        "Moments": al.moments(model, al.datasets.load("replies").filter(split="tune"),
                              sites="resid_post@0", positions="last", by="emotion"),
    }  # fmt: skip


KINDS: dict[str, tuple[str, Callable[[Any], int]]] = {
    "ActivationStore": ("rows=252", lambda found: len(found)),
    "Directions": ("estimator=group_centred", lambda found: found.norms.numel()),
    "Sweep": ("best=blocks.", lambda found: len(found.sites)),
    "Circuit": ("delta=group_mean", lambda found: int(found.allocation.sum())),
    "SteeringPack": (
        "modes=",
        lambda found: sum(v[..., 0].numel() for v in found.vectors.values()),
    ),
    "Moments": ("classes=7", lambda found: len(found.classes)),
    "Corpus": ("design=replies", lambda found: len(found.records)),
    "EmotionMap": ("explained=", lambda found: len(found.emotions)),
    "Overlap": ("ratio=", lambda found: len(found.emotions) * (len(found.emotions) - 1) // 2),
    "ArmMetrics": ("accuracy=0.500", lambda found: len(found.per_emotion)),
}


def subclasses(cls: type) -> set[type]:
    return {cls, *(one for sub in cls.__subclasses__() for one in subclasses(sub))}


def test_every_artefact_shows_itself_alike() -> None:
    """Whatever is public and says what made it, and all that shows itself anywhere."""
    public = [getattr(al, name) for name in al.__all__]
    classes = {cls for cls in public if isinstance(cls, type) and is_dataclass(cls)}
    made = {cls for cls in classes if "provenance" in cls.__dataclass_fields__}
    shown = {cls for cls in subclasses(Displayed) if cls.__module__.startswith("affectlens.")}
    assert set(KINDS) <= {cls.__name__ for cls in shown} and len(made) >= 5
    for cls in made | shown - {Displayed}:
        assert issubclass(cls, Displayed), f"{cls.__name__} has no line, table and rows"
        own = {"__repr__", "_repr_html_", "to_pandas"} & set(vars(cls))
        own -= {"_repr_html_"} if cls.__name__ == "ColouredText" else set()  # a text shows itself
        assert not own, f"{cls.__name__} has {own} of its own; write dataclass(repr=False)"
        assert cls.brief.__doc__ and cls.table_rows.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_each_artefact_says_what_it_is(artefacts: dict[str, Any], kind: str) -> None:
    found, (part, count) = artefacts[kind], KINDS[kind]
    line = repr(found)
    assert line.startswith(f"{kind}(") and part in line and "\n" not in line and len(line) < 160
    assert kind in found._repr_html_() and len(found._repr_html_()) < 2000
    assert len(found.to_pandas()) == count(found)


def test_numbers_of_a_frame_are_those_of_the_artefact(artefacts: dict[str, Any]) -> None:
    directions, sweep = artefacts["Directions"], artefacts["Sweep"]
    frame = directions.to_pandas().set_index(["site", "emotion"])
    site = directions.sites[1]
    assert frame.loc[(site.hook_name, "fear"), "norm"] == directions.norm("fear", site)
    assert sweep.to_pandas()["accuracy"].tolist() == sweep.accuracy.tolist()


@pytest.mark.parametrize("kind", ["Directions", "Sweep", "Circuit", "EmotionMap", "Overlap"])
def test_what_the_report_draws_is_plotted(artefacts: dict[str, Any], kind: str) -> None:
    from affectlens.plotting import FIGURES

    found = artefacts[kind]
    drawn = [row.name for row in FIGURES.values() if row.takes(found)]
    assert drawn and al.plot(found).to_json() == al.plot(found, drawn[0]).to_json()
    for name in drawn:
        if name != "influence_profile":  # this circuit was made without
            assert al.plot(found, name).data


def test_what_cannot_be_plotted_is_said(artefacts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no figure of SteeringPack"):
        al.plot(artefacts["SteeringPack"])
    with pytest.raises(DataError, match="probe_accuracy does not draw Directions"):
        al.plot(artefacts["Directions"], "probe_accuracy")
    with pytest.raises(UnknownNameError, match="split_half"):
        al.plot(artefacts["Directions"], "split_halve")
    with pytest.raises(DataError, match="no influence"):
        al.plot(artefacts["Circuit"], "influence_profile")
