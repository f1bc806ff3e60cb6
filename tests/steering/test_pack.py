"""Packs: round trips, what is refused, doses by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from affectlens.core import (
    AffectLensError,
    ArtefactError,
    DataError,
    MismatchError,
    Provenance,
    Site,
    UnknownNameError,
)
from affectlens.core.artefact import write_tensors
from affectlens.core.places import WritePoint
from affectlens.geometry.directions import Directions
from affectlens.serving.door import cache_key
from affectlens.steering import SteeringPack, SteeringSpec
from affectlens.steering.building import layer_numbers
from affectlens.steering.gates import Readout
from affectlens.steering.intensity import DoseResponse
from affectlens.steering.low_rank import LowRank
from affectlens.steering.operators.affine import add
from affectlens.steering.pack_file import facts_of
from tests.steering.oracle import EMOTIONS, random_pack
from tests.steering.test_classifier import gradient_pack
from tests.steering.test_low_rank import low_rank_pack


@pytest.fixture
def pack(tiny_model: Any) -> SteeringPack:
    return random_pack(tiny_model("llama"))


def test_round_trip(pack: SteeringPack, tmp_path: Path, tiny_model: Any) -> None:
    path = tmp_path / "a.safetensors"
    pack.save(path)
    again = SteeringPack.load(path, tiny_model("llama"))
    assert set(again.vectors) == set(pack.vectors)
    for name, vectors in pack.vectors.items():
        assert torch.equal(again.vectors[name], vectors)
    assert torch.equal(again.rms, pack.rms)  # type: ignore[arg-type]
    for field in ("emotions", "layers", "recommended", "positions", "provenance"):
        assert getattr(again, field) == getattr(pack, field)
    assert again.fingerprint == pack.fingerprint
    assert again.modes == ("residual", "circuit")
    changed = pack.with_recommended("residual", {"anger": 3.0})
    assert changed.fingerprint != pack.fingerprint
    assert changed.recommended["residual"]["fear"] == pack.recommended["residual"]["fear"]
    louder = replace(pack, vectors={n: v * (1 + 1e-6) for n, v in pack.vectors.items()})
    assert louder.fingerprint != pack.fingerprint


DISPLAY_ONLY = {"provenance.model_name"}
"""What changes no steered token."""


def test_the_fingerprint_covers_every_field(
    pack: SteeringPack, tmp_path: Path, tiny_model: Any
) -> None:
    """Whatever field is added to a pack or to what it holds: it counts, or is named above."""
    probes = Readout(("a", "b"), (0, 1), torch.rand(2, 2, pack.d_model), torch.rand(2, 2))
    words = replace(probes, layers=(-1, 2))
    numbers = {"heads": 1, "neurons": 9, "share": 2.0, "f": 0.6, "random": 0.1, "p": 0.002}
    line = DoseResponse((0, 1), (0.1, 0.9))
    whole = replace(
        pack,
        readout=probes,
        gates=words,
        enough={pack.emotions[0]: numbers},
        responses={"heard": {"residual": {"anger": line}}},
        first="circuit",
    )
    model = tiny_model("llama")
    whole = SteeringPack.merge(whole, low_rank_pack(model), gradient_pack(model))
    whole.save(tmp_path / "a.safetensors")
    assert SteeringPack.load(tmp_path / "a.safetensors").fingerprint == whole.fingerprint
    seen = {whole.fingerprint}
    for name, value in walked(whole):
        changed = with_field(whole, name.split("."), other(value))
        assert (changed.fingerprint not in seen) != (name in DISPLAY_ONLY), name
        seen.add(changed.fingerprint)
    for name, maps in whole.low_rank.items():
        written = {name: replace(maps, writes=other(maps.writes))}
        assert replace(whole, low_rank=written).fingerprint not in seen
    for name in ("rms", "readout", "gates"):
        assert replace(whole, **{name: None}).fingerprint not in seen


def walked(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass, and those of its fields."""
    for field in fields(value):
        found, name = getattr(value, field.name), prefix + field.name
        if is_dataclass(found):
            yield from walked(found, f"{name}.")
        else:
            yield name, found


