"""A task of Inspect AI that needs nothing from outside; it runs in Inspect's environment."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

ASKED = (
    "My train was cancelled and nobody told me.",
    "The neighbour plays music all night.",
    "Someone took my seat while I fetched a book.",
)


@task
def feeling() -> Task:
    """Does a reply say that somebody is angry?"""
    samples = [Sample(input=text, target="angry") for text in ASKED]
    return Task(dataset=samples, solver=generate(), scorer=includes())
