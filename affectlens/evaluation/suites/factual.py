"""Questions with one short answer that every small model has read."""

from affectlens.evaluation.suites.base import Suite
from affectlens.evaluation.suites.wording import says

SUITE = Suite(
    "factual",
    "questions with one short answer: the reply holds it",
    lambda item, reply: says(reply, item.words("accept")),
)