def with_field(value: Any, path: list[str], new: Any) -> Any:
    """A copy with another value in one field, whether or not that makes sense."""
    changed = replace(value)
    inner = new if len(path) == 1 else with_field(getattr(value, path[0]), path[1:], new)
    object.__setattr__(changed, path[0], inner)
    return changed


def other(value: Any) -> Any:
    """Something else of the same kind, the least that can differ."""
    match value:
        case torch.Tensor():
            changed = value.clone()
            first = changed.view(-1)[:1]
            first.copy_(torch.nextafter(first, torch.full_like(first, torch.inf)))
            return changed
        case DoseResponse():
            return replace(value, values=other(value.values))
        case LowRank():
            return replace(value, reads=other(value.reads))
        case dict() if value:
            return {**value, (last := list(value)[-1]): other(value[last])}
        case dict():
            return {"x": 1}
        case tuple():
            return (*value[:-1], other(value[-1]))
        case str():
            return f"{value}x"
        case int() | float():
            return value + 1
        case _:
            raise AssertionError(f"Say how {type(value).__name__} can differ.")


def test_requests_with_other_doses_share_no_blocks(pack: SteeringPack) -> None:
    """What a server keeps under a key was steered by the pack it was kept for."""
    louder = replace(pack, rms=pack.rms * 2)  # type: ignore[operator]
    for text in ("anger=1;unit=rms", "anger=1;unit=rms;gate=a>0.5", "anger=1"):
        probes = Readout(("a", "b"), (-1,), torch.rand(1, 2, pack.d_model), torch.rand(1, 2))
        first, second = (replace(one, gates=probes) for one in (pack, louder))
        keys = {cache_key(one, one.resolve(text)) for one in (first, second)}
        assert len(keys) == 2
    spec = pack.resolve("anger=1;unit=rms")
    assert cache_key(pack, spec) == cache_key(replace(pack), spec)


def test_hook_names_are_in_the_file(pack: SteeringPack, tmp_path: Path) -> None:
    from affectlens.core.artefact import read_header

    pack.save(tmp_path / "a.safetensors")
    _, extra, _ = read_header(tmp_path / "a.safetensors", "pack")
    hooks = extra["hooks"]
    assert hooks["residual.resid_post"] == [f"blocks.{n}.hook_resid_post" for n in (0, 2)]
    assert hooks["circuit.o_proj_out"][0] == "blocks.1.attn.o.hook_out"


def test_other_models_are_refused_by_name(
    pack: SteeringPack, tmp_path: Path, tiny_model: Any
) -> None:
    path = tmp_path / "a.safetensors"
    pack.save(path)
    other = tiny_model("llama", seed=1)
    with pytest.raises(MismatchError) as caught:
        SteeringPack.load(path, other)
    assert pack.provenance.model in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert SteeringPack.load(path, other, force=True)
    with pytest.raises(MismatchError, match="4 and 32"):
        SteeringPack.load(path, tiny_model("llama", num_hidden_layers=4), force=True)


