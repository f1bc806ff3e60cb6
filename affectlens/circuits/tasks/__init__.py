"""Tasks: a number per text from the model's own probabilities, no judge needed."""

from affectlens.circuits.tasks.base import Row, Task, TaskKind, Text, TextTask
from affectlens.circuits.tasks.carry_over import CARRY_OVER, CarryOver, margins
from affectlens.core.registry import Registry

TASKS: Registry[TaskKind] = Registry("task", CARRY_OVER)

__all__ = ["TASKS", "CarryOver", "Row", "Task", "TaskKind", "Text", "TextTask", "margins"]
