"""Models and corpora as activations: one store for each pair, shared by all that is read of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core.artefact import fingerprint
from affectlens.core.places import Site, expand_sites
from affectlens.probes.fitting import EMBEDDINGS

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore
    from affectlens.datasets import Corpus
    from affectlens.models import LanguageModel
    from affectlens.sweeps.request import SweepRequest

STORES = "stores"
_STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass
class Reader:
    """Reads corpora through one model of a sweep; the model is loaded when it is first needed.

    Attributes:
        request: What is asked.
        name: Of the model, as it was asked for.
    """

    request: SweepRequest
    name: str

    @cached_property
    def model(self) -> LanguageModel:
        """The model itself."""
        from affectlens.models import load_model

        return load_model(self.name, device=self.request.device, dtype=self.request.dtype)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Those asked for, and the embeddings where they are as wide."""
        found = expand_sites(self.request.sites, self.model.n_layers)
        wide = all(site.kind in _STREAM for site in found)
        return (EMBEDDINGS, *(s for s in found if s != EMBEDDINGS)) if wide else found

    def kinds(self) -> dict[str, tuple[Site, ...]]:
        """Sites that are swept together: of a kind, with the embeddings before the first block."""
        kinds = dict.fromkeys(site.kind for site in self.sites if site != EMBEDDINGS)
        if not kinds:
            return {EMBEDDINGS.kind: self.sites}
        with_embeddings = self.sites[:1] if EMBEDDINGS in self.sites else ()
        return {
            kind: (*with_embeddings, *(s for s in self.sites if s.kind == kind and s != EMBEDDINGS))
            for kind in kinds
        }

    def read(
        self, corpus: Corpus, what: str, model: LanguageModel | None = None
    ) -> ActivationStore:
        """The store of a corpus; captured if it is not there, gone on with if it is unfinished.

        Args:
            corpus: Texts.
            what: Names the folder, with a hash of all that tells stores apart.
            model: Another model of the same shape; default: this one.
        """
        from affectlens.activations import capture
        from affectlens.activations.readable import readable

        corpus = readable(self.model, corpus)  # the same texts, whatever model reads them
        model = model or self.model
        sites = [site.hook_name for site in self.sites]
        told = fingerprint(model.fingerprint, corpus.fingerprint, sites, self.request.positions)
        folder = f"{slug(self.name)}-{slug(what)}-{told[:8]}"
        return capture(
            model,
            corpus,
            sites=self.sites,
            positions=self.request.positions,
            out=self.request.out / STORES / folder,
        )


def slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^\w.-]+", "_", Path(name).name)[:40]