def test_damaged_files_are_refused(pack: SteeringPack, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    pack.save(path)
    whole = path.read_bytes()
    for size in (0, 5, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtefactError, match="cut short"):
            SteeringPack.load(path)
    path.write_bytes(whole.replace(b'"format_version\\": 1', b'"format_version\\": 9'))
    if path.read_bytes() == whole:
        path.write_bytes(whole.replace(b'format_version\\": 1', b'format_version\\": 9'))
    with pytest.raises(ArtefactError, match="newer"):
        SteeringPack.load(path)
    with pytest.raises(ArtefactError, match="no file"):
        SteeringPack.load(tmp_path / "b")
    write_tensors(path, {"a": torch.ones(1)}, Provenance("circuit"))
    with pytest.raises(MismatchError, match="holds a circuit, not a pack"):
        SteeringPack.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda f, t: t.update({"residual.resid_post": t["residual.resid_post"] * torch.nan}),
            "NaN",
        ),
        (lambda f, t: t.update({"residual.resid_mid": torch.ones(3, 1, 32)}), "resid_mid"),
        (lambda f, t: t.update({"residual.resid_post": torch.ones(3, 2, 31)}), r"\[3, 2, 31\]"),
        (lambda f, t: t.clear(), "needs vectors"),
        (lambda f, t: f["layers"].update({"residual.resid_post": [0, 3]}), r"\[0, 3\]"),
        (lambda f, t: f["layers"].update({"residual.resid_post": [2, 0]}), r"\[2, 0\]"),
        (lambda f, t: f["layers"].update({"residual.resid_post": "02"}), "Layers"),
        (lambda f, t: f["layers"].clear(), "Layers"),
        (lambda f, t: f.update(emotions=["anger", "fear", "anger"]), "each once"),
        (lambda f, t: f.update(emotions=["anger", "fear", "a=b;c"]), "'a=b;c'"),
        (lambda f, t: f.update(emotions=["anger", "fear", 3]), "3"),
        (lambda f, t: f.update(n_layers="3"), "'3'"),
        (lambda f, t: f.pop("d_model"), "d_model"),
        (lambda f, t: f["recommended"]["residual"].update(anger=float("nan")), "anger"),
        (lambda f, t: f["recommended"]["residual"].pop("anger"), "anger"),
        (lambda f, t: f["recommended"].pop("circuit"), "recommended"),
        (lambda f, t: f["recommended"].update(circuit=[1]), "damaged"),
        (lambda f, t: f["positions"].update(circuit="everywhere"), "everywhere"),
        (lambda f, t: t.update(rms=torch.zeros(3)), "rms"),
        (lambda f, t: t.update(rms=torch.ones(2)), "rms"),
    ],
)
def test_hostile_contents_are_refused(
    pack: SteeringPack, tmp_path: Path, change: Any, words: str
) -> None:
    import json

    facts = json.loads(json.dumps(facts_of(pack)))
    tensors = {**pack.vectors, "rms": pack.rms}
    change(facts, tensors)
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors, pack.provenance, facts)
    with pytest.raises(ArtefactError, match=words) as caught:
        SteeringPack.load(path)
    assert "a.safetensors" in str(caught.value)


def resolved(pack: SteeringPack, spec: Any) -> str:
    return str(pack.resolve(spec))


def test_resolve_fills_in_what_the_pack_knows(pack: SteeringPack) -> None:
    mine = "anger=1;mode=residual;positions=last_prompt+generated"
    assert resolved(pack, "anger=1") == mine
    assert resolved(pack, "anger=1;mode=circuit") == "anger=1;mode=circuit;positions=generated"
    assert resolved(pack, "anger=1;positions=all") == "anger=1;mode=residual;positions=all"
    assert resolved(pack, None) == "none"
    with pytest.raises(UnknownNameError, match="emotion 'sadness'"):
        pack.resolve("sadness=1")
    only = replace(pack, vectors={n: v for n, v in pack.vectors.items() if n.startswith("circuit")})
    assert resolved(only, "anger=1").startswith("anger=1;mode=circuit")
    with pytest.raises(UnknownNameError, match="mode of this pack 'residual'"):
        only.resolve("anger=1;mode=residual")
    with pytest.raises(DataError, match="unit=rms"):
        replace(pack, rms=None).resolve("anger=1;unit=rms")


@pytest.mark.parametrize("unit", ["recommended", "natural", "rms", "raw"])
def test_units_by_hand(pack: SteeringPack, unit: str) -> None:
    table = pack.table([None, f"anger=2,happiness=-1;unit={unit}", f"anger=2;unit={unit}"])
    assert table.rows == (0, 1, 2)
    vectors = pack.vectors["residual.resid_post"]
    for i, layer in enumerate((0, 2)):
        got = table.sites[WritePoint(layer, "resid_post")].operators["add"].vector
        assert got is not None
        for row, weights in ((1, {"anger": 2.0, "happiness": -1.0}), (2, {"anger": 2.0})):
            wanted = torch.zeros(pack.d_model)
            for emotion, weight in weights.items():
                v = vectors[EMOTIONS.index(emotion), i]
                norm = v.norm() if v.any() else torch.tensor(1.0)
                wanted += (
                    weight
                    * {
                        "recommended": v * pack.recommended["residual"][emotion],
                        "natural": v,
                        "rms": v / norm * (layer + 1),
                        "raw": v / norm,
                    }[unit]
                )
            torch.testing.assert_close(got[row], wanted)
        assert bool(got[0].signbit().all()) and not bool(got[0].any())


