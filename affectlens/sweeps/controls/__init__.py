"""What stands beside a probe, each control in a file of its own."""

from affectlens.core.registry import Registry
from affectlens.sweeps.controls.bag_of_words import BAG_OF_WORDS
from affectlens.sweeps.controls.base import Control, Setting
from affectlens.sweeps.controls.char_ngrams import CHAR_NGRAMS
from affectlens.sweeps.controls.control_task import CONTROL_TASK
from affectlens.sweeps.controls.description_length import DESCRIPTION_LENGTH
from affectlens.sweeps.controls.keywords import KEYWORDS
from affectlens.sweeps.controls.majority import MAJORITY
from affectlens.sweeps.controls.permutation import PERMUTATION
from affectlens.sweeps.controls.static_embeddings import STATIC_EMBEDDINGS
from affectlens.sweeps.controls.surface import SURFACE
from affectlens.sweeps.controls.untrained import UNTRAINED
from affectlens.sweeps.controls.zero_shot import ZERO_SHOT

CONTROLS: Registry[Control] = Registry(
    "control",
    MAJORITY,
    PERMUTATION,
    CONTROL_TASK,
    DESCRIPTION_LENGTH,
    SURFACE,
    BAG_OF_WORDS,
    CHAR_NGRAMS,
    STATIC_EMBEDDINGS,
    UNTRAINED,
    ZERO_SHOT,
    KEYWORDS,
)
"""Every control, in the order in which reports show them."""

__all__ = ["CONTROLS", "Control", "Setting"]
