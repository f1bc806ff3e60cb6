"""NegativePrompt: the instruction and something unkind."""

from affectlens.steering.methods.base import Method, Wording

NEGATIVE_PROMPT = Method(
    "negative_prompt",
    "The instruction and a sentence of doubt or threat (NegativePrompt)",
    "system prompt: “Always reply in {emotion}.” and a doubt",
    "",
    "Wang et al. 2024 (arXiv 2405.02814)",
    "tokens of the system prompt",
    "beside EmotionPrompt, to see whether the sign matters",
    wordings=(
        Wording("others", "Always reply in {emotion}. Others would do this better than you can."),
        Wording(
            "beyond you",
            "Always reply in {emotion}. Perhaps the task is just beyond your skill.",
        ),
        Wording(
            "failed",
            "Always reply in {emotion}. You have failed at this before and will be replaced.",
        ),
    ),
)
