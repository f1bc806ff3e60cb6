"""A corpus of groups: events seen under every tone, as long and as unlike as real ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from affectlens.core.emotions import EMOTIONS, NEUTRAL
from affectlens.datasets.schema import Corpus, Message, Record

_TEXT = (
    "the train was late again and she left him there in dark rain with a person who felt "
    "happy about it all that day so I am not sure what you said to them they were afraid"
)
_WORDS = _TEXT.split()
_ENDINGS = {
    "anger": "I am so angry about it.",
    "disgust": "You feel disgust, all of you.",
    "fear": "I am afraid of the dark.",
    "happiness": "What a lovely day!",
    "sadness": "He was sad when they left.",
    "surprise": "What, a surprise?",
    NEUTRAL: "The train was there.",
}
VALENCES = ("positive", "negative")


def replies(
    n_scenarios: int = 6,
    tones: Sequence[str] = (*EMOTIONS, NEUTRAL),
    without: Collection[tuple[int, str, str]] = (),
    seed: int = 0,
) -> Corpus:
    """Scenario × valence × tone in random order; the group is the scenario alone.

    Args:
        n_scenarios: How many.
        tones: Which tones.
        without: Scenario, valence and tone of texts to leave out.
        seed: Of words, lengths and order.
    """
    rng = random.Random(seed)
    records: list[Record] = []
    for scenario in range(n_scenarios):
        for valence in VALENCES:
            event = " ".join(rng.choices(_WORDS, k=rng.randint(1, 12)))
            for tone in tones:
                reply = " ".join([*rng.choices(_WORDS, k=rng.randint(0, 8)), _ENDINGS[tone]])
                if (scenario, valence, tone) in without:
                    continue
                records.append(
                    Record(
                        id=f"s{scenario}-{valence}-{tone}",
                        messages=(Message("user", event), Message("assistant", reply)),
                        emotion=tone,
                        valence=valence,
                        group=f"s{scenario}",
                        theme="work" if scenario % 2 else "home",
                        split="fit",
                    )
                )
    rng.shuffle(records)
    return Corpus("grouped", "replies", tuple(records))
