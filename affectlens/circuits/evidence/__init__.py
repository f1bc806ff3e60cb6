"""Evidence: what a circuit does to tasks it was not ranked by, beside random units."""

from affectlens.circuits.evidence.ablation import AblationCurve, AblationSettings, ablate
from affectlens.circuits.evidence.faithfulness import (
    FaithfulnessCurve,
    FaithfulnessSettings,
    faithfulness,
)
from affectlens.circuits.evidence.replacements import tone_samples

__all__ = [
    "AblationCurve",
    "AblationSettings",
    "FaithfulnessCurve",
    "FaithfulnessSettings",
    "ablate",
    "faithfulness",
    "tone_samples",
]
