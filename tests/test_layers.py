"""Imports point left only, and light modules stay light."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import affectlens

ROOT = Path(affectlens.__file__).parent
LAYERS = (
    ("core",),
    ("models", "datasets"),
    ("activations",),
    ("geometry",),
    ("probes",),
    ("circuits",),
    ("steering",),
    ("inspection",),
    ("serving",),
    ("evaluation",),
    ("plotting",),
    ("reports",),
    ("pipeline",),
    ("sweeps",),
    ("comparison",),
    ("reproductions",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = ("transformer_lens", "nnsight", "sklearn", "plotly", "datasets", "wandb", "pandas")
SERVED = ("affectlens.steering.spec", "affectlens.steering.pack", "affectlens.steering.operators")
LIGHT = (
    "affectlens",
    "affectlens.cli",
    "affectlens.core",
    "affectlens.datasets.schema",
    "affectlens.models.registry",
)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}
MODULES = [name for name in FILES if name != "affectlens"]
PLUGIN = [name for name in MODULES if "vllm" in name]


def layer(module: str) -> str:
    return module.split(".")[1]


def may_import(module: str, other: str) -> bool:
    """The same package, or one further left; models and datasets do not know each other."""
    mine, theirs = layer(module), layer(other)
    return mine == theirs or RANK[theirs] < RANK[mine]


def imported_by(module: str) -> set[str]:
    """Every module of ours that a file names, inside functions and for type checkers too."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, package) if node.level else relative
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("affectlens.")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_left(module: str) -> None:
    assert layer(module) in RANK, f"{module} belongs to no layer"
    wrong = sorted(
        name for name in imported_by(module) if layer(name) in RANK and not may_import(module, name)
    )
    assert not wrong, f"{module} imports {wrong}"


def test_the_check_itself_sees_wrong_imports() -> None:
    assert not may_import("affectlens.core.places", "affectlens.models.hooking.hooks")
    assert not may_import("affectlens.models.chat.chats", "affectlens.datasets.schema")
    assert not may_import("affectlens.datasets.schema", "affectlens.models.chat.chats")
    assert may_import("affectlens.probes.sweep", "affectlens.datasets.schema")
    assert "affectlens.core.errors.unknown" in imported_by("affectlens.core.places")


def imported_when_loaded(module: str) -> set[str]:
    """Files of ours that must have run before a module has, besides the packages it lies in."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else str(node.module))
    return found & set(FILES) - {module}


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that wait for each other; empty if there are none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_waits_for_itself() -> None:
    """So each of them can be the first to be imported, whatever was or was not loaded before."""
    assert not circle({module: imported_when_loaded(module) for module in FILES})


def test_the_check_itself_sees_circles() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert "affectlens.core.errors" in imported_when_loaded("affectlens.core.places")


# Package after package is loaded, the rightmost last: whatever one of them brings along is new. Of
# two that do not know each other each comes first once, the other time in a process of its own.
_PACKAGES = """
import importlib, json, os, sys
def ours():
    return {name for name in sys.modules if name.startswith("affectlens.")}
def load(package):
    before = ours()
    for module in package:
        importlib.import_module(module)
    print(json.dumps([package[0], sorted(ours() - before)]), flush=True)
for first, *beside in json.loads(sys.argv[1]):
    for package in beside:
        if os.fork() == 0:
            code = 1
            try:
                load(package)
                code = 0
            finally:
                os._exit(code)
        assert os.wait()[1] == 0
    load(first)
    for package in beside:
        for module in package:
            importlib.import_module(module)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_importing_a_package_loads_nothing_to_its_right() -> None:
    """Nor one beside it, however the import is written; what lies left of it is loaded already."""
    packages = {
        name: [module for module in MODULES if layer(module) == name]
        for names in LAYERS
        for name in names
    }
    answer = run(_PACKAGES, json.dumps([[packages[name] for name in names] for names in LAYERS]))
    loaded = dict(json.loads(line) for line in answer.splitlines() if line.startswith("["))
    assert {layer(first) for first in loaded} == set(packages)
    assert {first: names for first, names in loaded.items() if first not in names} == {}
    for first, names in loaded.items():
        wrong = [name for name in names if layer(name) != layer(first)]
        assert not wrong, f"{layer(first)} loads {wrong}"


# All that is loaded after the modules of each argument, which are separated by commas.
_LOADED = """
import importlib, json, sys
for modules in sys.argv[1:]:
    for module in modules.split(","):
        importlib.import_module(module)
    print(json.dumps(sorted(sys.modules)))
"""


def loaded_after(*modules: Iterable[str]) -> list[set[str]]:
    """What one process has loaded after some modules, then after some more."""
    said = run(_LOADED, *(",".join(some) for some in modules))
    return [set(json.loads(line)) for line in said.splitlines()]


def roots(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_what_a_server_loads_is_torch_and_core() -> None:
    core = [name for name in MODULES if layer(name) == "core"]
    served, with_all_of_core = loaded_after(SERVED, core)
    assert not roots(with_all_of_core) & {"transformers", *HEAVY}
    ours = {layer(name) for name in served if name.startswith("affectlens.")}
    assert ours <= {"core", "steering"}


@pytest.mark.parametrize("module", [*SERVED, *PLUGIN])
def test_served_modules_name_only_torch_safetensors_and_core(module: str) -> None:
    """At module level; what a function needs to fit a vector it may import when called."""
    allowed = {"torch", "safetensors", "jaxtyping", "numpy", "vllm", "affectlens", "lazy_loader"}
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    named = {
        name.partition(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert named <= allowed | set(sys.stdlib_module_names)


def test_light_modules_load_no_torch() -> None:
    (loaded,) = loaded_after(LIGHT)
    assert not roots(loaded) & {"torch", "numpy", "transformers", "pyarrow", *HEAVY}


def run(script: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
