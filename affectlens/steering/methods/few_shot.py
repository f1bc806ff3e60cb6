"""Examples in place of an instruction."""

from affectlens.steering.methods.base import Method, Wording

FEW_SHOT = Method(
    "few_shot",
    "Exchanges in the emotion before the prompt, with or without an instruction",
    "two or four exchanges “prompt, reply in {emotion}” before the prompt",
    "",
    "Brown et al. 2020 (arXiv 2005.14165)",
    "tokens of the examples, at every request",
    "a base model, which follows examples rather than orders",
    wordings=(
        Wording("two examples", examples=2),
        Wording("four examples", examples=4),
        Wording("two and asked", "Always reply in {emotion}.", examples=2),
    ),
)
