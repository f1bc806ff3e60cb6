"""Evidence: what a circuit does to tasks it was not ranked by, beside random units."""

from affectlens.circuits.evidence.ablation import AblationSettings, ablate
from affectlens.circuits.evidence.core import CoreCost, core_cost
from affectlens.circuits.evidence.curve import AblationCurve, EnhancementCurve
from affectlens.circuits.evidence.enhancement import EnhancementSettings, enhance
from affectlens.circuits.evidence.faithfulness import FaithfulnessSettings, faithfulness
from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
from affectlens.circuits.evidence.hypotheses import Hypotheses, hypotheses
from affectlens.circuits.evidence.identity import Confusion, IdentitySettings, identity
from affectlens.circuits.evidence.minimality import Minimality, MinimalitySettings, minimality
from affectlens.circuits.evidence.replacements import tone_samples
from affectlens.circuits.evidence.stability import (
    Stability,
    StabilitySettings,
    fold_scores,
    stability,
)
from affectlens.circuits.evidence.untrained import transplanted, untrained

__all__ = [
    "AblationCurve",
    "AblationSettings",
    "Confusion",
    "CoreCost",
    "EnhancementCurve",
    "EnhancementSettings",
    "FaithfulnessCurve",
    "FaithfulnessSettings",
    "Hypotheses",
    "IdentitySettings",
    "Minimality",
    "MinimalitySettings",
    "Stability",
    "StabilitySettings",
    "ablate",
    "core_cost",
    "enhance",
    "faithfulness",
    "fold_scores",
    "hypotheses",
    "identity",
    "minimality",
    "stability",
    "tone_samples",
    "transplanted",
    "untrained",
]
