"""What a chat template can be told besides its messages: thinking on or off, its effort, a date.

Templates are programs with variables of their own, and one that they do not know is ignored without
a word; so names are held against the template first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.core.artefact import canonical_json
from affectlens.core.errors import closest_first

if TYPE_CHECKING:
    from jinja2.nodes import Node

_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_OURS = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
    | {"raise_exception", "strftime_now", "additional_special_tokens", "chat_template"}
    | {f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
)
"""What a template gets from the chat, from the tokenizer, or from whoever calls it."""

_WORDS = {"true": True, "false": False, "none": None, "null": None}


def check_variables(tokenizer: Any, given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Hold variables against the template that they are for.

    Args:
        tokenizer: Of the model, with its chat template.
        given: Values by name.
        name: Of the model, for messages.

    Returns:
        The same, sorted by name.

    Raises:
        DataError: If there is no template, it does not use a name, or a value is no plain one.
    """
    if not given:
        return {}
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise DataError(
            f"{name} has no chat template, so nothing uses {', '.join(sorted(given))}; leave it "
            "out."
        )
    texts = template.values() if isinstance(template, Mapping) else [template]
    known = {variable for text in texts for variable in used_by(str(text))}
    for variable, value in given.items():
        if variable not in known:
            listed = ", ".join(closest_first(variable, sorted(known))) or "none"
            raise DataError(
                f"The chat template of {name} does not use {variable!r}; variables that it uses: "
                f"{listed}."
            )
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{variable} must be a text, a number, true or false, or a list of these, not a "
                f"{type(value).__name__}."
            ) from error
    return dict(sorted(given.items()))


@lru_cache(maxsize=64)
def used_by(template: str) -> frozenset[str]:
    """Variables that a template reads and that a user can set; none if it cannot be parsed."""
    from jinja2 import TemplateSyntaxError, meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    rules = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = rules.parse(_GENERATION.sub("", template))
    except TemplateSyntaxError:  # said when the template is used
        return frozenset()
    # Jinja also lists names that are set in one block and read in another.
    first = dict[str, str]()
    for name, use in _uses(tree):
        first.setdefault(name, use)
    given = meta.find_undeclared_variables(tree)
    return frozenset(name for name in given if first.get(name) == "load") - _OURS


def _uses(node: Node) -> Iterator[tuple[str, str]]:
    """Names and whether each is read (``"load"``) or set, in the order in which they stand."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node.name, node.ctx
    children = list(node.iter_child_nodes())
    # What is assigned is read before the name gets it.
    for child in reversed(children) if isinstance(node, nodes.Assign) else children:
        yield from _uses(child)


def parse_variables(assignments: Sequence[str]) -> dict[str, Any]:
    """``["enable_thinking=true", "reasoning_effort=high"]`` as values by name.

    A value is what JSON makes of it, or else the text itself.

    Raises:
        DataError: If one is no assignment, or a name is given twice.
    """
    found = dict[str, Any]()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise DataError(
                f"A template variable is given as NAME=VALUE, for example enable_thinking=true, "
                f"not {assignment!r}."
            )
        if name in found:
            raise DataError(f"The template variable {name} is given twice; give it once.")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text
