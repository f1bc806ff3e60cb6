"""A circuit: which neurons and heads write an emotion, and what to add to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.circuits.attribution.unit_maps import head_map, neuron_map
from affectlens.circuits.checks import check_circuit
from affectlens.circuits.circuit_file import read_circuit, write_circuit
from affectlens.circuits.influence import InfluenceProfile
from affectlens.circuits.overlap import Overlap, overlap
from affectlens.circuits.units import KINDS, Unit, choose, there_only
from affectlens.circuits.verdict import Evidence, said_of
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.display import Displayed
from affectlens.core.emotions import emotion_name
from affectlens.core.errors import ArtefactError, DataError, UnknownNameError, unknown

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(Displayed):
    """Units per emotion and the emotion differences at their two intervention points.

    Attributes:
        emotions: Order of every axis called ``emotion``.
        neurons, heads: Per emotion its units, by layer, the highest score first.
        neuron_scores, head_scores: Contribution of every unit there is, chosen or not.
        delta_neurons: What to add at the input of ``W_down`` at strength 1; all neurons, the mask
            chooses.
        delta_heads: The same at the input of ``W_O``, heads side by side.
        allocation: How many units each sublayer gave, (heads, neurons) on the last axis.
        sizes: How many each has, likewise; scores and deltas beyond it are 0.
        routed: How many of a layer's neurons, its first, are of experts that a router chooses; 0
            where the MLP is no mixture. Their deltas are differences of neuron times gate.
        influence: The profile that split the budget, if one did.
        delta_source: Where the deltas are from; ``"group_mean"`` is the published one.
        position: Where contributions and differences were read.
        provenance: What made it.
        evidence: What tests of these units have found; None: ranked, untested. Other units have
            none, other deltas for the same units keep it.
    """

    emotions: tuple[str, ...]
    neurons: Mapping[str, tuple[Unit, ...]]
    heads: Mapping[str, tuple[Unit, ...]]
    neuron_scores: Float[Tensor, "emotion layer d_mlp"]
    head_scores: Float[Tensor, "emotion layer n_heads"]
    delta_neurons: Float[Tensor, "emotion layer d_mlp"]
    delta_heads: Float[Tensor, "emotion layer width"]
    allocation: Int[Tensor, "emotion layer 2"]
    sizes: Int[Tensor, "layer 2"]
    routed: Int[Tensor, " layer"]
    influence: InfluenceProfile | None
    delta_source: str
    position: str
    provenance: Provenance
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        check_circuit(self)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.neuron_scores.shape[1]

    @property
    def n_heads(self) -> int:
        """Heads in one attention, the most where layers differ."""
        return self.head_scores.shape[-1]

    @property
    def d_head(self) -> int:
        """Width of one head's place in `delta_heads`."""
        return self.delta_heads.shape[-1] // max(self.n_heads, 1)

    def units(self, emotion: str, kind: str) -> tuple[Unit, ...]:
        """The units of one kind (:data:`KINDS`) of one emotion, aliases allowed.

        Raises:
            UnknownNameError: If there is no such emotion or kind.
        """
        if kind not in KINDS:
            raise unknown("kind of unit", kind, KINDS)
        of_kind = self.neurons if kind == "neurons" else self.heads
        return of_kind[emotion_name(emotion, self.emotions)]

    def ranked(self, emotion: str, kind: str) -> list[Unit]:
        """The units of one kind of one emotion over all layers, the highest score first.

        Raises:
            UnknownNameError: If there is no such emotion or kind.
        """
        return sorted(self.units(emotion, kind), key=lambda unit: -unit.score)

    @property
    def units_fingerprint(self) -> str:
        """Hash of model, emotions and units in their order: what evidence is about."""
        units = [
            [[(u.layer, u.index) for u in self.ranked(e, kind)] for kind in KINDS]
            for e in self.emotions
        ]
        return fingerprint(self.provenance.model, self.emotions, units)

    def masks(
        self,
    ) -> tuple[Bool[Tensor, "emotion layer d_mlp"], Bool[Tensor, "emotion layer width"]]:
        """True at the circuit's neurons, and at all channels of its heads."""
        neurons = torch.zeros_like(self.delta_neurons, dtype=torch.bool)
        heads = torch.zeros_like(self.head_scores, dtype=torch.bool)
        for e, emotion in enumerate(self.emotions):
            for mask, chosen in ((neurons, self.neurons), (heads, self.heads)):
                units = chosen[emotion]
                mask[e, [u.layer for u in units], [u.index for u in units]] = True
        return neurons, heads.repeat_interleave(self.d_head, dim=-1)

    @torch.no_grad()
    def folded(
        self, model: LanguageModel, *, force: bool = False
    ) -> tuple[Float[Tensor, "emotion layer d_model"], Float[Tensor, "emotion layer d_model"]]:
        """``W_O·Δ`` and ``W_down·Δ`` over the circuit's units: two vectors per emotion and layer.

        Both inputs feed linear maps, so adding these to the maps' outputs (before a norm that the
        family may have there) at strength ``s`` equals adding ``s·Δ`` at the inputs, exactly: for
        heads, for neurons of dense MLPs, and for those of shared experts without a gate.

        Neurons of experts that a router chooses (and of a shared expert behind a gate) are folded
        in the mean over gates. At the input of expert ``e`` one would add ``Δ_e / E[g_e]``; a token
        gets it times its own gate ``g_e``, 0 if it is sent elsewhere, so ``W_e Δ_e`` on average
        over the tokens that the means are of. What is folded adds that average to every token, and
        is off by ``(g_e / E[g_e] - 1) W_e Δ_e`` at each.

        Raises:
            MismatchError: If the circuit was made for another model and ``force`` is not set.
        """
        self.provenance.require_model(model.fingerprint, model.name, force=force)
        neurons, heads = self.masks()
        attn, mlp = list[Tensor](), list[Tensor]()
        nothing = torch.zeros(len(self.emotions), model.d_model)
        for part in model.anatomy.blocks:
            z = (self.delta_heads * heads)[:, part.layer].float()
            a = (self.delta_neurons * neurons)[:, part.layer].float()
            maps = head_map(part, self.n_heads, self.d_head), neuron_map(part)
            made = [
                nothing if f is None else f.written(x) for f, x in zip(maps, (z, a), strict=True)
            ]
            attn.append(made[0].cpu())
            mlp.append(made[1].cpu())
        return torch.stack(attn, dim=1), torch.stack(mlp, dim=1)

    def with_delta(
        self,
        delta_neurons: Float[Tensor, "emotion layer d_mlp"] | None = None,
        delta_heads: Float[Tensor, "emotion layer width"] | None = None,
        *,
        how: str,
    ) -> Circuit:
        """The same units with other values to add (fitted ones, say).

        Args:
            delta_neurons: Replaces the neurons' values; None keeps them.
            delta_heads: Replaces the heads' values; None keeps them.
            how: Where they are from; goes into the provenance.

        Raises:
            DataError: If a shape does not fit, or a value is not finite.
        """
        neurons = self.delta_neurons if delta_neurons is None else delta_neurons.detach().cpu()
        heads = self.delta_heads if delta_heads is None else delta_heads.detach().cpu()
        if heads.shape != self.delta_heads.shape:
            raise DataError(
                f"delta_heads has shape {list(heads.shape)}, not {list(self.delta_heads.shape)}."
            )
        content = fingerprint(*(x.float().numpy().tobytes() for x in (neurons, heads)))
        return replace(
            self,
            delta_neurons=neurons.float(),
            delta_heads=heads.float(),
            delta_source=how,
            provenance=self._changed(delta=how, delta_content=content),
        )

    def only(self, kind: str) -> Circuit:
        """The circuit without the units of the other kind.

        Raises:
            UnknownNameError: If the kind is not one of :data:`KINDS`.
        """
        if kind not in KINDS:
            raise unknown("kind of unit", kind, KINDS)
        other = "heads" if kind == "neurons" else "neurons"
        nothing: dict[str, tuple[Unit, ...]] = {emotion: () for emotion in self.emotions}
        counts = self.allocation.clone()
        counts[..., KINDS.index(other)] = 0
        changes: dict[str, Any] = {other: nothing, "allocation": counts}
        return replace(self, **changes, evidence=None, provenance=self._changed(only=kind))

    def randomised(self, seed: int = 0) -> Circuit:
        """The control: as many units in every sublayer, drawn at random, with their own deltas.

        Raises:
            DataError: If the circuit has values for its own units alone, as a refined one does:
                random units would then have nothing to add.
        """
        masks = dict(zip(("neurons", "heads"), self.masks(), strict=True))
        deltas = {"neurons": self.delta_neurons, "heads": self.delta_heads}
        for kind, mask in masks.items():
            outside = deltas[kind].masked_fill(mask, 0.0)
            if bool(mask.any()) and not bool(mask.all()) and not bool(outside.any()):
                raise DataError(
                    f"The {kind} outside this circuit ({self.delta_source}) have nothing to add, "
                    "so random ones would be no control. Draw random units from the circuit before "
                    "it was refined, and refine them alike."
                )
        generator = torch.Generator().manual_seed(seed)
        neurons = torch.rand(self.neuron_scores.shape, generator=generator)
        heads = torch.rand(self.head_scores.shape, generator=generator)
        heads, neurons = (
            there_only(x, n) for x, n in zip((heads, neurons), self.sizes.T, strict=True)
        )
        return replace(
            self,
            neurons=choose(neurons, self.allocation[..., 1], self.emotions, self.neuron_scores),
            heads=choose(heads, self.allocation[..., 0], self.emotions, self.head_scores),
            evidence=None,
            provenance=self._changed(random_units=seed),
        )

    def overlap(self, kind: str) -> Overlap:
        """Overlap between the emotions' units of one kind, beside its chance level.

        Raises:
            UnknownNameError: If the kind is not one of :data:`KINDS`.
        """
        sets = {e: [(u.layer, u.index) for u in self.units(e, kind)] for e in self.emotions}
        return overlap(sets, sizes=self.sizes[:, KINDS.index(kind)].tolist())

    def gated(self, emotion: str) -> tuple[Unit, ...]:
        """The emotion's neurons of experts that a router chooses; see `folded`.

        Raises:
            UnknownNameError: If there is no such emotion.
        """
        units = self.units(emotion, "neurons")
        return tuple(unit for unit in units if unit.index < int(self.routed[unit.layer]))

    def table(self, top: int = 10) -> list[dict[str, Any]]:
        """The strongest units of every emotion and kind, one row each, for reports."""
        return [
            {
                "emotion": emotion,
                "kind": kind.removesuffix("s"),
                "layer": unit.layer,
                "index": unit.index,
                "score": unit.score,
            }
            for emotion in self.emotions
            for kind in KINDS
            for unit in sorted(self.units(emotion, kind), key=lambda u: -u.score)[:top]
        ]

    def brief(self) -> dict[str, object]:
        """Emotions, layers, units per emotion on average, where the deltas are from, model."""
        count = max(1, len(self.emotions))
        return {
            "emotions": len(self.emotions),
            "layers": self.n_layers,
            "neurons": round(sum(map(len, self.neurons.values())) / count),
            "heads": round(sum(map(len, self.heads.values())) / count),
            "delta": self.delta_source,
            **({"fold": self._fold(count)} if bool(self.routed.any()) else {}),
            "evidence": said_of(self.evidence),
            "model": self.provenance.model_name,
        }

    def _fold(self, count: int) -> str:
        """In words, how true the folded form is."""
        gated = round(sum(len(self.gated(e)) for e in self.emotions) / count)
        return f"exact but for {gated} neurons of experts, a mean over gates" if gated else "exact"

    def table_rows(self) -> list[dict[str, object]]:
        """Every unit of every emotion: kind, layer, index, score."""
        most = max((len(self.units(e, kind)) for e in self.emotions for kind in KINDS), default=0)
        return self.table(most)

    def with_evidence(self, evidence: Evidence | None) -> Circuit:
        """The same circuit with what tests of it have found, or without.

        Raises:
            MismatchError: If the evidence is about other units.
        """
        return replace(self, evidence=evidence)

    def save(self, path: str | Path) -> None:
        """Write it to one file (safetensors with a JSON header).

        Raises:
            ArtefactError: If the file cannot be written.
        """
        write_circuit(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing, damaged, holds NaN, or names units that do not
                exist.
            MismatchError: If it is another kind of artefact.
        """
        try:
            return cls(**read_circuit(Path(path)))
        except _DAMAGE as error:
            raise ArtefactError(f"{path} is damaged ({error}); find the circuit again.") from error

    def _changed(self, **parameters: Any) -> Provenance:
        return replace(self.provenance, parameters={**self.provenance.parameters, **parameters})


_DAMAGE = (KeyError, IndexError, TypeError, ValueError, DataError, UnknownNameError)
