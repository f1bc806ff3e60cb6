"""A dialogue that a policy steers, with the model and the pack that were named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectlens.steering.conversation import ConversationTurn


@dataclass(frozen=True)
class DialogueRequest:
    """A dialogue to hold.

    Attributes:
        policy: What `affectlens.load_policy` reads.
        pack_file: Of `SteeringPack.save`, or a name such as ``box:smollm2-135m-instruct``.
        model: Default: the name of the model the pack was made for.
        mode: ``"circuit"`` or ``"residual"``; default: the pack's first.
        unit: What strengths are measured in, one of `affectlens.steering.spec.UNITS`.
        system: System prompt.
        max_new_tokens: Longest reply.
        device, dtype: See `load_model`.
        force: Accept a pack of another model of the same shape.
    """

    policy: str
    pack_file: str | Path
    model: str | None = None
    mode: str | None = None
    unit: str = "recommended"
    system: str | None = None
    max_new_tokens: int = 60
    device: str | None = None
    dtype: str | None = None
    force: bool = False


def hold_dialogue(request: DialogueRequest, messages: Iterable[str]) -> Iterator[ConversationTurn]:
    """Answer messages as they come.

    Raises:
        ArtefactError: If there is no pack, or it is damaged.
        AffectLensError: As `affectlens.load_policy` and `affectlens.converse`; what is wrong with
            the policy, or with what the pack reads by, is said before the model is loaded.
    """
    from affectlens.models import load_model
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.steering import SteeringPack
    from affectlens.steering.conversation import ConversationSettings, converse
    from affectlens.steering.message_reading import require_readable
    from affectlens.steering.packs import existing
    from affectlens.steering.policies import load_policy, require_within

    policy = load_policy(request.policy)
    pack = SteeringPack.load(existing(request.pack_file))
    options: Mapping[str, Any] = {"mode": request.mode, "unit": request.unit}
    require_within(policy, pack.emotions, options)
    require_readable(pack)
    pack.points(request.mode or pack.modes[0])
    model = load_model(
        request.model or pack.provenance.model_name,
        device=request.device,
        dtype=request.dtype,
        template_variables=pack.template_variables,
    )
    settings = ConversationSettings(
        system=request.system,
        options=options,
        generation=GenerationSettings(max_new_tokens=request.max_new_tokens),
        force=request.force,
    )
    yield from converse(model, pack, policy, messages, settings=settings)
