"""The instruction and the circuit at once."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.instruction import WORDINGS
from affectlens.steering.methods.units import likely

PROMPT_AND_VECTOR = Method(
    "prompt_and_vector",
    "A system prompt asks for the emotion and the refined circuit steers",
    "a + s·Δ under the system prompt “Always reply in {emotion}.” or another wording",
    "the trained values",
    "psychological steering (arXiv 2604.14463)",
    "that of the circuit, and tokens of the system prompt",
    "prompt and vector each fall short",
    likely,
    "circuit",
    strengths=(0.4, 0.6, 0.85),
    wordings=WORDINGS[:2],
)
