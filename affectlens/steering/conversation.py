"""A dialogue that a policy steers, turn by turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.steering.policies import AffectState, Known, Policy, require_within
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack


@dataclass(frozen=True)
class ConversationTurn:
    """One message and its reply, and how the reply came to be steered.

    Attributes:
        message: What the user said.
        read: What that was read as: label to probability.
        strengths: Emotions that the policy chose.
        spec: The request that steered the reply.
        state: For the next turn.
        reply: What the model answered.
    """

    message: str
    read: Mapping[str, float]
    strengths: Mapping[str, float]
    spec: SteeringSpec
    state: AffectState
    reply: str

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "message": self.message,
            "read": {name: round(share, 4) for name, share in self.read.items()},
            "strengths": dict(self.strengths),
            "spec": str(self.spec),
            "state": {name: round(x, 4) for name, x in vars(self.state).items()},
            "reply": self.reply,
        }


@dataclass(frozen=True)
class ConversationSettings:
    """How a dialogue is steered and written.

    Attributes:
        system: System prompt.
        options: Of every request: fields of `SteeringSpec` such as ``mode`` and ``unit``.
        generation: Of every reply; None: `GenerationSettings()`.
        force: Steer another model of the same shape all the same.
    """

    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generation: GenerationSettings | None = None
    force: bool = False


def converse(
    model: LanguageModel,
    pack: SteeringPack,
    policy: Policy,
    messages: Iterable[str],
    *,
    settings: ConversationSettings | None = None,
    state: AffectState | None = None,
    before: Sequence[ConversationTurn] = (),
) -> Iterator[ConversationTurn]:
    """Answer messages one after the other, each reply in the emotions that the policy chooses.

    Nothing is remembered outside what is yielded: a dialogue goes on with ``before`` and the
    ``state`` of its last turn.

    Args:
        model: The pack's.
        pack: Its vectors steer, its probe reads the messages.
        policy: From `affectlens.load_policy`.
        messages: What the user says; a message is asked for when the reply before it is there.
        settings: How; default: `ConversationSettings()`.
        state: To begin with; default: that of the last turn before, or the policy's own.
        before: Earlier turns, which the model sees.

    Yields:
        Each turn when its reply is written.

    Raises:
        MismatchError: If the pack is for another model.
        DataError: If the pack has no probes or none of its emotions, the policy may ask for more
            than the unit has, a message is empty, or the dialogue has become too long for the
            model.
        UnknownNameError: If the policy names an emotion that the pack lacks.
    """
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.steering.hooking.steered_passes import generate_steered
    from affectlens.steering.message_reading import read_messages

    asked = settings or ConversationSettings()
    generation = asked.generation or GenerationSettings()
    require_within(policy, pack.emotions, asked.options)
    now = state or (before[-1].state if before else policy.begin())
    turns = [] if asked.system is None else [{"role": "system", "content": asked.system}]
    for turn in before:
        turns += _exchange(turn.message, turn.reply)
    for message in messages:
        (read,) = read_messages(model, pack, [message], force=asked.force)
        decision = policy.decide(Known(now, read, pack.emotions))
        spec = pack.resolve(decision.spec(pack.emotions, **asked.options))
        now = decision.state
        turns.append({"role": "user", "content": message})
        ids = model.encode_chat(turns, add_generation_prompt=True).ids
        if len(ids) + generation.max_new_tokens > model.context_length:
            raise DataError(
                f"The dialogue has {len(ids)} tokens; with replies of up to "
                f"{generation.max_new_tokens} {model.name} takes {model.context_length}. Begin a "
                "new one."
            )
        (row,) = generate_steered(model, pack, [ids], [spec], generation, force=asked.force)
        reply = str(model.tokenizer.decode(list(row), skip_special_tokens=True)).strip()
        turns.append({"role": "assistant", "content": reply})
        yield ConversationTurn(message, read, decision.strengths, spec, now, reply)


def _exchange(message: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}, {"role": "assistant", "content": reply}]
