"""Step ``directions``: group-centred directions at both sublayers, from prompts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations import capture
from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.influence import band
from affectlens.circuits.last_token_replay import in_float
from affectlens.core import EMOTIONS, DataError, Site
from affectlens.core.artefact import write_json
from affectlens.geometry import directions as find_directions
from affectlens.geometry.estimators.means import centred
from affectlens.geometry.grouping import bootstraps
from affectlens.reproductions.comparison import Finding, save_findings
from affectlens.reproductions.emotion_circuits import RAW_LAST
from affectlens.reproductions.emotion_circuits.depth import first_above, neighbours, silhouettes
from affectlens.reproductions.emotion_circuits.elicit_step import ELICITED, accepted, complete
from affectlens.reproductions.emotion_circuits.replies import load_said
from affectlens.reproductions.emotion_circuits.scenarios import FILE, elicited, load_events
from affectlens.reproductions.emotion_circuits.settings import PaperSettings, scaled

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry import Directions
    from affectlens.models import LanguageModel
    from affectlens.reproductions.study import StudyRun

DIRECTIONS = "directions.safetensors"
SIGMA = "sigma.json"
FINDINGS = "directions.json"
_PAIRS = (
    ("anger", "disgust"),
    ("sadness", "fear"),
    ("anger", "fear"),
    ("happiness", "anger"),
)
Grid = Mapping[Site, Float[Tensor, "group emotion d_model"]]


def work(run: StudyRun) -> list[str]:
    """Read the last prompt token of accepted prompts, centre within groups, look along depth."""
    settings: PaperSettings = run.settings
    model, normed = run.model, not run.corrected(RAW_LAST)
    fit = complete_groups(run)
    rows = read_groups(model, fit, normed=normed)
    found = find_directions(rows, emotions=EMOTIONS, seed=run.option("seed"))
    found = replace(
        found,
        provenance=replace(
            found.provenance,
            model=model.fingerprint,
            model_name=model.name,
            corpus=fit.fingerprint,
            parameters={**found.provenance.parameters, "last_block_after_norm": normed},
        ),
    )
    found.save(run.folder / DIRECTIONS)
    rms = {site: float(x.square().mean(-1).sqrt().mean()) for site, x in rows.items()}
    sigma = [[rms[Site(i, kind)] for kind in _KINDS] for i in range(model.n_layers)]
    write_json(run.folder / SIGMA, {"sigma": sigma})
    tested = elicited(load_events(run.input("scenarios", FILE), "test"))
    unseen = read_groups(model, tested, normed=normed)
    findings, profile = _clusters(found, unseen, settings, run.option("seed"))
    save_findings(
        run.folder / FINDINGS,
        [
            *_along_depth(model, found),
            *_between_emotions(rows, settings, run.option("seed")),
            *findings,
        ],
        profile,
    )
    return [DIRECTIONS, SIGMA, FINDINGS]


_KINDS = ("resid_mid", "resid_post")


def complete_groups(run: StudyRun) -> Corpus:
    """Fitting prompts of the contents whose replies were accepted under every emotion.

    Raises:
        DataError: If there are too few of them.
    """
    settings: PaperSettings = run.settings
    replies = load_said(run.input("elicit", ELICITED))
    kept = complete(accepted(replies, run.option("accept")))
    events = load_events(run.input("scenarios", FILE), "fit")
    chosen = [event for event in events if event.group in kept]
    if len(chosen) < settings.min_groups:
        raise DataError(
            f"Only {len(chosen)} of {len(events)} groups have replies accepted under all six "
            f"emotions, and directions need {settings.min_groups}; name a model that follows "
            "instructions better, use more --groups, or keep every prompt with --accept all."
        )
    return elicited(chosen)


def read_groups(model: LanguageModel, corpus: Corpus, *, normed: bool) -> Grid:
    """The last prompt token of complete groups at both sublayers of every layer.

    Args:
        model: The model.
        corpus: Each content under each emotion, in order.
        normed: Read the last block after the final norm, as ``hidden_states[-1]`` is.

    Raises:
        DataError: If the model has no residual between attention and MLP.
    """
    if not model.anatomy.has_resid_mid:
        raise DataError(
            f"{model.name} adds attention and MLP at once, so there is no residual between them; "
            "this study reads one, so name a model with sequential blocks."
        )
    sites = [Site(layer, kind) for layer in range(model.n_layers) for kind in _KINDS]
    store = capture(model, corpus, sites=sites, positions="last", dtype="float32")
    found = {site: store.to_torch(site, "last").unflatten(0, (-1, len(EMOTIONS))) for site in sites}
    if normed:
        last, device = sites[-1], model.device
        with torch.no_grad():
            after = in_float(model.anatomy.final_norm, found[last].to(device))
        found[last] = after.cpu()
    return found


def _along_depth(model: LanguageModel, found: Directions) -> list[Finding]:
    vectors = sublayer_directions(found, model.anatomy).vectors
    near = neighbours(vectors, band(model.n_layers, "late"))
    halves = found.split_half
    control = None if halves is None else float(halves.mean())

    def finding(id_: str, values: Float[Tensor, " emotion"]) -> Finding:
        spread = f"{float(values.min()):.2f} to {float(values.max()):.2f} over emotions"
        return Finding(
            id_,
            float(values.mean()),
            control=control,
            beside="cosine of two halves of the groups, mean of sites",
            note=spread,
        )

    return [
        finding("cosine.same_layer", near.same_layer),
        finding("cosine.next_layer", near.next_layer),
        finding("cosine.off_diagonal", near.off_diagonal),
        finding("cosine.band", near.band),
        finding("cosine.band_min", near.band_min),
    ]


def _between_emotions(rows: Grid, settings: PaperSettings, seed: int) -> list[Finding]:
    n_layers = 1 + max(site.layer for site in rows)
    site = Site(scaled(settings.similarity_layer, n_layers), "resid_post")
    grid = rows[site]
    weight = torch.cat([torch.ones(1, len(grid)), bootstraps(len(grid), settings.bootstrap, seed)])
    vectors = torch.nn.functional.normalize(centred(grid, weight), dim=-1)
    cosines = vectors @ vectors.transpose(1, 2)
    apart = ~torch.eye(len(EMOTIONS), dtype=torch.bool)
    values = {"mean": cosines[:, apart].mean(1)}
    for pair in _PAIRS:
        i, j = (EMOTIONS.index(emotion) for emotion in pair)
        values["_".join(pair)] = cosines[:, i, j]
    findings: list[Finding] = []
    for name, each in values.items():
        low, high = np.quantile(each[1:].numpy(), [0.025, 0.975]).tolist()
        findings.append(
            Finding(
                f"emotions.{name}",
                float(each[0]),
                low,
                high,
                -1 / (len(EMOTIONS) - 1),
                "centred directions average this by construction",
                f"at {site.hook_name}",
            )
        )
    return findings


def _clusters(
    found: Directions, unseen: Grid, settings: PaperSettings, seed: int
) -> tuple[list[Finding], dict[str, list[float]]]:
    sites: Sequence[Site] = tuple(site for site in unseen if site.kind == "resid_post")
    vectors = torch.stack([found.vectors[found.site_index(site)] for site in sites])
    seen, chance = silhouettes(
        vectors, [unseen[site] for site in sites], draws=settings.draws, seed=seed
    )
    limits = np.quantile(chance, 0.95, axis=0)
    appear = first_above(seen.tolist(), limits.tolist())
    half = first_above(seen.tolist(), [max(float(seen.max()) / 2, 0.0)] * len(sites))
    n, best = len(sites), int(seen.argmax())
    control = f"{float(seen[best]):.2f} at layer {best}, permuted {float(limits[best]):.2f}"

    def finding(id_: str, layer: int | None) -> Finding:
        return Finding(
            id_,
            "never" if layer is None else layer / n,
            control=control,
            beside="highest silhouette of unseen groups, and of permuted emotions (95 %)",
            note="" if layer is None else f"layer {layer} of {n}",
        )

    profile = {"silhouette": seen.tolist(), "permuted_95": limits.tolist()}
    return [finding("clusters.appear", appear), finding("clusters.half", half)], profile
