"""Imports point left only, and light modules stay light."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
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
    ("serving",),
    ("evaluation",),
    ("plotting",),
    ("reports",),
    ("pipeline",),
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


# One process has the third-party packages loaded (a first child finds out which those are) and
# goes from layer to layer: a fresh child for each module, then all modules of the layer.
_FORKS = """
import importlib, json, os, sys
layers = json.loads(sys.argv[1])
out, into = os.pipe()
if os.fork() == 0:
    for module in sum(layers, []):
        importlib.import_module(module)
    others = [name for name in sys.modules if not name.startswith(("affectlens", "__"))]
    os.write(into, json.dumps(others).encode())
    os._exit(0)
os.close(into)
with os.fdopen(out) as told:
    others = json.load(told)
os.wait()
for name in others:
    try:
        importlib.import_module(name)
    except Exception:
        pass
def ours():
    return {name for name in sys.modules if name.startswith("affectlens.")}
assert not ours()
for layer in layers:
    before = ours()
    for module in layer:
        sys.stdout.flush()
        if os.fork() == 0:
            code = 1
            try:
                importlib.import_module(module)
                print(json.dumps([module, sorted(ours() - before)]), flush=True)
                code = 0
            finally:
                os._exit(code)
        _, status = os.wait()
        if status:
            print(json.dumps([module, None]), flush=True)
    for module in layer:
        try:
            importlib.import_module(module)
        except Exception:
            pass
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_importing_a_module_loads_nothing_to_its_right() -> None:
    """Nor of a package beside its own; what lies left of it is loaded already."""
    by_rank = [
        [name for name in MODULES if RANK[layer(name)] == rank] for rank in range(len(LAYERS))
    ]
    answer = run(_FORKS, json.dumps(by_rank))
    loaded = dict(json.loads(line) for line in answer.splitlines() if line.startswith("["))
    assert set(loaded) == set(MODULES)
    broken = [name for name, names in loaded.items() if names is None]
    assert not broken, f"cannot be imported: {broken}"
    wrong = {
        module: bad
        for module, names in loaded.items()
        if (bad := [name for name in names if layer(name) != layer(module)])
    }
    assert not wrong


_LOADED = """
import importlib, json, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_what_a_server_loads_is_torch_and_core() -> None:
    loaded = set(json.loads(run(_LOADED, *SERVED, *(m for m in FILES if layer_is_core(m)))))
    assert not loaded & set(HEAVY)
    assert "transformers" not in loaded
    ours = run(
        "import sys, importlib\nfor m in sys.argv[1:]: importlib.import_module(m)\n"
        "print([n for n in sys.modules if n.startswith('affectlens.')])",
        *SERVED,
    )
    layers = {layer(name) for name in ast.literal_eval(ours)}
    assert layers <= {"core", "steering"}


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
    loaded = set(json.loads(run(_LOADED, *LIGHT)))
    assert not loaded & {"torch", "numpy", "transformers", "pyarrow", *HEAVY}


def layer_is_core(module: str) -> bool:
    return module.startswith("affectlens.core")


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
