"""Ways to make a model show an emotion, one file and one row each: vectors from a source, an
operator, a gate and positions; words; or both; and the controls that they must beat."""

from affectlens.core.registry import Registry
from affectlens.steering.methods.attention_output import ATTENTION_OUTPUT
from affectlens.steering.methods.base import Material, Method, Turns, Wording
from affectlens.steering.methods.best_heads import BEST_HEADS
from affectlens.steering.methods.circuit import CIRCUIT
from affectlens.steering.methods.circuit_analytic import CIRCUIT_ANALYTIC
from affectlens.steering.methods.circuit_reps import CIRCUIT_REPS
from affectlens.steering.methods.clamped import CLAMPED
from affectlens.steering.methods.controls import OTHER_EMOTION, RANDOM_DIRECTION, RANDOM_UNITS
from affectlens.steering.methods.emotion_prompt import EMOTION_PROMPT
from affectlens.steering.methods.few_shot import FEW_SHOT
from affectlens.steering.methods.group_centred import GROUP_CENTRED
from affectlens.steering.methods.instruction import INSTRUCTION
from affectlens.steering.methods.k_steering import K_STEERING
from affectlens.steering.methods.keep_norm import KEEP_NORM
from affectlens.steering.methods.lda import LDA
from affectlens.steering.methods.leace_cleaned import LEACE_CLEANED
from affectlens.steering.methods.likelihood import LIKELIHOOD
from affectlens.steering.methods.loreft import LOREFT
from affectlens.steering.methods.mean_difference import MEAN_DIFFERENCE
from affectlens.steering.methods.negative_prompt import NEGATIVE_PROMPT
from affectlens.steering.methods.neutral_removed import NEUTRAL_REMOVED
from affectlens.steering.methods.pca import PCA
from affectlens.steering.methods.probe_weight import PROBE_WEIGHT
from affectlens.steering.methods.prompt_and_vector import PROMPT_AND_VECTOR
from affectlens.steering.methods.reps import REPS
from affectlens.steering.methods.rotation import ROTATION
from affectlens.steering.methods.until_heard import UNTIL_HEARD

METHODS: Registry[Method] = Registry(
    "method",
    INSTRUCTION,
    FEW_SHOT,
    EMOTION_PROMPT,
    NEGATIVE_PROMPT,
    GROUP_CENTRED,
    MEAN_DIFFERENCE,
    PCA,
    LDA,
    PROBE_WEIGHT,
    LEACE_CLEANED,
    NEUTRAL_REMOVED,
    ATTENTION_OUTPUT,
    BEST_HEADS,
    CIRCUIT_ANALYTIC,
    LIKELIHOOD,
    REPS,
    LOREFT,
    CIRCUIT,
    CIRCUIT_REPS,
    ROTATION,
    KEEP_NORM,
    CLAMPED,
    UNTIL_HEARD,
    K_STEERING,
    PROMPT_AND_VECTOR,
    RANDOM_DIRECTION,
    OTHER_EMOTION,
    RANDOM_UNITS,
)
"""Every method, words first, controls last."""

__all__ = ["METHODS", "Material", "Method", "Turns", "Wording"]
