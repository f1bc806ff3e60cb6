"""Words that name a feeling, to see where a text says what it should only let show."""

from __future__ import annotations

import re
from collections.abc import Mapping

from affectlens.core import EMOTIONS

# Regular expressions for whole words; a trailing * stands for any ending.
_STEMS: Mapping[str, str] = {
    "anger": "anger angers angered angry angrily furious* fury rage raged raging mad madden* annoy*"
    " irritat* frustrat* outrage* livid resent* hate hated hates hatred",
    "disgust": "disgust* gross grossed revolt* revulsion repuls* repugnan* nauseat* loath* vile",
    "fear": "fear fears feared fearful* afraid scare scares scared scary terrif* terror anxi*"
    " worry worries worried worrying nervous* panic* dread dreads dreaded dreadful* frighten*"
    " fright horrif*",
    "happiness": "happy happily happier happiest happiness joy joyful* joyous* delight* glad gladly"
    " thrill* excit* cheerful* pleased proud proudly pride grateful* gratitude relief relieved"
    " enjoy* love loved loves lovely wonderful* content contented elat* overjoyed",
    "sadness": "sad sadly sadder saddest sadness sadden* unhapp* grief griev* sorrow* miserabl*"
    " misery depress* cry cries cried crying tears lonely lonel* heartbr* mourn* disappoint*"
    " upset upsetting regret*",
    "surprise": "surpris* astonish* amaz* astound* shock shocked shocking* stunned stunning*"
    " startl* unbeliev*",
    "other": "hope hoped hopes hopeful* hoping embarrass* ashamed shame shameful* guilt guilty"
    " jealous* envy envious* awful* terribl*",
}


def _pattern(stems: str) -> re.Pattern[str]:
    words = "|".join(re.escape(s).replace(r"\*", r"[a-z]*") for s in stems.split())
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE)


_PATTERNS = {emotion: _pattern(stems) for emotion, stems in _STEMS.items()}
_ANY = _pattern(" ".join(_STEMS.values()))


def affect_words(text: str, emotion: str | None = None) -> list[str]:
    """The words of a text that name a feeling, in order.

    Args:
        text: Any English text.
        emotion: Only words that name this one (one of Ekman's six).
    """
    if emotion is not None and emotion not in EMOTIONS:
        return []
    return (_ANY if emotion is None else _PATTERNS[emotion]).findall(text)
