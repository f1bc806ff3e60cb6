"""EmotionPrompt: the instruction and something at stake."""

from affectlens.steering.methods.base import Method, Wording

EMOTION_PROMPT = Method(
    "emotion_prompt",
    "The instruction and a sentence that raises the stakes (EmotionPrompt)",
    "system prompt: “Always reply in {emotion}.” and a stake",
    "",
    "Li et al. 2023 (arXiv 2307.11760)",
    "tokens of the system prompt",
    "the instruction is understood but hardly followed",
    wordings=(
        Wording("career", "Always reply in {emotion}. This is very important to my career."),
        Wording(
            "sure",
            "Always reply in {emotion}. You had better be sure that it can be heard.",
        ),
        Wording(
            "growth",
            "Always reply in {emotion}. Take it as a chance to grow, and be proud of your work.",
        ),
    ),
)
