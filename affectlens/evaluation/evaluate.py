"""Arms of a steering comparison in one call, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from affectlens.core.errors import DataError
from affectlens.core.progress import progress
from affectlens.datasets import load, spread
from affectlens.evaluation.arm_metrics import ArmMetrics, measure
from affectlens.evaluation.arms import ARMS, MAIN, UNSTEERED
from affectlens.evaluation.replies import arm_requests, generate_replies
from affectlens.models.generation.decoding import GenerationSettings

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.steering import SteeringPack


def evaluate(
    model: LanguageModel,
    pack: SteeringPack,
    *,
    arms: Sequence[str] = ("prompted", "residual", "circuit"),
    n_events: int = 8,
    generation: GenerationSettings | None = None,
) -> dict[str, ArmMetrics]:
    """Generate the replies of some arms to test events, and measure them with the blind judge.

    Args:
        model: Generates, and puts a perplexity on every reply.
        pack: Steers, at the strengths that it recommends.
        arms: Names in `affectlens.evaluation.ARMS` of what one pack does; modes that the pack lacks
            are left out. The unsteered arm is always there, as what all others are relative to.
        n_events: Of the test split, spread over its scenarios; the more, the narrower the
            intervals.
        generation: Of all arms alike; default: greedy, 40 tokens.

    Returns:
        Measures by arm, for `affectlens.plot` and `pandas`.

    Raises:
        UnknownNameError: If there is no such arm.
        DataError: If an arm is a control, which steers with a pack of its own.
    """
    from affectlens.evaluation.judges import load_judge
    from affectlens.evaluation.topic import Embedder

    settings = generation or GenerationSettings()
    events = spread(load("events").filter(split="test"), n_events)
    controls = [a for a in arms if ARMS[a].pack not in (None, MAIN)]
    if controls:
        raise DataError(
            f"{', '.join(controls)}: a control steers with a pack of its own, not with this one; "
            "`affectlens evaluate` makes the packs of all arms and compares them."
        )
    wanted = [a for a in arms if a != UNSTEERED and ARMS[a].mode in ("", *pack.modes)]
    requests = {a: arm_requests(a, events, pack.emotions) for a in (UNSTEERED, *wanted)}
    judge, lexicon, embed = load_judge("encoder"), load_judge("lexicon"), Embedder()
    with progress("evaluating arms", sum(map(len, requests.values()))) as advance:
        replies = {
            arm: generate_replies(model, arm, asked, settings, pack=pack, advance=advance)
            for arm, asked in requests.items()
        }
    return {
        arm: measure(
            said,
            replies[UNSTEERED],
            judge=judge,
            lexicon=lexicon,
            embed=embed,
            emotions=pack.emotions,
        )
        for arm, said in replies.items()
    }
