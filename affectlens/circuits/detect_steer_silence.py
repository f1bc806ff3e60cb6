"""Does a probe's direction detect, steer and silence? Three questions with three answers.

A direction may tell an emotion perfectly and be used by nothing. So beside its held-out AUROC stand
what a push along it does to what the model goes on with, and what is left of the model's own
behaviour when the direction, or all that linear probes can read there (LEACE), is erased; each
beside random directions or subspaces of equal rank, with an interval over scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from affectlens.activations.store.store import ActivationStore
from affectlens.circuits.beside_random import adjusted, effect_beside
from affectlens.circuits.causal_table import CausalRow, CausalTable, Effect
from affectlens.circuits.probe_effects import Asked, Stream, slope
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import Site
from affectlens.core.statistics import LEVEL, times_drawn
from affectlens.geometry.leace import Eraser, fit_leace
from affectlens.probes.scores import area_under_curve

if TYPE_CHECKING:
    from affectlens.circuits.tasks.base import Task
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel
    from affectlens.probes.sweep import Sweep

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class CausalSettings:
    """How directions are tried.

    Attributes:
        doses: Pushes, in distances between an emotion's mean and the others' along the direction.
        draws: Random directions, and random subspaces, beside each; of each emotion its own.
        resamples: Bootstrap draws of scenarios.
        seed: Of both.
    """

    doses: Sequence[float] = (-1.0, 1.0)
    draws: int = 3
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise DataError(
                "How far random directions differ takes two of them at least; ask for more draws."
            )


@dataclass(frozen=True, eq=False)
class _Place:
    """One site: directions of the emotions, their natural doses, and what there is to erase."""

    stream: Stream
    units: Float[Tensor, "emotion d"]
    doses: Float[Tensor, " emotion"]
    auroc: Sequence[tuple[float, float, float]]
    mean: Float[Tensor, " d"]
    leace: Eraser


def detect_steer_silence(
    model: LanguageModel,
    sweep: Sweep,
    store: ActivationStore,
    tasks: Mapping[str, Task],
    *,
    sites: Sequence[str | Site] | None = None,
    steering: Directions | None = None,
    settings: CausalSettings | None = None,
    advance: Callable[[int], object] = lambda _n: None,
) -> CausalTable:
    """Try the directions of a sweep's probes.

    Args:
        model: The sweep's.
        sweep: Probes of ``resid_post``.
        store: The rows they were fitted on; its test split is what they are judged by.
        tasks: By name, of continuations (carry-over, recognition); pushes are judged by the first.
        sites: Which of the sweep's; default: its best.
        steering: Directions that are known to steer, for the cosine with them.
        settings: See `CausalSettings`.
        advance: Told how many conditions of `conditions` are done.

    Raises:
        MismatchError: If sweep or store are of another model.
        DataError: If there is no test split, no task, or their emotions are none of the sweep's.
        UnknownNameError: If the sweep has no such site.
    """
    settings = settings or CausalSettings()
    for made in (sweep, store):
        made.provenance.require_model(model.fingerprint, model.name)
    if not tasks:
        raise DataError("There is no task to judge by; give one, for example carry_over.")
    chosen = [sweep.best] if sites is None else [_site(one) for one in sites]
    emotions = next(iter(tasks.values())).emotions
    for name in emotions:
        if name not in sweep.classes:
            raise unknown("emotion of these probes", name, sweep.classes)
    for site in chosen:
        if site.kind != "resid_post":
            raise DataError(f"{site.hook_name} cannot be written; name sites of resid_post.")
        sweep.index(site)
    rows = list[CausalRow]()
    for site in chosen:
        place = _place(sweep, store, site, emotions, settings)
        rows += _rows_of(model, place, tasks, emotions, steering, settings, advance)
    return CausalTable(
        tuple(tasks),
        tuple(rows),
        Provenance(
            "causal_table",
            model=model.fingerprint,
            model_name=model.name,
            corpus=store.provenance.corpus,
            parameters={
                "doses": list(settings.doses),
                "draws": settings.draws,
                "resamples": settings.resamples,
                "seed": settings.seed,
                "sites": [site.hook_name for site in chosen],
                "tasks": {name: task.fingerprint for name, task in tasks.items()},
            },
            inputs={
                "sweep": sweep.provenance.fingerprint,
                "activations": store.fingerprint,
                **({"directions": steering.provenance.fingerprint} if steering else {}),
            },
        ),
    )


def conditions(tasks: int, emotions: int, sites: int, settings: CausalSettings) -> int:
    """How many conditions are run in all."""
    pushes = (1 + settings.draws) * len(settings.doses)
    erasures = 1 + 2 * (1 + settings.draws)
    return sites * emotions * (pushes + tasks * erasures)


def _site(one: str | Site) -> Site:
    return Site.parse(one) if isinstance(one, str) else one


def _place(
    sweep: Sweep,
    store: ActivationStore,
    site: Site,
    emotions: Sequence[str],
    settings: CausalSettings,
) -> _Place:
    position = str(sweep.provenance.parameters.get("position") or store.default_position())
    labels, splits = store.column("emotion", position), store.column("split", position)
    groups = store.column("scenario", position)
    known = [i for i, name in enumerate(labels) if name in sweep.classes]
    x = store.to_torch(site, position)[known].double()
    y = torch.tensor([sweep.classes.index(labels[i]) for i in known])
    test = torch.tensor([splits[i] == "test" for i in known])
    if not bool(test.any()) or bool(test.all()):
        raise DataError(
            "The store has no test split beside rows to fit on, which directions are judged by; "
            "capture both."
        )
    weights = sweep.weights[sweep.index(site)].double()
    units, doses, auroc = list[Tensor](), list[float](), list[tuple[float, float, float]]()
    own_groups = [str(groups[known[int(i)]]) for i in test.nonzero()[:, 0]]
    for emotion in emotions:
        k = sweep.classes.index(emotion)
        unit = normalize(weights[k], dim=0)
        along = x @ unit
        mine = (y == k) & ~test
        units.append(unit)
        doses.append(float(along[mine].mean() - along[~mine & ~test].mean()))
        auroc.append(_auroc(along[test], y[test] == k, own_groups, settings))
    return _Place(
        Stream.of(site, x),
        torch.stack(units).float(),
        torch.tensor(doses),
        auroc,
        x[~test].mean(0),
        fit_leace(x[~test], y[~test]),
    )


def _auroc(
    score: Tensor, hit: Tensor, groups: Sequence[str], settings: CausalSettings
) -> tuple[float, float, float]:
    """Area under the ROC curve and its interval, drawing whole scenarios."""
    names, owner = np.unique(np.asarray(groups), return_inverse=True)
    times = times_drawn(len(names), settings.resamples, settings.seed)
    times = np.concatenate([np.ones((1, len(names))), times])
    areas = area_under_curve(score.numpy(), hit.numpy(), owner, times)
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(areas[1:], [tail, 1 - tail])
    return float(areas[0]), float(low), float(high)


def _rows_of(
    model: LanguageModel,
    place: _Place,
    tasks: Mapping[str, Task],
    emotions: Sequence[str],
    steering: Directions | None,
    settings: CausalSettings,
    advance: Callable[[int], object],
) -> list[CausalRow]:
    generator = torch.Generator().manual_seed(settings.seed)
    d, many = place.units.shape[1], (len(emotions), settings.draws)
    lines = torch.randn(*many, 1, d, generator=generator)
    planes = torch.randn(*many, place.leace.rank, d, generator=generator)
    found = list[tuple[Effect, dict[str, Effect], dict[str, Effect]]]()
    first = next(iter(tasks.values()))
    asked_of = {"resamples": settings.resamples, "seed": settings.seed}
    for e in range(len(emotions)):
        pushed = Asked.of(first, e, own=False)
        vectors = [place.units[e], *(normalize(line[0], dim=0) for line in lines[e])]
        slopes = list[Floats]()
        for vector in vectors:
            dose = float(place.doses[e])
            slopes.append(slope(pushed, model, place.stream, dose * vector, settings.doses))
            advance(len(settings.doses))
        steers = effect_beside(slopes, pushed.scenarios, **asked_of)
        single, whole = dict[str, Effect](), dict[str, Effect]()
        for name, task in tasks.items():
            asked = Asked.of(task, e, own=True)
            base = asked.margins(model)
            advance(1)
            for into, erasers in (
                (single, [_out(place.units[e][None], place), *(_out(v, place) for v in lines[e])]),
                (whole, [place.leace, *(_out(v, place) for v in planes[e])]),
            ):
                falls = list[Floats]()
                for eraser in erasers:
                    falls.append(base - asked.margins(model, place.stream.erased(eraser)))
                    advance(1)
                into[name] = effect_beside(falls, asked.scenarios, **asked_of)
        found.append((steers, single, whole))
    p = _adjusted(found, settings.draws)
    return [
        CausalRow(
            site=place.stream.site.hook_name,
            emotion=emotion,
            auroc=place.auroc[e],
            steers=found[e][0],
            silences=found[e][1],
            erased=found[e][2],
            cosine=_cosine(steering, place, e, emotion),
        ).adjusted(p[e])
        for e, emotion in enumerate(emotions)
    ]


def _out(directions: Tensor, place: _Place) -> Eraser:
    return Eraser.of_subspace(directions, place.mean)


def _adjusted(
    found: Sequence[tuple[Effect, dict[str, Effect], dict[str, Effect]]], draws: int
) -> list[dict[str, float]]:
    """p of each emotion, each question's corrected for as many emotions as are asked about."""
    keys: list[tuple[str, Callable[[Any], Effect]]] = [("steers", lambda one: one[0])]
    for name in found[0][1]:
        keys.append((f"silences.{name}", lambda one, n=name: one[1][n]))
        keys.append((f"erased.{name}", lambda one, n=name: one[2][n]))
    p = {key: adjusted([get(one) for one in found], draws) for key, get in keys}
    return [{key: float(of[e]) for key, of in p.items()} for e in range(len(found))]


def _cosine(steering: Directions | None, place: _Place, e: int, emotion: str) -> float | None:
    site = place.stream.site
    if steering is None or site not in steering.sites or emotion not in steering.emotions:
        return None
    return float(normalize(steering.vector(emotion, site).float(), dim=0) @ place.units[e])
