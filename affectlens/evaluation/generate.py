"""Generating the replies of an arm and putting a perplexity on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.core import EMOTIONS
from affectlens.core.errors import unknown
from affectlens.datasets import elicitation_prompt
from affectlens.evaluation.arms import ARMS, Reply
from affectlens.evaluation.scoring import reply_nll
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.models import LanguageModel
    from affectlens.models.generation import GenerationSettings
    from affectlens.steering import SteeringPack

Advance = Callable[[int], object]


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

    The ``random`` arm is steered like ``residual``; what differs is the pack, see
    `affectlens.evaluation.controls.random_pack`.

    Raises:
        UnknownNameError: If there is no such arm.
    """
    if arm not in ARMS:
        raise unknown("arm", arm, ARMS)
    if arm == "unsteered":
        return [Request(event, "") for event in events]
    if arm == "prompted":
        return [Request(ev, e, system=elicitation_prompt(e)) for ev in events for e in emotions]
    mode = "circuit" if arm == "circuit" else "residual"
    return [
        Request(event, e, SteeringSpec({e: 1.0}, mode=mode)) for event in events for e in emotions
    ]


def generate_replies(
    model: LanguageModel,
    arm: str,
    requests: Sequence[Request],
    settings: GenerationSettings,
    *,
    pack: SteeringPack | None = None,
    advance: Advance = lambda _n: None,
) -> list[Reply]:
    """Generate all replies of an arm in shared batches, then score them without steering.

    Args:
        model: The model.
        arm: Name to give the replies.
        requests: What to generate; steered and unsteered requests may be mixed.
        settings: Of generation, the same for all arms.
        pack: Needed if a request is steered.
        advance: Told about every reply finished.

    Returns:
        One reply per request, in order. The perplexity is always that of the reply under the
        unsteered model given the *neutral* prompt, in the prompted arm too.
    """
    from affectlens.models.generation import encode_prompt, generate_ids
    from affectlens.steering.transformers import generate_steered

    prompts = [encode_prompt(model, r.event.text, r.system) for r in requests]
    if pack is None:
        ids = generate_ids(model, prompts, settings, on_progress=advance)
    else:
        specs = [r.spec if r.spec is not None else SteeringSpec() for r in requests]
        ids = generate_steered(model, pack, prompts, specs, settings, on_progress=advance)
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
