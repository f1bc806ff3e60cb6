"""Evidence: what a circuit does to tasks it was not ranked by, beside random units."""

from affectlens.circuits.evidence.ablation import AblationCurve, AblationSettings, ablate

__all__ = ["AblationCurve", "AblationSettings", "ablate"]
