"""The parts of packs: from directions, circuits, other packs and probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, MismatchError, Provenance, Site
from affectlens.core.errors import unknown
from affectlens.core.places import layer_range
from affectlens.steering.gates import EMBEDDINGS, Readout, decided
from affectlens.steering.intensity import merged as merged_responses

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel
    from affectlens.probes.probe import Probe
    from affectlens.probes.sweep import Sweep
    from affectlens.steering.pack import SteeringPack

Layers = str | Sequence[int]


def layer_numbers(layers: Layers, n_layers: int) -> tuple[int, ...]:
    """Read ``"10-19"``, ``"8,12,16"``, ``"all"`` or numbers.

    Raises:
        UnknownNameError: If a layer does not exist, or there is none.
    """
    numbers: list[int] = []
    parts = layers.split(",") if isinstance(layers, str) else [str(n) for n in layers]
    for part in (p.strip() for p in parts):
        numbers += range(n_layers) if part == "all" else layer_range(part, n_layers, "all")
    if not numbers:
        raise unknown("layer", "", [f"0-{n_layers - 1}", "all"])
    return tuple(sorted(set(numbers)))


def fields_from_directions(
    directions: Directions,
    model: LanguageModel,
    layers: Layers | Mapping[str, Layers] | None,
    rms: Float[Tensor, " n_layers"] | None,
    positions: str,
    *,
    force: bool,
) -> dict[str, Any]:
    """The fields of a pack; see `SteeringPack.from_directions`."""
    directions.provenance.require_model(model.fingerprint, model.name, force=force)
    emotions, n_layers = tuple(directions.emotions), model.n_layers
    if layers is None:
        layers = range(n_layers // 3, max(2 * n_layers // 3, n_layers // 3 + 1))
    if isinstance(layers, Mapping):
        for emotion in layers:
            if emotion not in emotions:
                raise unknown("emotion", emotion, emotions)
        bands = {e: layer_numbers(band, n_layers) for e, band in layers.items()}
    else:
        bands = dict.fromkeys(emotions, layer_numbers(layers, n_layers))
    steered = sorted({layer for band in bands.values() for layer in band})
    index = {site: i for i, site in enumerate(directions.sites)}
    missing = [layer for layer in steered if Site(layer, "resid_post") not in index]
    if missing:
        raise DataError(
            f"The directions lack resid_post at layer {missing[0]}; capture it, or leave that "
            "layer out."
        )
    rows = [index[Site(layer, "resid_post")] for layer in steered]
    doses = (directions.vectors * directions.norms[..., None])[rows].transpose(0, 1).float()
    band = torch.tensor([[n in bands.get(e, ()) for n in steered] for e in emotions])
    return dict(
        emotions=emotions,
        vectors={"residual.resid_post": torch.where(band[..., None], doses.cpu(), 0.0)},
        layers={"residual.resid_post": tuple(steered)},
        n_layers=n_layers,
        d_model=model.d_model,
        recommended={"residual": dict.fromkeys(emotions, 1.0)},
        positions={"residual": positions},
        rms=None if rms is None else rms.detach().float().cpu(),
        provenance=pack_provenance(
            model,
            directions.provenance,
            residual={"layers": {e: list(b) for e, b in bands.items()}},
        ),
    )


def fields_from_circuit(
    circuit: Circuit, model: LanguageModel, positions: str, *, force: bool
) -> dict[str, Any]:
    """The fields of a pack; see `SteeringPack.from_circuit`."""
    circuit.provenance.require_model(model.fingerprint, model.name, force=force)
    folded = dict(
        zip(("o_proj_out", "down_proj_out"), circuit.folded(model, force=force), strict=True)
    )
    vectors: dict[str, Tensor] = {}
    layers: dict[str, tuple[int, ...]] = {}
    for point, vector in folded.items():
        used = (vector != 0).any(-1).any(0).nonzero()[:, 0].tolist()
        if used:
            vectors[f"circuit.{point}"] = vector[:, used].float().cpu()
            layers[f"circuit.{point}"] = tuple(used)
    if not vectors:
        raise DataError("This circuit writes nothing: no unit has a difference to add.")
    emotions, made_by = tuple(circuit.emotions), pack_provenance(model, circuit.provenance)
    evidence, enough = circuit.evidence, dict[str, dict[str, Any]]()
    for emotion, one in () if evidence is None else evidence.smallest.items():
        if one.outcome == "passed":
            enough[emotion] = {name: x for name, x in vars(one).items() if name != "outcome"}
    tested = {"evidence": evidence.provenance.fingerprint} if evidence and enough else {}
    return dict(
        emotions=emotions,
        vectors=vectors,
        layers=layers,
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"circuit": dict.fromkeys(emotions, 1.0)},
        positions={"circuit": positions},
        enough=enough,
        provenance=replace(made_by, inputs={**made_by.inputs, **tested}),
    )


def merge_packs(packs: Sequence[SteeringPack]) -> SteeringPack:
    """See `SteeringPack.merge`."""
    if not packs:
        raise DataError("There is nothing to merge; give at least one pack.")
    first = packs[0]
    merged = first
    for pack in packs[1:]:
        if pack.provenance.model != first.provenance.model:
            raise MismatchError(
                f"Cannot merge packs of two models: {first.provenance.model_name or '?'} "
                f"({first.provenance.model}) and {pack.provenance.model_name or '?'} "
                f"({pack.provenance.model})."
            )
        if pack.emotions != first.emotions:
            raise MismatchError(
                f"Cannot merge packs of different emotions: {', '.join(first.emotions)} and "
                f"{', '.join(pack.emotions)}."
            )
        if twice := set(merged.modes) & set(pack.modes):
            raise MismatchError(f"Both packs have the mode {min(twice)}; leave it out of one.")
        merged = replace(
            merged,
            vectors={**merged.vectors, **pack.vectors},
            layers={**merged.layers, **pack.layers},
            recommended={**merged.recommended, **pack.recommended},
            positions={**merged.positions, **pack.positions},
            rms=merged.rms if merged.rms is not None else pack.rms,
            readout=merged.readout or pack.readout,
            gates=merged.gates or pack.gates,
            enough=merged.enough or pack.enough,
            low_rank={**merged.low_rank, **pack.low_rank},
            classifier=merged.classifier or pack.classifier,
            responses=merged_responses(merged.responses, pack.responses),
            first=merged.first or pack.first,
            provenance=replace(
                merged.provenance,
                corpus=merged.provenance.corpus or pack.provenance.corpus,
                parameters={**merged.provenance.parameters, **pack.provenance.parameters},
                inputs={**merged.provenance.inputs, **pack.provenance.inputs},
            ),
        )
    return merged


def readout_of(
    pack: SteeringPack,
    probes: Sweep | Probe | Sequence[Probe],
    layers: int | Sequence[int] | None,
    *,
    force: bool,
) -> Readout:
    """See `SteeringPack.with_readout`."""
    for one in [probes] if not isinstance(probes, Sequence) else probes:
        one.provenance.require_model(pack.provenance.model, "this pack", force=force)
    given = _fitted(probes)
    have = {n: i for n, i in given.layers.items() if n != EMBEDDINGS}
    if layers is None:
        layers = given.best if given.best is not None else sorted(have)
    return given.at(have, {layers} if isinstance(layers, int) else set(layers))


def gates_of(
    pack: SteeringPack,
    probes: Sweep | Probe | Sequence[Probe],
    layers: int | Sequence[int] | None,
) -> Readout | None:
    """See `SteeringPack.with_readout`; None if there is no probe that could decide."""
    given = _fitted(probes)
    have = given.layers
    if layers is not None:
        return given.at(have, {layers} if isinstance(layers, int) else set(layers))
    wanted: set[int] = set()
    for mode in pack.modes:
        for emotion in pack.emotions:
            first = pack.begins(mode, [emotion])
            early = [n for n in have if first is not None and decided(first, n)]
            # As for `Sweep.best`, the embeddings are the last resort: they know only the word.
            early = [n for n in early if n != EMBEDDINGS] or early
            wanted |= {max(early, key=lambda n: given.scores[have[n]])} if early else set()
    return given.at(have, wanted) if wanted else None


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Linear probes of several places, whatever they come from.

    Attributes:
        classes: What they tell apart.
        layers: Blocks after which they read the residual stream, and their places in what follows.
        best: The block to read after; None: all of them.
        scores: How good each of them is.
        weights, bias: Of all.
    """

    classes: tuple[str, ...]
    layers: Mapping[int, int]
    best: int | None
    scores: Sequence[float]
    weights: Float[Tensor, "site label d_model"]
    bias: Float[Tensor, "site label"]

    def at(self, have: Mapping[int, int], layers: set[int]) -> Readout:
        """Those of some blocks."""
        for layer in sorted(layers):
            if layer not in have:
                raise unknown("probe layer", layer, [str(n) for n in have])
        rows = [have[layer] for layer in sorted(layers)]
        return Readout(self.classes, tuple(sorted(layers)), self.weights[rows], self.bias[rows])


