"""Generating the replies of an arm and putting a perplexity on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.core import EMOTIONS, DataError
from affectlens.evaluation.arms import ARMS
from affectlens.evaluation.backends import Advance, Backend, Transformers
from affectlens.evaluation.perplexity import reply_nll
from affectlens.evaluation.reply import Reply
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.models import LanguageModel
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class Request:
    """One reply to be generated.

    Attributes:
        event: The neutral prompt.
        emotion: The target, or "".
        spec: What to steer with, in any form a pack takes; None = unsteered.
        system: System prompt; only the prompted arm has one.
    """

    event: Record
    emotion: str
    spec: Any = None
    system: str | None = None


def arm_requests(
    arm: str, events: Sequence[Record], emotions: Sequence[str] = EMOTIONS
) -> list[Request]:
    """All requests of an arm, at the strengths its pack recommends.

    Arms of one steering mode ask for the same; what differs is the pack. No arm has a limit of
    length but the one in tokens, which all share.

    Raises:
        UnknownNameError: If there is no such arm.
    """
    kind = ARMS[arm]
    if not kind.has_targets:
        return [Request(event, "") for event in events]
    specs = {e: SteeringSpec({e: 1.0}, mode=kind.mode) if kind.mode else None for e in emotions}
    asks = {e: kind.system(e) if kind.system else None for e in emotions}
    return [Request(event, e, specs[e], asks[e]) for event in events for e in emotions]


def generate_replies(
    model: LanguageModel,
    arm: str,
    requests: Sequence[Request],
    settings: GenerationSettings,
    *,
    pack: SteeringPack | None = None,
    backend: Backend | None = None,
    advance: Advance = lambda _n: None,
) -> list[Reply]:
    """Generate all replies of an arm in shared batches, then score them without steering.

    Args:
        model: The model.
        arm: Name to give the replies.
        requests: What to generate; steered and unsteered requests may be mixed.
        settings: Of generation, the same for all arms.
        pack: Needed if a request is steered.
        backend: What generates; default: this model, in this process.
        advance: Told about every reply finished.

    Returns:
        One reply per request, in order. The perplexity is always that of the reply under the
        unsteered model given the *neutral* prompt, in the prompted arm too.

    Raises:
        DataError: If a request is to be steered and there is no pack.
    """
    from affectlens.models.generation.generation import encode_prompt

    specs = [r.spec for r in requests]
    if pack is None and any(spec is not None for spec in specs):
        raise DataError(f"Arm {arm} is to be steered; give the pack to steer it with.")
    prompts = [encode_prompt(model, r.event.text, r.system) for r in requests]
    backend = backend or Transformers(model)
    ids = backend.generate(prompts, specs, pack, settings, advance)
    neutral = [
        encode_prompt(model, r.event.text) if r.system is not None else prompt
        for r, prompt in zip(requests, prompts, strict=True)
    ]
    nll = reply_nll(model, neutral, ids)
    return [
        Reply(
            arm=arm,
            event=request.event.id,
            group=request.event.scenario,
            valence=request.event.valence or "",
            emotion=request.emotion,
            prompt=request.event.text,
            text=str(model.tokenizer.decode(list(row), skip_special_tokens=True)).strip(),
            tokens=len(row),
            nll=float(score),
        )
        for request, row, score in zip(requests, ids, nll, strict=True)
    ]