def test_table_holds_each_request_once_and_only_places_that_act(pack: SteeringPack) -> None:
    table = pack.table(["anger=1", None, "fear=1;mode=circuit", "anger=1.0", "anger=0"])
    assert table.rows == (1, 0, 2, 1, 0)
    assert table.positions == ("generated", "last_prompt+generated", "generated")
    assert list(table.sites) == [
        WritePoint(0, "down_proj_out"),
        WritePoint(0, "resid_post"),
        WritePoint(1, "o_proj_out"),
        WritePoint(1, "down_proj_out"),
        WritePoint(2, "o_proj_out"),
        WritePoint(2, "down_proj_out"),
        WritePoint(2, "resid_post"),
    ]
    assert list(pack.table(["happiness=1"]).sites) == [
        WritePoint(2, "resid_post")
    ]  # zero at layer 0
    assert not pack.table([None, "anger=0"]).sites
    # A row is untouched, bit for bit, where another acts.
    site = table.sites[WritePoint(1, "o_proj_out")]
    hidden = torch.full((2, 3, pack.d_model), -0.0)
    out = site.apply(hidden, torch.tensor([1, 2]), None)
    assert bool(out[0].signbit().all())
    assert torch.equal(out[1], add(hidden[1:], site.operators["add"].vector[2][None, None])[0])  # type: ignore[index]


def directions(model: Any, layers: Any = range(3), emotions: Any = EMOTIONS) -> Directions:
    generator = torch.Generator().manual_seed(5)
    vectors = torch.randn(len(layers), len(emotions), model.d_model, generator=generator)
    return Directions(
        emotions=tuple(emotions),
        sites=tuple(Site(layer, "resid_post") for layer in layers),
        vectors=vectors / vectors.norm(dim=-1, keepdim=True),
        norms=torch.rand(len(layers), len(emotions), generator=generator) + 0.5,
        estimator="group_centred",
        split_half=torch.ones(len(layers), len(emotions)),
        provenance=Provenance("directions", model=model.fingerprint, corpus="c0"),
    )


def test_from_directions(tiny_model: Any) -> None:
    model = tiny_model("llama")
    found = directions(model)
    pack = SteeringPack.from_directions(found, model, layers={"anger": "0-1", "fear": [2]})
    assert pack.layers == {"residual.resid_post": (0, 1, 2)}
    vectors = pack.vectors["residual.resid_post"]
    for e, emotion in enumerate(EMOTIONS):
        for layer in range(3):
            steered = layer in {"anger": (0, 1), "fear": (2,)}.get(emotion, ())
            wanted = found.vectors[layer, e] * found.norms[layer, e] * steered
            torch.testing.assert_close(vectors[e, layer], wanted)
    assert pack.provenance.corpus == "c0"
    assert pack.provenance.inputs == {"directions": found.provenance.fingerprint}
    assert pack.recommended == {"residual": dict.fromkeys(EMOTIONS, 1.0)}
    assert SteeringPack.from_directions(found, model).layers["residual.resid_post"] == (1,)
    bands = [SteeringPack.from_directions(found, model, layers=b) for b in ("1-2", "2")]
    assert bands[0].provenance.fingerprint != bands[1].provenance.fingerprint
    with pytest.raises(UnknownNameError, match="layer '3'"):
        SteeringPack.from_directions(found, model, layers="3")
    with pytest.raises(UnknownNameError, match="emotion 'rage'"):
        SteeringPack.from_directions(found, model, layers={"rage": "1"})
    with pytest.raises(DataError, match="resid_post at layer 2"):
        SteeringPack.from_directions(directions(model, [0, 1]), model, layers="all")
    with pytest.raises(MismatchError):
        SteeringPack.from_directions(found, tiny_model("llama", seed=1))


