"""What the page asks of the local server, against the functions it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from affectlens.core import EMOTIONS
from affectlens.inspection import Said, inspect_reply, inspect_token, lenses_of, writers_at
from affectlens.serving.local.app import build_app
from affectlens.serving.playground.companions import companions_of
from affectlens.serving.playground.page import static_files
from affectlens.steering import SteeringPack
from tests.circuits.test_circuit import random_circuit
from tests.serving.playground.playing import CLASSES, full_pack, service_of, without_readings

MESSAGES = [{"role": "user", "content": "My train was cancelled."}]
REPLY = [44, 7, 101, 9, 60]
SPEC = "anger=0.8,fear=-0.3;mode=circuit"


@pytest.fixture(scope="module")
def site(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    model = tiny_model()
    packs = {"demo": full_pack(model), "bare": without_readings(full_pack(model))}
    with service_of(model, tmp_path_factory.mktemp("packs"), **packs) as service:
        client = TestClient(build_app(service), base_url="http://127.0.0.1:8000")
        client.service = service  # pyright: ignore[reportAttributeAccessIssue]
        yield client


def test_about_tells_what_there_is(site: Any) -> None:
    found = site.get("/affectlens/play/about").json()
    assert found["server"] == "affectlens" and found["model"] == "tiny"
    assert found["address"] == "http://127.0.0.1:8000"
    assert found["can"]["inspect"] is True
    demo, bare = found["packs"]
    assert (demo["name"], bare["name"]) == ("demo", "bare")
    assert demo["emotions"] == list(EMOTIONS)
    assert demo["modes"] == ["residual", "circuit"] and bare["modes"] == ["circuit"]
    assert demo["reads"] == demo["gates"] == list(CLASSES)
    assert bare["reads"] == bare["gates"] == []
    assert demo["calibrated"]["circuit"]["anger"] == [0.0, 1.0]
    assert list(demo["plane"]["points"]) == list(EMOTIONS) and demo["plane"]["unplaced"] == []
    assert demo["plane"]["points"]["sadness"] == [-0.63, -0.27]


def test_a_reply_is_inspected_as_the_function_does(site: Any) -> None:
    body = {"messages": MESSAGES, "reply": REPLY, "steering": SPEC}
    found = site.post("/affectlens/play/inspect", json=body).json()
    service = site.service
    pack = service.door.packs["demo"]
    said = Said(service.engine.model, pack, SPEC, service.encode_chat(MESSAGES), REPLY)
    probes = lenses_of(pack)[0]
    wanted = inspect_reply(said, [probes])
    assert found["ids"] == REPLY
    assert "".join(found["tokens"]) == service.engine.model.tokenizer.decode(REPLY)
    assert found["kl"] == pytest.approx(wanted.kl.tolist(), abs=1e-5)
    assert found["nll_unsteered"] == pytest.approx(wanted.nll_unsteered.tolist(), abs=1e-5)
    assert found["perplexity"] == pytest.approx(wanted.perplexity, rel=1e-5)
    at = probes.layers.index(2)
    assert found["readings"]["layers"] == [2]
    for k in range(len(REPLY)):
        assert found["readings"]["tokens"][k][0] == pytest.approx(
            wanted.readings[0][0, k, at].tolist(), abs=1e-5
        )


def test_a_text_is_taken_for_its_tokens(site: Any) -> None:
    text = site.service.engine.model.tokenizer.decode(REPLY)
    ids = site.service.engine.model.tokenizer(text, add_special_tokens=False)["input_ids"]
    body = {"messages": MESSAGES, "reply": text, "steering": SPEC}
    assert site.post("/affectlens/play/inspect", json=body).json()["ids"] == ids


def test_a_token_is_inspected_as_the_functions_do(site: Any) -> None:
    body = {"messages": MESSAGES, "reply": REPLY, "steering": SPEC, "at": 3}
    found = site.post("/affectlens/play/token", json=body).json()
    service = site.service
    pack = service.door.packs["demo"]
    said = Said(service.engine.model, pack, SPEC, service.encode_chat(MESSAGES), REPLY)
    lenses = lenses_of(pack)
    wanted = inspect_token(said, 3, lenses)
    assert found["kl"] == pytest.approx(wanted.shift.kl, abs=1e-5)
    assert [w["id"] for w in found["promoted"]] == [w.id for w in wanted.shift.promoted]
    assert [w["id"] for w in found["suppressed"]] == [w.id for w in wanted.shift.suppressed]
    assert found["chosen"]["id"] == REPLY[3]
    for one, lens, read in zip(found["maps"], lenses, wanted.readings, strict=True):
        assert one["name"] == lens.name and one["layers"] == list(lens.layers)
        assert np.ravel(one["steered"]).tolist() == pytest.approx(
            read[0].flatten().tolist(), abs=1e-5
        )
        assert np.ravel(one["unsteered"]).tolist() == pytest.approx(
            read[1].flatten().tolist(), abs=1e-5
        )
    writers = writers_at(said, 3, "anger", lenses[1], layer=2, top=10)
    assert found["writers"]["emotion"] == "anger" and not found["circuit"]
    assert [w["name"] for w in found["writers"]["largest"]] == [w.name for w in writers.largest]
    assert found["writers"]["total"] == pytest.approx(list(writers.total), rel=1e-5)
    other = site.post("/affectlens/play/token", json={**body, "emotion": "sadness"}).json()
    assert other["writers"]["emotion"] == "sadness"


def test_a_pack_without_readings_tells_what_it_can(site: Any) -> None:
    body = {"messages": MESSAGES, "reply": REPLY, "steering": "anger=1", "pack": "bare", "at": 1}
    found = site.post("/affectlens/play/token", json=body).json()
    assert found["maps"] == [] and found["writers"] is None
    assert "no directions" in found["writers_missing"] and found["kl"] > 0
    del body["at"]
    assert site.post("/affectlens/play/inspect", json=body).json()["readings"] is None


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"steering": "angr=1"}, (400, 404), "anger"),
        ({"steering": "anger=1e9"}, (400,), "must lie between"),
        ({"steering": "anger=1;mode=sideways"}, (400, 404), "circuit"),
        ({"pack": "nobody"}, (400, 404), "demo"),
        ({"messages": []}, (400,), "messages"),
        ({"messages": [{"role": "oracle", "content": "x"}]}, (400, 404), "role"),
        ({"reply": [5, 6, 10**30, 7]}, (400,), "outside the vocabulary"),
        ({"reply": [5, 6, -1]}, (400,), "vocabulary"),
        ({"reply": [5] * 4000}, (400,), "tokens"),
        ({"at": 99}, (400,), "no token 99"),
        ({"at": -1}, (400,), "at"),
        ({"emotion": "joy"}, (400,), "no direction of joy"),
        ({"more": 1}, (400,), "more"),
        ({"reply": None}, (400,), "reply"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(
    site: Any, change: dict[str, Any], status: tuple[int, ...], sentence: str
) -> None:
    body = {"messages": MESSAGES, "reply": REPLY, "steering": SPEC, "at": 2} | change
    answer = site.post("/affectlens/play/token", json=body)
    message = answer.json()["error"]["message"]
    assert answer.status_code in status and sentence in message, (answer.status_code, message)


def test_the_page_loads_nothing_from_elsewhere(site: Any) -> None:
    for path in ("/play", "/play/"):
        answer = site.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    total = 0
    for name, content in static_files().items():
        total += len(content)
        text = content.decode()
        assert "http://" not in text.replace("http://www.w3.org", "").replace(
            "http://127.0.0.1:8000", ""
        ), name
        assert "https://" not in text, name
        assert site.get(f"/play/static/{name}").content == content
    assert total < 300_000
    assert site.get("/play/static/nothing.js").status_code == 404
    assert site.get("/play/static/..%2froutes.py").status_code == 404


def test_what_lies_beside_a_pack_is_shown_if_it_fits(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model()
    circuit = random_circuit(model)
    pack = SteeringPack.from_circuit(circuit, model)
    file = tmp_path / "pack.safetensors"
    pack.save(file)
    assert companions_of(pack, None).circuit is None
    assert companions_of(pack, file).circuit is None
    circuit.save(tmp_path / "circuit.safetensors")
    found = companions_of(pack, file)
    assert (
        found.circuit is not None and found.circuit.units_fingerprint == circuit.units_fingerprint
    )
    # Another circuit of the same model is not the one that this pack steers with.
    random_circuit(model, seed=1).with_delta(how="other").save(tmp_path / "circuit.safetensors")
    assert companions_of(pack, file).circuit is None
    (tmp_path / "circuit.safetensors").write_bytes(b"damaged")
    assert companions_of(pack, file).circuit is None
