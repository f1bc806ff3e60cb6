"""Tasks: a number per text from the model's own probabilities, no judge needed."""

from affectlens.circuits.tasks.base import Row, Task, TaskKind, Text, TextTask
from affectlens.circuits.tasks.carry_over import CARRY_OVER, CarryOver, margins
from affectlens.circuits.tasks.elicitation import ELICITATION, Elicitation
from affectlens.circuits.tasks.pairs import Pair, pairs
from affectlens.circuits.tasks.projection import PROJECTION, Projection
from affectlens.circuits.tasks.recognition import RECOGNITION, Recognised, Recognition
from affectlens.core.registry import Registry

TASKS: Registry[TaskKind] = Registry("task", CARRY_OVER, RECOGNITION, ELICITATION, PROJECTION)

__all__ = [
    "TASKS",
    "CarryOver",
    "Elicitation",
    "Pair",
    "Projection",
    "Recognised",
    "Recognition",
    "Row",
    "Task",
    "TaskKind",
    "Text",
    "TextTask",
    "margins",
    "pairs",
]
