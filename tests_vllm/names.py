"""Does a vLLM have every private name that the plug-in looks up? Answered from its sources alone.

    python -m tests_vllm.names vllm-0.33.0-….whl
    python -m tests_vllm.names .venv-vllm/lib/python3.11/site-packages

A wheel or a folder that holds ``vllm/``; nothing of it is imported, so neither torch nor a GPU is
needed. Names that are imported from other modules or inherited are followed. Exit 1 and a line for
each name that is not there.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from affectlens.serving.vllm import internals

ALL = (*internals.NAMES, *internals.HTTP_NAMES, *internals.V1_NAMES, *internals.V2_NAMES)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Sources:
    """The sources of a package, module by module.

    Attributes:
        read: From a path inside the wheel or folder to its text; None if there is no such file.
        parsed: Modules that were read already.
    """

    read: Callable[[str], str | None]
    parsed: dict[str, ast.Module | None] = field(default_factory=dict[str, ast.Module | None])

    def module(self, name: str) -> ast.Module | None:
        """A module's syntax tree."""
        if name not in self.parsed:
            path = name.replace(".", "/")
            text = self.read(f"{path}.py") or self.read(f"{path}/__init__.py")
            self.parsed[name] = None if text is None else ast.parse(text)
        return self.parsed[name]

    def has(self, name: str) -> bool:
        """Whether ``"module:path.to.attribute"`` is defined."""
        module, _, path = name.partition(":")
        first, *rest = path.split(".")
        found = self.defined(module, first)
        for attribute in rest:
            found = None if found is None else self.member(*found, attribute)
        return found is not None

    def defined(self, module: str, name: str) -> tuple[str, ast.AST] | None:
        """Where a name of a module is defined, followed through imports."""
        tree = self.module(module)
        for node in _statements(tree.body if tree else []):
            if isinstance(node, (ast.ClassDef, *_FUNCTIONS)) and node.name == name:
                return module, node
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.defined(self.absolute(node, module), alias.name)
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in _targets(node):
                return module, node
        return None

    def member(self, module: str, owner: ast.AST, name: str) -> tuple[str, ast.AST] | None:
        """An attribute of a class, its own or inherited."""
        if not isinstance(owner, ast.ClassDef):
            return None
        for node in _statements(owner.body):
            if isinstance(node, (ast.ClassDef, *_FUNCTIONS)) and node.name == name:
                return module, node
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in _targets(node):
                return module, node
        for base in owner.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            parent = self.defined(module, base.id) if isinstance(base, ast.Name) else None
            found = None if parent is None else self.member(*parent, name)
            if found is not None:
                return found
        return None

    def absolute(self, node: ast.ImportFrom, module: str) -> str:
        """The module that an import inside a module means."""
        if not node.level:
            return node.module or ""
        package = self.read(f"{module.replace('.', '/')}/__init__.py") is not None
        up = node.level - package
        parent = module.rsplit(".", up)[0] if up else module
        return f"{parent}.{node.module}" if node.module else parent


def missing(sources: Sources) -> list[str]:
    """Names that the plug-in looks up and that are not there."""
    return [name for name in ALL if not sources.has(name)]


def open_sources(place: Path) -> Sources:
    """The sources in a wheel, or in a folder that holds the package."""
    if place.is_file():
        archive = zipfile.ZipFile(place)
        files = set(archive.namelist())
        return Sources(lambda path: archive.read(path).decode() if path in files else None)
    return Sources(lambda path: (place / path).read_text() if (place / path).is_file() else None)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Of a body, those inside its conditions too."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(s for h in node.handlers for s in h.body)])


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def main() -> None:
    """Check the wheel or folder that is named."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).exists():
        sys.exit("usage: python -m tests_vllm.names WHEEL_OR_FOLDER")
    sources = open_sources(Path(sys.argv[1]))
    if sources.module("vllm") is None:
        sys.exit(f"{sys.argv[1]} holds no vllm.")
    lacking = missing(sources)
    sys.stdout.writelines(f"missing: {name}\n" for name in lacking)
    sys.stdout.write(f"{len(ALL) - len(lacking)} of {len(ALL)} names are there.\n")
    sys.exit(1 if lacking else 0)


if __name__ == "__main__":
    main()
