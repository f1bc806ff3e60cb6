"""The API: every public name of ``import affectlens as al``, from its docstring."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

FOLDER = "reference/api/"
INDEX = f"{FOLDER}index.md"


def public_names() -> dict[str, list[tuple[str, str]]]:
    """Package → (name after ``al.``, where it is defined) of all that is public, in that order."""
    import affectlens as al

    stub = Path(al.__file__).with_suffix(".pyi")
    found: dict[str, list[tuple[str, str]]] = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            thing = getattr(al, alias.name)
            if isinstance(thing, ModuleType):
                module = import_module(thing.__name__)
                inner = sorted(module.__all__, key=str.lower)
                rows = [
                    (f"{alias.name}.{name}", _place(getattr(module, name), module.__name__, name))
                    for name in inner
                ]
                found.setdefault(alias.name, []).extend(rows)
                continue
            package = f"affectlens.{node.module}"
            where = _place(thing, package, alias.name)
            found.setdefault(where.split(".")[1], []).append((alias.name, where))
    return found


def _place(thing: object, package: str, name: str) -> str:
    """The dotted path of an object: where it is defined, or where its package shows it."""
    module = getattr(thing, "__module__", None)
    own = getattr(thing, "__qualname__", None)
    defined = isinstance(own, str) and isinstance(module, str) and module.startswith("affectlens.")
    return f"{module}.{own}" if defined else f"{package}.{name}"


def pages() -> dict[str, str]:
    """One page with all names in a table, and one for each package."""
    groups = public_names()
    made = {INDEX: ""}
    rows: list[str] = []
    for package, members in sorted(groups.items()):
        links = ", ".join(f"[`{name}`]({package}.md#{where})" for name, where in members)
        rows.append(f"| [`{package}`]({package}.md) | {_about(package)} | {links} |")
        parts = [f"# affectlens.{package}\n", f"{_about(package)}\n"]
        parts += [
            f'::: {where}\n    options:\n      heading: "al.{name}"\n      heading_level: 2\n'
            for name, where in members
        ]
        made[f"{FOLDER}{package}.md"] = "\n".join(parts)
    made[INDEX] = (
        "# Python\n\n"
        "Public are the names below `import affectlens as al`; each is loaded when it is first "
        "used, so that the import costs nothing. What lies deeper is described where it is written "
        "and may change from one version to the next.\n\n"
        "| package | what it holds | names |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    return made


def _about(package: str) -> str:
    """The first sentence of a package's docstring."""
    return (import_module(f"affectlens.{package}").__doc__ or "").strip().splitlines()[0]
