"""The plain rival: the model is asked."""

from affectlens.steering.methods.base import Method, Wording

WORDINGS = (
    Wording("plain", "Always reply in {emotion}."),
    Wording(
        "feel",
        "You feel {emotion} about what the user tells you, and everything you say shows it.",
    ),
    Wording(
        "role",
        "Play a character who is full of {emotion}. Stay in character and answer the user in that "
        "character's own words.",
    ),
    Wording(
        "tone",
        "Answer the user. Write your answer so that a reader can hear {emotion} in the tone, the "
        "choice of words and the rhythm of the sentences.",
    ),
)

INSTRUCTION = Method(
    "instruction",
    "A system prompt asks for the emotion, the best of four wordings",
    "system prompt: “Always reply in {emotion}.” and three others",
    "",
    "Wang et al. 2025 (arXiv 2510.11328); ours",
    "tokens of the system prompt",
    "a large model that follows instructions",
    wordings=WORDINGS,
)
