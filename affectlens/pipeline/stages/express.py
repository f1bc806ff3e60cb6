"""The stage ``express``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.core.progress import progress
from affectlens.pipeline.corpus_files import EXPRESSION, save_corpus
from affectlens.pipeline.settings import ExpressSettings
from affectlens.pipeline.stage import StageRun


def express(run: StageRun) -> Sequence[str]:
    """Let the model express each emotion, and pool that with the authored texts."""
    from affectlens.pipeline import expression

    settings: ExpressSettings = run.settings
    n = settings.n_events * len(settings.emotions)
    with progress("continuing openers", n) as advance:
        corpus = expression.express(run.model, settings, advance=advance)
    save_corpus(corpus, run.folder / EXPRESSION)
    return [EXPRESSION]
