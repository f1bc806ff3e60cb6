"""The stage ``activations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from affectlens.core.artefact import file_fingerprint
from affectlens.pipeline.corpus_files import expressed
from affectlens.pipeline.settings import ActivationsSettings
from affectlens.pipeline.stage import StageRun

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore

FOLDER = "activations"


def activations(run: StageRun) -> Mapping[str, str]:
    """Keep activations: of matched replies for the probes, of expression for the directions."""
    from affectlens.activations import capture
    from affectlens.datasets.spreading import some_scenarios

    settings: ActivationsSettings = run.settings
    replies = run.corpus("replies")
    if settings.per_split is not None:
        replies = some_scenarios(replies, settings.per_split)
    corpora = {
        "replies": (replies, settings.replies_sites),
        "expression": (expressed(run), settings.expression_sites),
    }
    written: dict[str, str] = {}
    for name, (corpus, sites) in corpora.items():
        if not run.model.anatomy.has_resid_mid:
            sites = sites.replace("resid_mid,", "")
        # Goes on where a stopped run was; what other parameters made is replaced.
        store = capture(
            run.model,
            corpus,
            sites=sites,
            positions=settings.position,
            dtype=settings.dtype,
            max_tokens_per_batch=settings.max_tokens_per_batch,
            overlong=settings.overlong,
            out=run.folder / FOLDER / name,
            resume=not run.force,
            force=True,
        )
        written |= {f"{FOLDER}/{name}/{file}": sha for file, sha in checksums(store).items()}
    return written


def checksums(store: ActivationStore) -> Mapping[str, str]:
    """Of every file of a store that was just written or checked: its manifest knows them."""
    from affectlens.activations.store.manifest import MANIFEST

    manifest, path = store.manifest, store.path
    assert manifest is not None and path is not None
    files = {entry.file: entry.sha256 for entry in (manifest.table, *manifest.entries)}
    return {MANIFEST: file_fingerprint(path / MANIFEST), **files}
