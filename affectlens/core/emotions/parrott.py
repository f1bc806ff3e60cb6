"""Parrott's three tiers: 6 primary emotions, 25 secondary ones, 135 words.

Parrott, 2001, "Emotions in Social Psychology", after Shaver, Schwartz, Kirson and O'Connor, 1987,
"Emotion knowledge", Journal of Personality and Social Psychology 52, 1061-1086.
"""

from __future__ import annotations

from collections.abc import Mapping

SOURCE = "Parrott, 2001, Emotions in Social Psychology, after Shaver et al., 1987"

TREE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    primary: {secondary: tuple(words.split()) for secondary, words in below.items()}
    for primary, below in {
        "love": {
            "affection": "adoration affection love fondness liking attraction caring tenderness "
            "compassion sentimentality",
            "lust": "arousal desire lust passion infatuation",
            "longing": "longing",
        },
        "joy": {
            "cheerfulness": "amusement bliss cheerfulness gaiety glee jolliness joviality joy "
            "delight enjoyment gladness happiness jubilation elation satisfaction ecstasy euphoria",
            "zest": "enthusiasm zeal zest excitement thrill exhilaration",
            "contentment": "contentment pleasure",
            "pride": "pride triumph",
            "optimism": "eagerness hope optimism",
            "enthrallment": "enthrallment rapture",
            "relief": "relief",
        },
        "surprise": {"surprise": "amazement surprise astonishment"},
        "anger": {
            "irritation": "aggravation irritation agitation annoyance grouchiness grumpiness",
            "exasperation": "exasperation frustration",
            "rage": "anger rage outrage fury wrath hostility ferocity bitterness hate loathing "
            "scorn spite vengefulness dislike resentment",
            "disgust": "disgust revulsion contempt",
            "envy": "envy jealousy",
            "torment": "torment",
        },
        "sadness": {
            "suffering": "agony suffering hurt anguish",
            "sadness": "depression despair hopelessness gloom glumness sadness unhappiness grief "
            "sorrow woe misery melancholy",
            "disappointment": "dismay disappointment displeasure",
            "shame": "guilt shame regret remorse",
            "neglect": "alienation isolation neglect loneliness rejection homesickness defeat "
            "dejection insecurity embarrassment humiliation insult",
            "sympathy": "pity sympathy",
        },
        "fear": {
            "horror": "alarm shock fear fright horror terror panic hysteria mortification",
            "nervousness": "anxiety nervousness tenseness uneasiness apprehension worry distress "
            "dread",
        },
    }.items()
}
"""Primary → secondary → words."""

PRIMARY: tuple[str, ...] = tuple(TREE)
SECONDARY: Mapping[str, str] = {s: p for p, below in TREE.items() for s in below}
"""Secondary → its primary."""
TERTIARY: Mapping[str, str] = {
    word: s for below in TREE.values() for s, words in below.items() for word in words
}
"""Word → its secondary."""
