"""Packs at runtime: front end and workers agree, or nothing changes.

Workers here are real shelves; what is made up is the wire to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from affectlens.core import AffectLensError, DataError, MismatchError, UnknownNameError
from affectlens.models import LanguageModel
from affectlens.serving.door import Conflict
from affectlens.serving.loaded_packs import Shelf
from affectlens.serving.pack_requests import Forbidden, inside
from affectlens.serving.request_fields import Asked
from affectlens.serving.settings import Settings
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.serving.vllm import pack_management as m
from affectlens.serving.vllm.front_door import FrontDoor, Refused
from affectlens.serving.vllm.in_flight import InFlight, noting, users_of
from affectlens.serving.vllm.register import looking_first
from affectlens.serving.vllm.worker_calls import answering
from affectlens.steering import SteeringPack
from affectlens.steering.gates import Readout
from affectlens.steering.pack_places import places_of
from tests.steering.oracle import random_pack


class Worker:
    """What a worker does when it is called."""

    def __init__(self, pack: SteeringPack, emotions: int) -> None:
        places = places_of(pack)
        slots = Slots(places, Capacity(4, emotions, 16, pack.d_model), "cpu")
        self.shelf = Shelf(slots, None, places)
        self.shelf.load("first", pack)
        self.users = 0
        self.reads: Callable[[str], str] = str

    def load_pack(self, name: str, path: str, fingerprint: str) -> None:
        pack = SteeringPack.load(self.reads(path))
        if pack.fingerprint != fingerprint:
            raise DataError("another file")
        self.shelf.load(name, pack)

    def unload_pack(self, name: str) -> None:
        if self.users:
            raise DataError("still used")
        self.shelf.unload(name)

    def state(self) -> dict[str, Any]:
        return {
            "packs": {name: self.users for name in self.shelf.names},
            "steered_tokens": 7, "slots_in_use": 1, "slots": 4,
        }  # fmt: skip


class Output:
    """vLLM's output processor, as far as it matters."""

    def __init__(self) -> None:
        self.request_states: dict[str, Any] = {}

    @noting
    def add_request(self, request: Any) -> None:
        self.request_states[request.request_id] = request


class Engine:
    def __init__(self, workers: list[Worker], model: LanguageModel) -> None:
        self.workers = workers
        self.output_processor = Output()
        self.engine_core = SimpleNamespace()
        config = SimpleNamespace(
            get_hidden_size=lambda: model.d_model,
            hf_text_config=SimpleNamespace(num_hidden_layers=model.n_layers),
            model="tiny",
        )
        self.vllm_config = SimpleNamespace(model_config=config)
        self.calls: list[str] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        self.calls.append(method)
        name = method.removeprefix("affectlens_")
        return [answering(getattr(worker, name))(*args) for worker in self.workers]


class AsyncEngine(Engine):
    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().collective_rpc(method, args)


@pytest.fixture
def model(tiny_model: Any) -> LanguageModel:
    return tiny_model("llama")


@pytest.fixture
def files(model: LanguageModel, tmp_path: Path) -> Path:
    for seed, name in enumerate(("first", "second", "third")):
        random_pack(model, seed).save(tmp_path / f"{name}.st")
    return tmp_path


def make(
    model: LanguageModel, files: Path, kind: type[Engine] = Engine, **settings: Any
) -> m.Front:
    given = {"packs": {"first": str(files / "first.st")}, "force": True, **settings}
    checked = Settings.of({"affectlens": given})
    assert checked is not None
    workers = [Worker(SteeringPack.load(files / "first.st"), emotions=9) for _ in range(2)]
    return m.Front(FrontDoor(checked), kind(workers, model))


def held(front: m.Front) -> list[set[str]]:
    """By the front door and each worker."""
    return [set(front.door.packs), *(set(w.shelf.names) for w in front.engine.workers)]


def agree(front: m.Front, *names: str) -> bool:
    return all(found == set(names) for found in held(front))


def load(front: m.Front, name: str, file: Path) -> dict[str, Any]:
    return m.run(m.loading(front, name, file), front.engine)


def unload(front: m.Front, name: str, wait: float = 0) -> None:
    m.run(m.unloading(front, name, wait), front.engine)