def test_from_circuit_and_merge(tiny_model: Any) -> None:
    model = tiny_model("llama")
    attn, mlp = torch.randn(2, len(EMOTIONS), 3, model.d_model).unbind(0)
    attn[:, 1] = 0
    circuit: Any = SimpleNamespace(
        emotions=EMOTIONS,
        provenance=Provenance("circuit", model=model.fingerprint),
        evidence=None,
        folded=lambda _model, force=False: (attn, mlp),
    )
    pack = SteeringPack.from_circuit(circuit, model, positions="all")
    assert pack.layers == {"circuit.o_proj_out": (0, 2), "circuit.down_proj_out": (0, 1, 2)}
    assert torch.equal(pack.vectors["circuit.o_proj_out"], attn[:, [0, 2]])
    assert pack.positions == {"circuit": "all"}
    residual = SteeringPack.from_directions(directions(model), model, rms=torch.ones(3))
    both = SteeringPack.merge(residual, pack)
    assert both.modes == ("residual", "circuit")
    assert set(both.provenance.inputs) == {"directions", "circuit"}
    assert both.rms is not None
    for name in pack.vectors:
        assert torch.equal(both.vectors[name], pack.vectors[name])
    with pytest.raises(MismatchError, match="Both packs have the mode circuit"):
        SteeringPack.merge(both, pack)
    with pytest.raises(MismatchError, match="two models"):
        other = replace(pack, provenance=Provenance("pack", model="0"))
        SteeringPack.merge(residual, other)
    with pytest.raises(MismatchError, match="emotions"):
        fewer = SteeringPack.from_directions(directions(model, emotions=("anger",)), model)
        SteeringPack.merge(pack, fewer)
    circuit.folded = lambda _model, force=False: (attn * 0, mlp * 0)
    with pytest.raises(DataError, match="writes nothing"):
        SteeringPack.from_circuit(circuit, model)


def test_with_recommended(pack: SteeringPack) -> None:
    changed = pack.with_recommended(
        "circuit", 2.0, positions="all", parameters={"chosen_on": "tune"}
    )
    assert changed.recommended["circuit"] == dict.fromkeys(EMOTIONS, 2.0)
    assert changed.recommended["residual"] == pack.recommended["residual"]
    assert changed.positions["circuit"] == "all"
    assert changed.provenance.parameters["chosen_on"] == "tune"
    for wrong in ({"rage": 1.0}, {"anger": float("inf")}):
        with pytest.raises(AffectLensError):
            pack.with_recommended("circuit", wrong)
    with pytest.raises(UnknownNameError):
        pack.with_recommended("attention", 1.0)


def test_layer_numbers() -> None:
    assert layer_numbers("1-3,8", 10) == (1, 2, 3, 8)
    assert layer_numbers("all", 3) == (0, 1, 2)
    assert layer_numbers([4, 2, 2], 5) == (2, 4)
    for wrong in ("3-1", "10", "", "-1", "a", [], [10], [-1]):
        with pytest.raises(UnknownNameError, match="layer"):
            layer_numbers(wrong, 10)


def test_specs_of_other_kinds_are_tabulated_too(pack: SteeringPack) -> None:
    table = pack.table(
        [
            SteeringSpec({"anger": -1.0, "fear": 2.0}, operator="clamp", unit="natural"),
            SteeringSpec({"happiness": 0.25, "fear": 1.0}, operator="project_out"),
        ]
    )
    share = table.sites[WritePoint(2, "resid_post")].operators["project_out"].projections
    assert share is not None
    assert share.scale[2].tolist() == [0.0, 0.75] and not share.shift[2].any()
    project = table.sites[WritePoint(0, "resid_post")].operators["clamp"].projections
    assert project is not None
    norms = pack.vectors["residual.resid_post"][:2, 0].norm(dim=-1)
    torch.testing.assert_close(project.shift[1], norms * torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(
        project.directions[1], pack.vectors["residual.resid_post"][:2, 0] / norms[:, None]
    )
