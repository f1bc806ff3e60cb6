"""What the routes of one server share: the engine, the packs, texts to tokens, and figures."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from affectlens.core import AffectLensError, DataError
from affectlens.core.errors import unknown
from affectlens.core.utf8 import require_utf8
from affectlens.serving.contract import KEY
from affectlens.serving.door import Door
from affectlens.serving.local.engine import Engine
from affectlens.serving.local.generation import Steered
from affectlens.serving.local.guards import GuardSettings
from affectlens.serving.local.http_errors import Json, NoSuchModel
from affectlens.serving.local.metrics import LocalMetrics
from affectlens.serving.request_fields import CACHE_KEY, PACK, PROMPT, READ
from affectlens.steering.spec import SteeringSpec

T = TypeVar("T")


@dataclass(frozen=True)
class HttpSettings:
    """Of the HTTP side.

    Attributes:
        name: What clients call the model; default: the name it was loaded by.
        guards: Who is let in.
    """

    name: str | None = None
    guards: GuardSettings = field(default_factory=GuardSettings)


class Service:
    """One server.

    Attributes:
        engine: Writes replies; has the model.
        door: What requests may ask of the packs.
        settings: Of the HTTP side.
        metrics: Figures.
        admitted, refused: Requests for steering that were let in, or not.

    Args:
        engine, door, settings: See above.
    """

    def __init__(self, engine: Engine, door: Door, settings: HttpSettings | None = None) -> None:
        self.engine, self.door = engine, door
        self.settings = settings or HttpSettings()
        door.reads = door.settings.read  # nothing has to be reserved here
        self.metrics = LocalMetrics(engine)
        self.metrics.steering.packs(len(door.packs))
        self.admitted = self.refused = 0
        # Tokenizers are changed by encoding; the engine decodes with the model's own.
        self._texts = replace(engine.model, tokenizer=copy.deepcopy(engine.model.tokenizer))
        self._encoding = threading.Lock()
        self._backend: Any = copy.deepcopy(engine.model.tokenizer)

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.settings.name or self.engine.model.name

    def require_model(self, name: str | None) -> None:
        """Refuse a request for another model.

        Raises:
            NoSuchModel: Naming the one there is.
        """
        if name is not None and name != self.name:
            raise NoSuchModel(f"There is no model {name!r} here; this server has {self.name!r}.")

    def understand(self, xargs: Mapping[str, Any], steering: Any = None) -> Steered | None:
        """How a request is to be steered and read; None if not at all.

        Args:
            xargs: Its ``vllm_xargs``.
            steering: A spec that stands beside them.

        Raises:
            AffectLensError: If it cannot be served.
        """
        try:
            given = dict(xargs)
            for name in (CACHE_KEY, PROMPT):  # what vLLM's front end passes on to its workers
                if name in given:
                    raise unknown("steering option", name, (KEY, PACK, READ))
            if steering is not None:
                if KEY in given:
                    raise DataError(
                        f"The request is steered by steering and by vllm_xargs.{KEY}; keep one."
                    )
                given[KEY] = steering
            packs = self.door.packs
            asked = self.door.understand(given)
            if asked is None:
                return None
            if asked.pack not in packs:
                raise DataError(f"Pack {asked.pack} is being loaded; try again in a moment.")
            pack = packs[asked.pack]
            spec = SteeringSpec.parse(asked.spec or None, pack.emotions)
        except AffectLensError:
            self.refused += 1
            self.metrics.steering.refused()
            raise
        return Steered(asked.pack, pack, spec, asked.read)

    def admit(self, steered: Steered | None) -> None:
        """Count a request that is let in."""
        if steered is not None:
            self.admitted += bool(steered.spec)
            self.metrics.steering.admitted(
                steered.name, steered=bool(steered.spec), read=steered.read
            )

    def refuse_readings(self, replies: int) -> None:
        """Refuse readings of several replies.

        Raises:
            DataError: If there are several.
        """
        if replies > 1:
            self.refused += 1
            self.metrics.steering.refused()
            raise DataError(
                f"{READ} gives the readings of one reply: ask with n=1, and send one prompt per "
                "request."
            )

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a plain text, as `/v1/completions` continues it."""
        turns = [{"role": "text", "content": require_utf8("The prompt", text)}]
        with self._encoding:
            return self._texts.encode_chat(turns, add_generation_prompt=False).ids

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any] | None = None
    ) -> tuple[int, ...]:
        """Tokens of a chat up to where the reply begins.

        Args:
            messages: ``{"role", "content"}`` in order.
            variables: What the template is told besides.

        Raises:
            AffectLensError: If it is no chat, or the template refuses it.
        """
        texts = self._texts
        with self._encoding:
            if variables:
                texts = texts.with_template_variables(variables)
            turns: Any = list(messages)
            return texts.encode_chat(turns, add_generation_prompt=True).ids

    def token_text(self, token: int) -> str:
        """How a token is written, special ones too."""
        return str(self._backend.backend_tokenizer.decode([token], skip_special_tokens=False))

    async def on_model(self, job: Callable[[], T]) -> T:
        """Run a job on the engine's thread between two steps; see `Engine.run`."""
        return await asyncio.wrap_future(self.engine.run(job))

    @staticmethod
    def json(value: Any, status: int = 200) -> Json:
        """A JSON response that can be sent whatever its texts hold."""
        return Json(value, status_code=status)