def test_loaded_packs_can_be_named_and_unloaded_ones_cannot(
    model: LanguageModel, files: Path
) -> None:
    front = make(model, files)
    asked = {"affectlens": "anger=1", "affectlens_pack": "second"}
    with pytest.raises(UnknownNameError, match="first"):
        front.door.understand(asked)
    told = load(front, "second", files / "second.st")
    assert told["fingerprint"] == SteeringPack.load(files / "second.st").fingerprint
    assert not told["default"]
    assert agree(front, "first", "second")
    understood = front.door.understand(asked)
    assert understood is not None
    assert understood.pack == "second"
    unload(front, "second")
    assert agree(front, "first")
    with pytest.raises(UnknownNameError):
        front.door.understand(asked)
    assert [one["name"] for one in front.listing()] == ["first"]


def test_the_pack_that_is_meant_without_a_name_never_changes(
    model: LanguageModel, files: Path
) -> None:
    front = make(model, files)
    load(front, "second", files / "second.st")
    unload(front, "first")
    with pytest.raises(DataError, match=r"first.*is not loaded.*affectlens_pack: second"):
        front.door.understand({"affectlens": "anger=1"})
    load(front, "first", files / "first.st")
    assert [(one["name"], one["default"]) for one in front.listing()] == [
        ("first", True),
        ("second", False),
    ]
    understood = front.door.understand({"affectlens": "anger=1"})
    assert understood is not None
    assert understood.pack == "first"


@pytest.mark.parametrize(
    ("name", "file", "error", "words"),
    [
        ("first", "second.st", Conflict, "loaded already"),
        ("a/b", "second.st", DataError, "letters"),
        ("", "second.st", DataError, "letters"),
        ("x" * 65, "second.st", DataError, "letters"),
        ("second", "gone.st", AffectLensError, "no file"),
        ("second", "wide.st", MismatchError, "width 8"),
    ],
)
def test_what_cannot_be_loaded_is_refused_before_any_worker_hears_of_it(
    model: LanguageModel, files: Path, name: str, file: str, error: type[Exception], words: str
) -> None:
    pack = SteeringPack.load(files / "second.st")
    narrow = {key: vectors[..., :8] for key, vectors in pack.vectors.items()}
    replace(pack, vectors=narrow, d_model=8).save(files / "wide.st")
    front = make(model, files)
    with pytest.raises(error, match=words):
        load(front, name, files / file)
    assert agree(front, "first")
    assert not front.engine.calls


