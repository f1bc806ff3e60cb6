"""The weight of a probe."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import estimated

PROBE_WEIGHT = Method(
    "probe_weight",
    "Weight of a logistic probe",
    "h + s·c, c along the weight of the emotion's class",
    "natural dose along the weight",
    "the probe of AxBench (arXiv 2501.17148)",
    "one pass over the texts, a fit per block",
    "to see that what reads best need not write best",
    estimated("probe"),
    "residual",
    strengths=(1.6, 4.0, 10.0),
)
