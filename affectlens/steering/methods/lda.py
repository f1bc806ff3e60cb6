"""Whitened difference of means."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import estimated

LDA = Method(
    "lda",
    "Whitened difference of means",
    "h + s·c, c along S⁻¹ (mean_e − mean), S shrunk",
    "natural dose along the axis",
    "Fisher 1936; shrinkage of Ledoit and Wolf 2004",
    "one pass over the texts, a solve per block",
    "to see that what reads best need not write best",
    estimated("lda"),
    "residual",
    strengths=(1.6, 4.0, 10.0),
)
