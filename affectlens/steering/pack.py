"""What travels: the folded vectors of a model's emotions, and what is known about using them.

Everything that steers (notebook, command line, servers, exports) reads this one file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import (
    ArtefactError,
    DataError,
    MismatchError,
    Provenance,
    UnknownNameError,
    fingerprint,
)
from affectlens.core.errors import unknown
from affectlens.core.places import WritePoint, in_order
from affectlens.steering.building import merge_packs
from affectlens.steering.classifier import Classifier
from affectlens.steering.formats import format_of
from affectlens.steering.gates import Gate, Readout, decider
from affectlens.steering.intensity import (
    DoseResponse,
    Responses,
    with_responses,
    without_responses,
)
from affectlens.steering.low_rank import LowRank
from affectlens.steering.pack_building import PackBuilding
from affectlens.steering.pack_checks import check_pack
from affectlens.steering.pack_display import PackDisplay
from affectlens.steering.pack_file import facts_of, tensors_of
from affectlens.steering.pack_places import beginnings
from affectlens.steering.packs.card import card_file, check_card
from affectlens.steering.packs.names import located
from affectlens.steering.resolving import resolved
from affectlens.steering.spec import MODES, SteeringSpec
from affectlens.steering.table import SteeringTable, build_table

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False, repr=False)
class SteeringPack(PackDisplay, PackBuilding):
    """Steering vectors of one model.

    Attributes:
        emotions: Order of the first axis of every tensor.
        vectors: ``"<mode>.<point>"`` to one natural dose per emotion and steered layer; zero where
            an emotion is not steered.
        layers: For the same names, which block each entry of the second axis belongs to.
        n_layers, d_model: Of the model.
        recommended: Mode to emotion to strength, in natural doses.
        positions: Mode to the positions its strengths were chosen with.
        rms: Mean RMS of the residual after each block, if measured; needed for unit ``rms``.
        readout: Probes that servers read emotions with, if any.
        gates: Probes that decide gates, where they are not those of ``readout``.
        enough: Emotion to the fewest ranked units that are sufficient, numbers as of
            `affectlens.circuits.verdict.Smallest`; the provenance names the evidence.
        responses: What doses do, for units that mean an effect; see
            `affectlens.steering.intensity`.
        low_rank: Maps of the mode ``low_rank``, for the same names as its ``vectors``, which hold
            what a map adds whatever the hidden state is; see `affectlens.steering.low_rank`.
        classifier: Of the mode ``gradient``, whose ``vectors`` hold a step of each emotion from the
            mean hidden state; see `affectlens.steering.classifier`.
        first: The mode of requests that name none; None: the first of `MODES` that it has.
        provenance: What made it; its model is the only one it fits.
    """

    emotions: tuple[str, ...]
    vectors: Mapping[str, Float[Tensor, "emotion layer d_model"]]
    layers: Mapping[str, tuple[int, ...]]
    n_layers: int
    d_model: int
    recommended: Mapping[str, Mapping[str, float]]
    positions: Mapping[str, str]
    rms: Float[Tensor, " n_layers"] | None = None
    readout: Readout | None = None
    gates: Readout | None = None
    enough: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    responses: Responses = field(default_factory=dict)
    low_rank: Mapping[str, LowRank] = field(default_factory=dict[str, LowRank])
    classifier: Classifier | None = None
    first: str | None = None
    provenance: Provenance = field(default_factory=lambda: Provenance("pack"))

    def __post_init__(self) -> None:
        check_pack(self)
        as_float = {name: vector.detach().float().cpu() for name, vector in self.vectors.items()}
        object.__setattr__(self, "vectors", as_float)
        if self.rms is not None:
            object.__setattr__(self, "rms", self.rms.detach().float().cpu())

    @property
    def modes(self) -> tuple[str, ...]:
        """Modes it can steer in, the default first."""
        have = {name.partition(".")[0] for name in self.vectors}
        modes = [mode for mode in MODES if mode in have]
        return tuple(sorted(modes, key=lambda mode: mode != self.first))

    @property
    def template_variables(self) -> Mapping[str, Any]:
        """What the chat template was told when the pack was made; it is to be told the same."""
        return self.provenance.parameters.get("template_variables", {})

    def points(self, mode: str) -> tuple[str, ...]:
        """Where a mode writes.

        Raises:
            UnknownNameError: If the pack has no such mode.
        """
        if mode not in self.modes:
            raise unknown("steering mode of this pack", mode, self.modes)
        return tuple(point for point in MODES[mode] if f"{mode}.{point}" in self.vectors)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that its file holds; part of the key of anything cached under steering."""
        tensors = tensors_of(self)
        content = [tensors[name].numpy().tobytes() for name in sorted(tensors)]
        return fingerprint(self.provenance.fingerprint, facts_of(self), sorted(tensors), *content)

    def resolve(self, spec: Any) -> SteeringSpec:
        """Fill in what a spec leaves to the pack: mode and positions.

        Raises:
            UnknownNameError: If the pack lacks the mode or an emotion; closest first.
            DataError: If the spec cannot be read, or asks for a unit the pack cannot give, or for
                a gate that its probes decide too late.
        """
        return resolved(self, spec)

    @property
    def deciders(self) -> Readout | None:
        """The probes that decide gates, if there are any."""
        return self.gates or self.readout

    def decider(self, spec: SteeringSpec) -> int:
        """Which of `deciders` decides the gate of a resolved spec.

        Raises:
            DataError: If none of them reads before the first place that the spec steers.
            UnknownNameError: If they do not know the emotion that the gate asks about.
        """
        assert isinstance(spec.gate, Gate) and spec.mode is not None
        return decider(self.deciders, spec.gate, self.begins(spec.mode, spec.weights))

    def begins(self, mode: str, emotions: Iterable[str]) -> WritePoint | None:
        """The first place where a mode steers one of these emotions; None if it steers none."""
        places = [self._begins[mode, emotion] for emotion in emotions]
        return next(iter(in_order(filter(None, places))), None)

    @cached_property
    def _begins(self) -> Mapping[tuple[str, str], WritePoint | None]:
        return beginnings(self)

    def table(self, specs: Sequence[Any], device: torch.device | str = "cpu") -> SteeringTable:
        """Stacked vectors of several requests, float32; row 0 does nothing.

        Args:
            specs: Anything `SteeringSpec.parse` reads, one per row of a batch.
            device: Where the model runs.
        """
        parsed = [SteeringSpec.parse(spec, self.emotions) for spec in specs]
        found = {spec: self.resolve(spec) for spec in dict.fromkeys(parsed)}  # each warns once
        return build_table(self, [found[spec] for spec in parsed]).to(device)

    @contextmanager
    def steer(
        self,
        model: LanguageModel,
        spec: Any,
        *,
        prompt_lengths: Sequence[int] | None = None,
        force: bool = False,
    ) -> Generator[None, None, None]:
        """Steer every forward pass of a model inside the block; see `affectlens.steering.steering`.

        Args:
            model: The model the pack was made for.
            spec: One request for all rows, or a list with one per row of the batch.
            prompt_lengths: Tokens of each row's prompt, where they cannot be told from the calls.
            force: Steer another model of the same shape all the same.
        """
        from affectlens.steering.hooking.steered_passes import steering

        with steering(model, self, spec, prompt_lengths=prompt_lengths, force=force):
            yield

    def require_model(self, model: LanguageModel, *, force: bool = False) -> None:
        """Refuse a model the pack was not made for.

        Raises:
            MismatchError: Naming both fingerprints; or if the shapes differ, force or not.
        """
        if (self.n_layers, self.d_model) != (model.n_layers, model.d_model):
            raise MismatchError(
                f"This pack is for a model of {self.n_layers} layers and width {self.d_model} "
                f"({self.provenance.model or 'no fingerprint'}); {model.name} has {model.n_layers} "
                f"and {model.d_model} ({model.fingerprint}). Make a pack for it: "
                "`affectlens run --model NAME`, or from directions in Python."
            )
        self.provenance.require_model(model.fingerprint, model.name, force=force)

    @classmethod
    def merge(cls, *packs: SteeringPack) -> SteeringPack:
        """One pack with the modes of several.

        Raises:
            MismatchError: If they are of different models or emotions, or share a mode.
        """
        return merge_packs(packs)

    def with_recommended(
        self,
        mode: str,
        strengths: Mapping[str, float] | float,
        *,
        positions: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> SteeringPack:
        """The same vectors with other recommended strengths, in natural doses.

        Args:
            mode: Whose strengths.
            strengths: Per emotion (the others keep theirs), or one for all.
            positions: The positions they were chosen with; None keeps the old ones. Others make
                what was measured of the mode's doses void.
            parameters: How they were chosen; goes into the provenance.
        """
        self.points(mode)
        if not isinstance(strengths, Mapping):
            strengths = dict.fromkeys(self.emotions, float(strengths))
        for emotion in strengths:
            if emotion not in self.emotions:
                raise unknown("emotion", emotion, self.emotions)
        chosen = {**self.recommended[mode], **{e: float(s) for e, s in strengths.items()}}
        known = {**self.provenance.parameters, **dict(parameters or {})}
        moved = positions not in (None, self.positions[mode])
        responses = without_responses(self.responses, mode) if moved else self.responses
        return replace(
            self,
            recommended={**self.recommended, mode: chosen},
            positions={**self.positions, mode: positions or self.positions[mode]},
            responses=responses,
            provenance=replace(self.provenance, parameters=known),
        )

    def with_first(self, mode: str) -> SteeringPack:
        """The same pack, a mode of it being that of requests that name none.

        Raises:
            UnknownNameError: If it has no such mode.
        """
        self.points(mode)
        return replace(self, first=mode)

    def with_responses(
        self, unit: str, mode: str, found: Mapping[str, DoseResponse]
    ) -> SteeringPack:
        """The same pack with what doses do, so that requests can ask for an effect.

        Args:
            unit: One of `affectlens.steering.intensity.CALIBRATED`.
            mode: That was measured, at the positions of the pack, adding.
            found: Per emotion; the others keep theirs.

        Raises:
            UnknownNameError: If there is no such unit, mode or emotion.
        """
        return with_responses(self, unit, mode, found)

    def with_rms(self, rms: Float[Tensor, " n_layers"]) -> SteeringPack:
        """The same pack with the size of the residual stream, for unit ``rms``.

        Args:
            rms: Mean RMS after each block, of `affectlens.activations.residual_rms`.
        """
        return replace(self, rms=rms)

    def save(self, path: str | Path) -> None:
        """Write it to one file, atomically.

        Args:
            path: Its ending says the format, of `affectlens.steering.formats.FORMATS`; with any
                other ending it is a safetensors file.

        Raises:
            ArtefactError: If the file cannot be written.
        """
        path = Path(path)
        format_of(path).write(self, path)
        card_file(path).unlink(missing_ok=True)  # of what was there before

    @classmethod
    def load(
        cls, path: str | Path, model: LanguageModel | None = None, *, force: bool = False
    ) -> SteeringPack:
        """Read a pack, and hold it against its card if one is beside it.

        Args:
            path: Of `save`, or a name such as ``hub:owner/repo/file`` (`PACK_SOURCES`).
            model: If given, refuse a pack made for another one.
            force: Accept it all the same, if the shapes fit.

        Raises:
            ArtefactError: If the file is missing, damaged, of a newer version, or holds NaN.
            MismatchError: If it is no pack, one for another model, or not that of its card.
        """
        path = located(path)
        check_card(path)
        try:
            pack = cls(**format_of(path).read(path))
        except _DAMAGE as error:
            raise ArtefactError(f"{path} is damaged ({error}); make the pack again.") from error
        if model is not None:
            pack.require_model(model, force=force)
        return pack


_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, DataError, UnknownNameError)
