"""The stage ``express``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.core.progress import progress
from affectlens.pipeline.corpus_files import EXPRESSION, save_corpus
from affectlens.pipeline.settings import ExpressSettings
from affectlens.pipeline.stage import StageRun


def express(run: StageRun) -> Sequence[str]:
    """Let the model express each emotion, and pool that with the authored texts.

    Of a user's own labels it does so if there are openers, and is pooled with the user's texts.
    """
    from affectlens.pipeline import expression

    settings: ExpressSettings = run.settings
    texts = expression.tones_as_replies(run.corpus("tones"), settings.emotions)
    own = None
    if run.openers:
        n = settings.n_events * len(settings.emotions)
        with progress("continuing openers", n) as advance:
            own = expression.own_replies(
                run.model, settings, run.corpus("events"), run.openers, advance=advance
            )
    save_corpus(expression.pooled(own, texts), run.folder / EXPRESSION)
    return [EXPRESSION]
