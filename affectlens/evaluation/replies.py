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
        system: System prompt, where the model is asked.
        examples: Exchanges before the prompt, what a user said and what was answered.
    """

    event: Record
    emotion: str
    spec: Any = None
    system: str | None = None
    examples: tuple[tuple[str, str], ...] = ()


def arm_requests(
    arm: str,
    events: Sequence[Record],
    emotions: Sequence[str] = EMOTIONS,
    ask: str | None = None,
) -> list[Request]:
    """All requests of an arm, at the strengths its pack recommends.

    Arms of one steering mode ask for the same; what differs is the pack. No arm has a limit of
    length but the one in tokens, which all share.

    Args:
        arm: Which.
        events: The prompts.
        emotions: The targets.
        ask: System prompt of arms that have one, with ``{label}`` for the target; default: theirs,
            which is for our six.

    Raises:
        UnknownNameError: If there is no such arm.
    """
    kind = ARMS[arm]
    if not kind.has_targets:
        return [Request(event, "") for event in events]
    specs = {
        e: SteeringSpec({e: 1.0}, mode=kind.mode, emotions=emotions) if kind.mode else None
        for e in emotions
    }
    asks: dict[str, str | None] = dict.fromkeys(emotions)
    if kind.system is not None:
        asks = {e: kind.system(e) if ask is None else ask.replace("{label}", e) for e in emotions}
    return [Request(event, e, specs[e], asks[e]) for event in events for e in emotions]


def encode_event(
    model: LanguageModel,
    event: Record,
    system: str | None = None,
    examples: Sequence[tuple[str, str]] = (),
) -> tuple[int, ...]:
    """Token ids of a prompt, all its turns, up to where the reply starts.

    Args:
        model: Whose template writes it.
        event: A user's message, alone or at the end of a chat.
        system: Said besides the event's own system prompt, after it.
        examples: Exchanges before it, after the system prompt.
    """
    turns = list(event.chat)
    said = [turns.pop(0)["content"]] if turns[0]["role"] == "system" else []
    said += [] if system is None else [system]
    before = [{"role": "system", "content": "\n\n".join(said)}] if said else []
    for asked, answered in examples:
        before += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    turns = [*before, *turns]
    return model.encode_chat(turns, add_generation_prompt=True).ids


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
    specs = [r.spec for r in requests]
    if pack is None and any(spec is not None for spec in specs):
        raise DataError(f"Arm {arm} is to be steered; give the pack to steer it with.")
    prompts = [encode_event(model, r.event, r.system, r.examples) for r in requests]
    backend = backend or Transformers(model)
    ids = backend.generate(prompts, specs, pack, settings, advance)
    neutral = [
        encode_event(model, r.event) if r.system is not None or r.examples else prompt
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
