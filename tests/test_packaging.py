"""What is installed with the package, and what it does without the rest."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import affectlens as al
from affectlens.core.errors import ModelError
from affectlens.core.extras import EXTRA_OF, how_to_install, lacking, needed
from tests.conftest import FAMILIES, make_tiny
from tests.steering.oracle import random_pack

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {
    "prometheus_client": "prometheus-client",
    "sklearn": "scikit-learn",
    "transformer_lens": "transformer-lens",
}
COME_ALONG = {"click", "huggingface_hub", "jinja2", "packaging", "tokenizers", "traitlets", "yaml"}
"""Of torch, transformers, typer and anywidget, which cannot do without them."""
ELSEWHERE = {"vllm", "starlette", "openai", "IPython", "datasets", "hqq"}
"""Asked for where they are (vLLM, notebooks), in sentences of their own, or part of FastAPI."""


def of_extra(extra: str) -> set[str]:
    """Distributions that an extra names, through the extras that it names."""
    found: set[str] = set()
    for line in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if line.name == "affectlens":
            found |= {name for inner in line.extras for name in of_extra(inner)}
        else:
            found.add(line.name)
    return found


BASE = {Requirement(line).name for line in PROJECT["dependencies"]}


@pytest.mark.parametrize(("package", "extra"), EXTRA_OF.items())
def test_the_extra_that_a_sentence_names_brings_the_package(package: str, extra: str) -> None:
    name = DISTRIBUTIONS.get(package, package)
    assert name in of_extra(extra) and name not in BASE


def test_dev_tests_all_that_there_is() -> None:
    needs_a_gpu = {"vllm", "bitsandbytes"}
    every = {name for extra in PROJECT["optional-dependencies"] for name in of_extra(extra)}
    assert every - of_extra("dev") == needs_a_gpu


def imported() -> Iterator[tuple[str, Path]]:
    """Packages of others that the code names, wherever it does."""
    for file in (ROOT / "affectlens").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                yield name.partition(".")[0], file


def test_what_the_code_imports_is_what_is_installed() -> None:
    base = {re.sub("-", "_", name) for name in BASE}
    allowed = base | set(EXTRA_OF) | COME_ALONG | ELSEWHERE | {"affectlens"}
    allowed |= set(sys.stdlib_module_names)
    assert {name: str(file) for name, file in imported() if name not in allowed} == {}


def test_what_is_lacking_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ModelError, match=r"^A figure needs plotly: pip install 'affectlens\[study"):
        needed("plotly", "A figure")
    with pytest.raises(ModuleNotFoundError) as caught:
        import plotly  # noqa: F401
    assert how_to_install("plotly") in str(lacking(caught.value))
    assert lacking(ModuleNotFoundError("no", name="os.nothing")) is None
    assert lacking(ImportError("no", name="plotly")) is None
    # What other tests have imported of it is found without asking for the package itself.
    for name in ["sklearn", *(one for one in sys.modules if one.startswith("sklearn."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "affectlens.probes.scikit", raising=False)
    monkeypatch.delattr("affectlens.probes.scikit", raising=False)
    monkeypatch.delattr("affectlens.probes.LinearProbe", raising=False)
    with pytest.raises(ModelError, match=r"This needs sklearn.*affectlens\[study\]"):
        al.__getattr__("LinearProbe")


@pytest.mark.parametrize("family", FAMILIES)
def test_without_transformer_lens_a_pack_steers_the_same(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs are made where adapters are, and served where they are not."""
    known = make_tiny(family)
    monkeypatch.setitem(sys.modules, "transformer_lens", None)
    traced = make_tiny(family)
    assert (known.anatomy.known_by, traced.anatomy.known_by) == ("TransformerLens", "a traced pass")
    assert known.fingerprint == traced.fingerprint
    for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp"):
        assert getattr(known.anatomy, name) == getattr(traced.anatomy, name), name
    places = {id(module): name for name, module in known.hf.named_modules()}
    others = {id(module): name for name, module in traced.hf.named_modules()}
    for one, two in zip(known.anatomy.blocks, traced.anatomy.blocks, strict=True):
        for part in ("block", "o_proj", "down_proj", "attn_post_norm", "mlp_post_norm"):
            assert places.get(id(getattr(one, part))) == others.get(id(getattr(two, part))), part
    pack = random_pack(known)
    specs = ["anger=2;mode=circuit", "fear=2,happiness=1;mode=residual;positions=all"]
    replies = []
    for model in (known, traced):
        with pack.steer(model, specs):
            replies.append(model.generate(["So am I."] * 2, max_new_tokens=8))
    assert replies[0] == replies[1]


WITHOUT_STUDY = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
sys.argv = ["affectlens", *{arguments!r}]
from affectlens.cli import main
main()
"""


def without_study(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line where no package of an extra can be imported."""
    script = WITHOUT_STUDY.format(blocked=list(EXTRA_OF), arguments=list(arguments))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tiny model and a pack for it."""
    from tests.tiny_run import save_model

    place = tmp_path_factory.mktemp("small")
    save_model(place)
    model = al.load_model(str(place / "model"), device="cpu", dtype="float32")
    random_pack(model).save(place / "pack.safetensors")
    return place


def test_a_model_is_steered_with_the_package_alone(folder: Path) -> None:
    pack, model = str(folder / "pack.safetensors"), str(folder / "model")
    asked = ("Hello", "-e", "anger=2", "--max-new-tokens", "4", "--dtype", "float32")
    done = without_study("steer", *asked, "--pack", pack, "--model", model)
    assert done.returncode == 0, done.stderr
    assert "anger=2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("capture", "MODEL", "replies", "--out", "OUT"), "pyarrow"),
        (("run", "--model", "MODEL", "--out", "OUT"), r"\w+"),
        (("capture", "MODEL", "replies", "--out", "OUT", "--ray"), "ray"),
        (("capture", "MODEL", "replies", "--out", "OUT", "--engine", "nnsight"), r"\w+"),
        (("capture", "MODEL", "replies", "--out", "OUT", "--engine", "transformer_lens"), r"\w+"),
    ],
)
def test_what_studies_need_is_named(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], package: str
) -> None:
    places = {"MODEL": str(folder / "model"), "OUT": str(tmp_path / "out")}
    done = without_study(*(places.get(word, word) for word in arguments))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and re.search(rf"needs {package}\b.*pip install 'affectlens\[", said[0])


def test_the_wheel_has_all_files_of_the_package_and_nothing_else(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(ROOT))
    (built,) = builder.build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(built).namelist())
    ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / "affectlens").rglob("*")
            if p.is_file() and "__pycache__" not in p.parts}  # fmt: skip
    assert ours <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"affectlens"}


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text


def test_the_workflow_runs_the_commands_of_the_readme() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make quickstart", "make test"):
        assert f"- run: {command}\n" in workflow and command in readme