def _fitted(probes: Sweep | Probe | Sequence[Probe]) -> _Fitted:
    from affectlens.probes import Probe

    if isinstance(probes, Probe):
        probes = [probes]
    if not isinstance(probes, Sequence):
        scores = probes.cv_accuracy.amax(1).tolist()
        layers, best = _layers_of(probes.sites), probes.best.layer
        return _Fitted(tuple(probes.classes), layers, best, scores, probes.weights, probes.bias)
    if not probes or len({one.classes for one in probes}) > 1:
        raise DataError("A pack takes probes that tell the same classes apart; give at least one.")
    layers = _layers_of([one.site for one in probes])
    if len(layers) < len(probes):
        raise DataError(
            "A pack reads the residual stream, one probe after a block; give probes of resid_post "
            "at different layers (resid_pre of layer 0 for the embeddings)."
        )
    weights, bias = zip(*(one.folded() for one in probes), strict=True)
    # The later of two decides better, having read more.
    order = [float(one.site.layer) for one in probes]
    return _Fitted(probes[0].classes, layers, None, order, torch.stack(weights), torch.stack(bias))


def _layers_of(sites: Sequence[Site]) -> dict[int, int]:
    """Layers at which probes read the residual stream, and their places among them."""
    after = {site.layer: i for i, site in enumerate(sites) if site.kind == "resid_post"}
    before = {site.layer - 1: i for i, site in enumerate(sites) if site.kind == "resid_pre"}
    return dict(sorted((before | after).items()))


def pack_provenance(model: LanguageModel, source: Provenance, **parameters: Any) -> Provenance:
    """What made a pack: a source of vectors, and what was done to it."""
    if model.template_variables:
        parameters["template_variables"] = dict(model.template_variables)
    return Provenance(
        "pack",
        model=model.fingerprint,
        model_name=model.name,
        corpus=source.corpus,
        parameters=parameters,
        inputs={source.kind: source.fingerprint},
    )
