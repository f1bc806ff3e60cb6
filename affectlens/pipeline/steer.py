"""One prompt, with and without steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.core import DataError


@dataclass(frozen=True)
class SideBySide:
    """The two replies, the spec that makes the difference in its canonical form, and the pack."""

    spec: str
    unsteered: str
    steered: str
    pack: str


@dataclass(frozen=True)
class SteerRequest:
    """One prompt to answer twice.

    Attributes:
        prompt: What the user says.
        emotion: A steering spec, ``"anger=0.8,sadness=-0.2"``; strength 1 is the recommended dose.
            Several add up.
        pack_file: Of `SteeringPack.save`, or a name such as ``hub:owner/repo/file``.
        model: Default: the name of the model the pack was made for.
        mode: ``"circuit"`` or ``"residual"``; default: the spec's, or the pack's first.
        system: System prompt of both.
        max_new_tokens: Longest reply.
        device, dtype, device_map: See `load_model`.
        quantize: Name of a quantiser; see `affectlens.models.quantisers.QUANTISERS`.
        force: Accept a pack of another model of the same shape.
        template_variables: What the chat template is told; default: what it was told when the pack
            was made.
    """

    prompt: str
    emotion: str | Sequence[str]
    pack_file: str | Path
    model: str | None = None
    mode: str | None = None
    system: str | None = None
    max_new_tokens: int = 60
    device: str | None = None
    dtype: str | None = None
    device_map: str | None = None
    quantize: str | None = None
    force: bool = False
    template_variables: Mapping[str, Any] | None = None


def steer_beside(request: SteerRequest) -> SideBySide:
    """Generate a steered and an unsteered reply in one batch.

    Raises:
        ArtefactError: If there is no pack, or it is damaged.
        MismatchError: If it is for another model.
        UnknownNameError, DataError: If the spec cannot be read, or its parts contradict each other.
    """
    from affectlens.models import load_model
    from affectlens.models.generation.generation import GenerationSettings, encode_prompt
    from affectlens.steering import SteeringPack, SteeringSpec
    from affectlens.steering.hooking.steered_passes import generate_steered
    from affectlens.steering.packs import existing

    pack = SteeringPack.load(existing(request.pack_file))
    asked = request.emotion
    parts: list[Any] = [asked] if isinstance(asked, str) else list(asked)
    if any(isinstance(part, str) and not part.strip(" ;,") for part in parts):
        raise DataError("An empty --emotion steers nothing; write anger=0.8, or none.")
    if request.mode is not None:
        parts.append({"mode": request.mode})
    spec = pack.resolve(SteeringSpec.combined(parts, pack.emotions))
    name = request.model or pack.provenance.model_name
    told = request.template_variables
    if told is None:
        told = pack.template_variables
    loaded = load_model(
        name,
        device=request.device,
        dtype=request.dtype,
        device_map=request.device_map,
        quantization_config=request.quantize,
        template_variables=told,
    )
    ids = encode_prompt(loaded, request.prompt, request.system)
    settings = GenerationSettings(max_new_tokens=request.max_new_tokens)
    rows = generate_steered(
        loaded, pack, [ids, ids], [SteeringSpec(), spec], settings, force=request.force
    )
    plain, steered = (
        str(loaded.tokenizer.decode(list(row), skip_special_tokens=True)).strip() for row in rows
    )
    return SideBySide(str(spec), plain, steered, str(request.pack_file))