def test_another_models_pack_is_refused_naming_both(
    model: LanguageModel, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = make(model, files)
    front = m.Front(FrontDoor(replace(front.door.settings, force=False)), front.engine)
    monkeypatch.setattr(
        "affectlens.serving.vllm.startup_checks.served_fingerprint", lambda _: "other"
    )
    with pytest.raises(MismatchError, match=rf"{model.fingerprint}.*other"):
        load(front, "second", files / "second.st")
    assert agree(front, "first")


def test_too_many_packs(model: LanguageModel, files: Path) -> None:
    front = make(model, files, max_packs=2)
    load(front, "second", files / "second.st")
    with pytest.raises(Conflict, match=r"no room for pack third beside first, second.*max_packs"):
        load(front, "third", files / "third.st")
    assert agree(front, "first", "second")


def test_if_one_worker_refuses_none_keeps_the_pack(model: LanguageModel, files: Path) -> None:
    front = make(model, files)
    # The second worker's disk holds another file under that name.
    front.engine.workers[1].reads = lambda path: path.replace("second", "third")
    with pytest.raises(DataError, match="another file"):
        load(front, "second", files / "second.st")
    assert agree(front, "first")
    front.engine.workers[1].reads = str
    load(front, "second", files / "second.st")
    assert agree(front, "first", "second")


def test_what_a_worker_raises_does_not_get_out_of_it(model: LanguageModel, files: Path) -> None:
    front = make(model, files)

    def broken(_path: str) -> str:
        raise RuntimeError("disk on fire")

    front.engine.workers[0].reads = broken
    with pytest.raises(DataError, match="RuntimeError: disk on fire"):
        load(front, "second", files / "second.st")
    assert agree(front, "first")


def test_an_attempt_that_was_cut_short_does_not_block_the_next(
    model: LanguageModel, files: Path
) -> None:
    front = make(model, files)
    steps = m.loading(front, "second", files / "second.st")
    step, answer = next(steps), None
    while not (isinstance(step, m.Call) and step.method == "load_pack"):
        answer = (
            step.work()
            if isinstance(step, m.Aside)
            else front.engine.collective_rpc(f"affectlens_{step.method}", step.arguments)
        )
        step = steps.send(answer)
    front.engine.collective_rpc("affectlens_load_pack", step.arguments)
    with pytest.raises(TimeoutError):
        steps.throw(TimeoutError())
    assert not agree(front, "first")
    load(front, "second", files / "second.st")
    assert agree(front, "first", "second")


def enter(front: m.Front, request: str, pack: str) -> None:
    asked = Asked(pack, "anger=1;mode=residual;positions=all", False, "key", "all")
    params = SimpleNamespace(extra_args=asked.to_extra_args())
    front.engine.output_processor.add_request(
        SimpleNamespace(request_id=request, sampling_params=params)
    )


def test_a_pack_in_use_stays(model: LanguageModel, files: Path) -> None:
    front = make(model, files)
    load(front, "second", files / "second.st")
    enter(front, "r1", "second")
    enter(front, "r2", "first")
    with pytest.raises(Conflict, match=r"second is still used \(1 request under way\)"):
        unload(front, "second")
    assert agree(front, "first", "second")
    enter(front, "r3", "second")  # and can be used as before
    with pytest.raises(Conflict, match="2 requests"):
        unload(front, "second")
    del front.engine.output_processor.request_states["r1"]
    del front.engine.output_processor.request_states["r3"]
    front.engine.workers[1].users = 1  # the last step has not been there yet
    with pytest.raises(Conflict, match="1 request"):
        unload(front, "second")
    assert agree(front, "first", "second")
    front.engine.workers[1].users = 0
    unload(front, "second")
    assert agree(front, "first")


def test_while_it_waits_nobody_gets_in_and_the_server_goes_on(
    model: LanguageModel, files: Path
) -> None:
    front = make(model, files, AsyncEngine)

    async def scenario() -> None:
        await m.run_async(m.loading(front, "second", files / "second.st"), front.engine)
        enter(front, "r1", "second")
        leaving = asyncio.create_task(m.run_async(m.unloading(front, "second", 30), front.engine))
        await asyncio.sleep(0.1)
        with pytest.raises(UnknownNameError):
            front.door.understand({"affectlens": "anger=1", "affectlens_pack": "second"})
        with pytest.raises(Refused, match="being unloaded"):  # was understood just before
            enter(front, "r2", "second")
        enter(front, "r3", "first")
        with pytest.raises(Conflict, match="Another pack is being"):
            await m.run_async(m.loading(front, "third", files / "third.st"), front.engine)
        assert not leaving.done()
        del front.engine.output_processor.request_states["r1"]
        await asyncio.wait_for(leaving, 5)

    asyncio.run(scenario())
    assert agree(front, "first")


def test_a_cancelled_change_leaves_things_as_they_were(model: LanguageModel, files: Path) -> None:
    front = make(model, files, AsyncEngine)

    async def scenario() -> None:
        await m.run_async(m.loading(front, "second", files / "second.st"), front.engine)
        enter(front, "r1", "second")
        leaving = asyncio.create_task(m.run_async(m.unloading(front, "second", 30), front.engine))
        await asyncio.sleep(0.1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        enter(front, "r2", "second")
        front.engine.output_processor.request_states.clear()
        await m.run_async(m.unloading(front, "second", 0), front.engine)

    asyncio.run(scenario())
    assert agree(front, "first")


def test_the_servers_default_keeps_its_pack(model: LanguageModel, files: Path) -> None:
    front = make(model, files, default="anger=0.5")
    with pytest.raises(Conflict, match=r"pack first by default \(anger=0.5\)"):
        unload(front, "first")
    assert agree(front, "first")


def test_probes_that_come_too_late_are_not_believed_in(model: LanguageModel, files: Path) -> None:
    """Workers have no place for them, so a gate would be ignored and readings stay away."""
    pack = SteeringPack.load(files / "second.st")
    probes = Readout(("anger", "calm"), (1,), torch.randn(1, 2, pack.d_model), torch.zeros(1, 2))
    early = replace(probes, layers=(-1,))  # read before anything is steered
    with_probes = replace(pack, readout=probes, gates=early)
    with_probes.save(files / "second.st")
    front = make(model, files)
    load(front, "second", files / "second.st")
    assert front.listing()[1]["reads"] == []
    for asked in ({"affectlens": "anger=1;gate=anger>0.5"}, {"affectlens_read": True}):
        with pytest.raises(DataError, match="started without probes"):
            front.door.understand({**asked, "affectlens_pack": "second"})
    with_probes.save(files / "first.st")
    blind = make(model, files, read=False)
    with pytest.raises(DataError, match="started without probes"):
        blind.door.understand({"affectlens": "anger=1;gate=anger>0.5"})
    seeing = make(model, files)
    assert seeing.listing()[0]["reads"] == ["anger", "calm"]
    assert seeing.door.understand({"affectlens": "anger=1;gate=anger>0.5"}) is not None


def test_unloading_what_is_not_there(model: LanguageModel, files: Path) -> None:
    front = make(model, files)
    with pytest.raises(UnknownNameError, match="first"):
        unload(front, "frist")
    assert not front.engine.calls


def test_the_state_adds_up(model: LanguageModel, files: Path) -> None:
    front = make(model, files)
    params = SimpleNamespace(extra_args={"affectlens": "anger=1"}, clone=lambda: params)
    front.door.admit(params)
    with pytest.raises(Refused):
        front.door.admit(SimpleNamespace(extra_args={"affectlens": "angr=1"}))
    enter(front, "r1", "first")
    state = m.run(m.reporting(front), front.engine)
    assert state["requests_steered"] == state["requests_refused"] == 1
    assert state["packs"] == {"first": 1}
    assert (state["tokens_steered"], state["slots_in_use"], state["slots"]) == (7, 1, 4)


def test_ended_requests_are_forgotten() -> None:
    output = Output()
    asked = Asked("first", "x", False, "key", "all").to_extra_args()
    for i in range(10_000):
        params = SimpleNamespace(extra_args=asked)
        output.add_request(SimpleNamespace(request_id=f"r{i}", sampling_params=params))
        output.request_states.pop(f"r{i - 3}", None)
    assert len(InFlight.of(output).packs) < 200
    assert users_of(output, "first") == 3


def test_a_request_that_was_never_understood_is_refused() -> None:
    params = SimpleNamespace(extra_args={"affectlens": "anger=1"})
    request = SimpleNamespace(request_id="r", sampling_params=params)
    output = Output()
    with pytest.raises(Refused, match="anger=1"):
        output.add_request(request)
    assert not output.request_states


def test_a_prompt_without_an_end_is_refused() -> None:
    asked = Asked("first", "x", False, "key", "all").to_extra_args()
    params = SimpleNamespace(extra_args=asked)
    request = SimpleNamespace(request_id="r", sampling_params=params, resumable=True)
    with pytest.raises(Refused, match="still being sent"):
        Output().add_request(request)


def test_a_stream_is_refused_before_it_begins(tmp_path: Path, tiny_model: Any) -> None:
    """When the first token is asked for, the status of the reply has been sent."""
    random_pack(tiny_model("llama")).save(tmp_path / "p.st")
    begun: list[Any] = []
    generate = looking_first(lambda _self, prompt, params: begun.append((prompt, params)))
    for config, words in (
        ({}, "no steering pack"),
        ({"affectlens": {"packs": str(tmp_path / "p.st")}}, "Unknown emotion"),
    ):
        processor = SimpleNamespace(vllm_config=SimpleNamespace(additional_config=config))
        engine = SimpleNamespace(input_processor=processor)
        with pytest.raises(Refused, match=words):
            generate(engine, "x", SimpleNamespace(extra_args={"affectlens": "angr=1"}))
        assert not begun
        plain = SimpleNamespace(extra_args=None)
        generate(engine, "x", plain)
        assert begun.pop() == ("x", plain)


@pytest.mark.parametrize(
    "path", ["../x.st", "/etc/passwd", "a/../../x.st", "link.st", "link/x", ""]
)
def test_files_outside_the_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "packs"
    folder.mkdir()
    (tmp_path / "x.st").touch()
    (folder / "link.st").symlink_to(tmp_path / "x.st")
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(Forbidden, match="not in the folder"):
        inside(str(folder), path)


def test_files_inside_the_folder(tmp_path: Path) -> None:
    assert inside(str(tmp_path), "a/b.st") == (tmp_path / "a/b.st").resolve()
    assert inside(str(tmp_path), str(tmp_path / "b.st")) == (tmp_path / "b.st").resolve()
