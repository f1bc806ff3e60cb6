"""Bodies of the page's own requests, and what is looked at for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from affectlens.core import DataError
from affectlens.inspection import (
    Lens,
    Said,
    TokenWriters,
    inspect_reply,
    inspect_token,
    lenses_of,
    writers_at,
)
from affectlens.inspection.lenses import DIRECTIONS, PROBES

if TYPE_CHECKING:
    from torch import Tensor

    from affectlens.models.loading import LanguageModel
    from affectlens.serving.playground.companions import Companions
    from affectlens.steering.pack import SteeringPack

MOST_TOKENS = 2048
"""Of a reply that is looked at."""


class Turn(BaseModel):
    """A message."""

    role: str
    content: str


class ReplyBody(BaseModel):
    """A reply to look at.

    Attributes:
        messages: The chat up to it.
        reply: Its token ids, or its text.
        steering: What it was written under.
        pack: With which pack; None: the default.
    """

    model_config = ConfigDict(extra="forbid")
    messages: Annotated[list[Turn], Field(min_length=1, max_length=1000)]
    reply: str | list[int]
    steering: str | dict[str, Any] = "none"
    pack: str | None = None


class TokenBody(ReplyBody):
    """A token of a reply.

    Attributes:
        at: Its number, from 0.
        emotion: Whose writers are told; None: the one that is steered most.
    """

    at: Annotated[int, Field(ge=0)]
    emotion: str | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """One reply, ready to be looked at on the thread that owns the model.

    Attributes:
        model: The model.
        pack: The pack.
        companions: What lies beside it.
        prompt: Token ids of the chat.
        body: What was asked.
        force: Take a pack of another model of the same shape.
    """

    model: LanguageModel
    pack: SteeringPack
    companions: Companions
    prompt: Sequence[int]
    body: ReplyBody
    force: bool = False

    def reply(self) -> dict[str, Any]:
        """A whole reply: its tokens, how much each choice was changed, and its perplexity."""
        said = self._said()
        lens = _read_by(self.pack)
        found = inspect_reply(said, () if lens is None else (lens,))
        readings = None
        if lens is not None:
            shares = found.readings[0][0].tolist()
            readings = {
                "classes": list(lens.columns),
                "layers": list(lens.layers),
                "tokens": _plain(shares),
            }
        return {
            "ids": list(said.reply),
            "tokens": _pieces(self.model, said.reply),
            "kl": _plain(found.kl.tolist()),
            "nll": _plain(found.nll.tolist()),
            "nll_unsteered": _plain(found.nll_unsteered.tolist()),
            "perplexity": _plain(found.perplexity),
            "readings": readings,
        }

    def token(self) -> dict[str, Any]:
        """One token: the change of its choice, the map of layers and emotions, the writers."""
        assert isinstance(self.body, TokenBody)
        said, at = self._said(), self.body.at
        lenses = lenses_of(self.pack, self.companions.directions)
        found = inspect_token(said, at, lenses)
        writers, missing = self._writers(said, lenses)
        return {
            "at": at,
            "kl": _plain(found.shift.kl),
            "promoted": [asdict(word) for word in found.shift.promoted],
            "suppressed": [asdict(word) for word in found.shift.suppressed],
            "chosen": None if found.shift.chosen is None else asdict(found.shift.chosen),
            "maps": [_map(lens, read) for lens, read in zip(lenses, found.readings, strict=True)],
            "emotions": list(self.pack.emotions),
            "circuit": self.companions.circuit is not None,
            "writers": writers,
            "writers_missing": missing,
        }

    def _said(self) -> Said:
        given = self.body.reply
        if isinstance(given, str):
            tokenizer: Any = self.model.tokenizer
            given = tokenizer(given, add_special_tokens=False)["input_ids"]
        if len(given) > MOST_TOKENS:
            raise DataError(
                f"The reply has {len(given)} tokens; up to {MOST_TOKENS} are looked at."
            )
        spec = self.pack.resolve(self.body.steering)
        return Said(self.model, self.pack, spec, self.prompt, given, self.force)

    def _writers(
        self, said: Said, lenses: Sequence[Lens]
    ) -> tuple[dict[str, Any] | None, str | None]:
        assert isinstance(self.body, TokenBody)
        lens = next((one for one in lenses if one.name == DIRECTIONS), None)
        if lens is None:
            return None, "This pack has no directions of the residual stream to tell writers along."
        weights = said.spec.weights
        steered = max(weights, key=lambda one: abs(weights[one]), default=self.pack.emotions[0])
        emotion = self.body.emotion or steered
        readout = self.pack.readout
        layer = readout.layers[-1] if readout and readout.layers[-1] in lens.layers else None
        circuit = self.companions.circuit
        found = writers_at(said, self.body.at, emotion, lens, layer=layer, circuit=circuit, top=10)
        return _told(found), None


def _read_by(pack: SteeringPack) -> Lens | None:
    """The probes that the pack reads by, without those that decide gates."""
    readout = pack.readout
    if readout is None:
        return None
    return Lens(PROBES, readout.classes, readout.layers, readout.weights, readout.bias)


def _map(lens: Lens, read: Tensor) -> dict[str, Any]:
    steered, unsteered = read.tolist()
    return {
        "name": lens.name,
        "measure": lens.measure,
        "columns": list(lens.columns),
        "layers": list(lens.layers),
        "steered": _plain(steered),
        "unsteered": _plain(unsteered),
    }


def _told(found: TokenWriters) -> dict[str, Any]:
    plain = asdict(found)
    plain["largest"] = [{**asdict(one), "name": one.name} for one in found.largest]
    return plain


def _pieces(model: LanguageModel, ids: Sequence[int]) -> list[str]:
    """The text that each token completes; a character in several tokens goes to the last."""
    from affectlens.serving.local.text_pieces import TextPieces

    tokenizer: Any = model.tokenizer
    pieces = TextPieces(lambda some: str(tokenizer.decode(list(some))) if some else "")
    found = [pieces.add(token) for token in ids]
    if found:
        found[-1] += pieces.end()
    return found


def _plain(value: Any) -> Any:
    """Numbers for JSON: six digits, None for what is none."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return round(float(value), 6) if math.isfinite(value) else None
