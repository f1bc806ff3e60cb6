"""Packs at runtime: the front end and every worker agree, or nothing changes.

For vLLM's ``LLM`` the functions here are called directly; a server offers them over HTTP, see
`endpoints`. Each change is a sequence of steps, so that one description serves both: calls to the
workers, work that must not hold up a server, and waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from affectlens.core import DataError
from affectlens.serving.door import Conflict
from affectlens.serving.metrics import metrics
from affectlens.serving.pack_requests import WAIT
from affectlens.serving.vllm.front_door import FrontDoor
from affectlens.serving.vllm.in_flight import InFlight, users_of
from affectlens.serving.vllm.register import door_of
from affectlens.serving.vllm.startup_checks import check_packs
from affectlens.serving.vllm.worker_calls import refusal
from affectlens.steering.pack import SteeringPack

_PAUSE, _SOON = 0.05, 5.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Call:
    """Have every worker run a method; gives their answers."""

    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Aside:
    """Do something that takes a while; gives its result."""

    work: Callable[[], Any]


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


Step = Call | Aside | Pause
Steps = Generator[Step, Any, _T]


@dataclass(frozen=True)
class Front:
    """The front end of an engine.

    Attributes:
        door: Which requests are let in.
        engine: vLLM's ``LLMEngine`` or ``AsyncLLM``.
    """

    door: FrontDoor
    engine: Any

    @classmethod
    def of(cls, engine: Any) -> Front:
        """Of an ``LLM``, an ``LLMEngine`` or an ``AsyncLLM``.

        Raises:
            DataError: If it was started without packs.
        """
        engine = getattr(engine, "llm_engine", engine)
        door = door_of(engine.input_processor)
        if door is None:
            raise DataError(
                "This engine was started without steering; give it additional_config="
                '{"affectlens": {"packs": "pack.safetensors"}}.'
            )
        return cls(door, engine)

    def listing(self) -> list[dict[str, Any]]:
        """What requests can name, the default first."""
        return self.door.listing()


def loading(front: Front, name: str, path: str | Path) -> Steps[dict[str, Any]]:
    """Load a pack from a file that the front end and every worker can read.

    Raises:
        Conflict: If the name is taken, there is no room, or another change is under way.
        DataError, ArtefactError, MismatchError: If the name or file cannot be used.
    """
    door = front.door
    with door.changing():
        door.require_new(name)
        model = front.engine.vllm_config.model_config
        absolute = Path(path).expanduser().resolve()
        pack = yield Aside(partial(_read, name, absolute, model, force=door.settings.force))
        yield Call("unload_pack", (name,))  # what an attempt that was cut short left behind
        told = refusal((yield Call("load_pack", (name, str(absolute), pack.fingerprint))))
        if told is not None:  # some workers may have it
            yield Call("unload_pack", (name,))
            raise DataError(told)
        door.open(name, pack)
    _count(door)
    return door.described(name, pack)


def _read(name: str, path: Path, model: Any, *, force: bool) -> SteeringPack:
    pack = SteeringPack.load(path)
    check_packs({name: pack}, model, force=force)
    return pack


def unloading(front: Front, name: str, wait: float = WAIT) -> Steps[None]:
    """Let requests that use a pack finish, then unload it.

    Raises:
        UnknownNameError: If it is not loaded.
        Conflict: If requests still use it after the wait, or the server's default needs it.
    """
    door = front.door
    with door.changing():
        door.require_unloadable(name)
        closed = InFlight.of(front.engine.output_processor).closed
        pack = door.close(name)
        closed.add(name)
        gone = False
        try:
            yield from _until_unused(front, name, wait)
            told = refusal((yield Call("unload_pack", (name,))))
            if told is not None:
                raise DataError(told)
            gone = True
        finally:
            closed.discard(name)
            if not gone:
                door.open(name, pack)
    _count(door)


def _until_unused(front: Front, name: str, wait: float) -> Steps[None]:
    """Wait for the front end's requests first; workers hear that the last have ended a bit later.

    The question to the workers also comes after every cancellation that was sent before it.
    """
    start = time.monotonic()
    while True:
        left = users_of(front.engine.output_processor, name)
        if not left:
            states: Sequence[Mapping[str, Any]] = yield Call("state")
            left = max((int(state["packs"].get(name, 0)) for state in states), default=0)
        if not left:
            return
        if time.monotonic() - start >= wait:
            raise Conflict(
                f"Pack {name} is still used ({left} {'request' if left == 1 else 'requests'} under "
                "way); try again later, or wait longer."
            )
        yield Pause(_PAUSE)


def reporting(front: Front) -> Steps[dict[str, Any]]:
    """What the front end and the workers know about steering."""
    states: list[dict[str, Any]] = yield Call("state")
    door = front.door
    _count(door)
    if (counters := metrics()) is not None:
        counters.workers(states)
    return {
        "default": door.default,
        "requests_steered": door.admitted,
        "requests_refused": door.refused,
        "tokens_steered": max(state["steered_tokens"] for state in states),
        "slots_in_use": max(state["slots_in_use"] for state in states),
        "slots": max(state["slots"] for state in states),
        "packs": {name: users_of(front.engine.output_processor, name) for name in door.packs},
        "workers": states,
    }


def _count(door: FrontDoor) -> None:
    if (counters := metrics()) is not None:
        counters.packs(len(door.packs))


def run(steps: Steps[_T], engine: Any) -> _T:
    """Take steps with an engine that is called directly."""
    proceed: Callable[[], Step] = partial(steps.send, None)
    while True:
        try:
            step = proceed()
        except StopIteration as end:
            return end.value
        try:
            match step:
                case Call(method, arguments):
                    answer = engine.collective_rpc(f"affectlens_{method}", args=arguments)
                case Aside(work):
                    answer = work()
                case Pause(seconds):
                    answer = _pause(engine, seconds)
        except BaseException as error:
            proceed = partial(steps.throw, error)
        else:
            proceed = partial(steps.send, answer)


def _pause(engine: Any, seconds: float) -> None:
    """An engine core in this process moves only when it is told to, and then tells its workers."""
    inside = getattr(engine.engine_core, "engine_core", None) is not None
    if inside and not engine.has_unfinished_requests():
        engine.step()
    time.sleep(seconds)


async def run_async(steps: Steps[_T], engine: Any) -> _T:
    """Take steps with an ``AsyncLLM``."""
    proceed: Callable[[], Step] = partial(steps.send, None)
    while True:
        try:
            step = proceed()
        except StopIteration as end:
            return end.value
        try:
            match step:
                case Call(method, arguments):
                    answer = await engine.collective_rpc(f"affectlens_{method}", args=arguments)
                case Aside(work):
                    answer = await asyncio.to_thread(work)
                case Pause(seconds):
                    answer = await asyncio.sleep(seconds)
        except BaseException as error:  # cancellation too: what was begun must be undone
            proceed = partial(steps.throw, error)
        else:
            proceed = partial(steps.send, answer)


def load_pack(engine: Any, name: str, path: str | Path) -> dict[str, Any]:
    """Load a pack into a running ``LLM`` (or ``LLMEngine``); requests can name it at once.

    Raises:
        Conflict, DataError, ArtefactError, MismatchError: As `loading`; nothing has changed then.
    """
    front = Front.of(engine)
    return run(loading(front, name, path), front.engine)


def unload_pack(engine: Any, name: str) -> None:
    """Unload a pack from an ``LLM`` (or ``LLMEngine``).

    Raises:
        Conflict, UnknownNameError: As `unloading`; it stays loaded then.
    """
    front = Front.of(engine)
    # Requests of a caller that waits here cannot end; those that have, workers hear about soon.
    wait = 0.0 if users_of(front.engine.output_processor, name) else _SOON
    run(unloading(front, name, wait), front.engine)


def packs(engine: Any) -> list[dict[str, Any]]:
    """The packs that requests to an engine can name, the default first."""
    return Front.of(engine).listing()
