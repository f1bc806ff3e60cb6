"""Options given twice: refused, where one of them would win without a word."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class Once(TyperCommand):
    """A command each of whose options has one value, unless the option collects several."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Look at what is given before it is taken."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        for option in order:
            # A switch given twice says the same; one with an opposite may contradict itself.
            says_more = not getattr(option, "is_flag", False) or option.secondary_opts
            if order.count(option) > 1 and says_more and not _collects(option):
                name = max(option.opts, key=len)
                raise typer.BadParameter(f"{name} is given twice; give it once.", ctx=ctx)
        return super().parse_args(ctx, args)


def _collects(option: Any) -> bool:
    return bool(option.param_type_name != "option" or option.multiple or option.nargs != 1)


def refuse_repetition(app: typer.Typer) -> None:
    """Make every command of a program a `Once`, those of its groups too."""
    for command in app.registered_commands:
        command.cls = Once
    for group in app.registered_groups:
        if group.typer_instance is not None:
            refuse_repetition(group.typer_instance)
