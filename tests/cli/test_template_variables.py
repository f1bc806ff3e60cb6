"""``--template-var``: what it reaches, what it tells apart, and every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from affectlens.cli import app
from affectlens.models.loading import load_model
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.fingerprints import model_facts
from affectlens.pipeline.pack_files import template_variables_of, untuned_file
from affectlens.pipeline.run_config import RunConfig
from affectlens.pipeline.steer import SteerRequest, steer_beside
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.on_disk import save_texts
from tests.steering.oracle import random_pack

TEMPLATE = (
    "{{ 'Effort: ' + (effort|default('low')) + '\n' }}{% for m in messages %}"
    "{{ m.role + '\n' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("effort")
    tiny_hf("llama").save_pretrained(path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path / "model")
    save_texts(path / "texts.jsonl", 8)
    return path


def capture(folder: Path, out: Path, *variables: str) -> Result:
    said = [word for one in variables for word in ("--template-var", one)]
    where = [str(folder / "model"), str(folder / "texts.jsonl"), "--out", str(out)]
    return CliRunner().invoke(app, ["capture", *where, "--model-dtype", "float32", *said])


def test_a_capture_is_told_and_says_so(folder: Path, tmp_path: Path) -> None:
    """These texts are no chats, so the template writes nothing and the store is the same."""
    assert capture(folder, tmp_path / "s").exit_code == 0
    again = capture(folder, tmp_path / "s", "effort=high")
    assert again.exit_code == 0 and "was finished before" in again.stdout
    wrong = capture(folder, tmp_path / "s", "enable_thinking=true")
    assert wrong.exit_code == 1
    assert "does not use 'enable_thinking'; variables that it uses: effort." in wrong.stderr
    assert "NAME=VALUE" in capture(folder, tmp_path / "s", "effort").stderr


def test_a_run_has_them_in_its_keys(folder: Path, tmp_path: Path) -> None:
    def facts(**variables: str) -> dict[str, str]:
        config = RunConfig(
            model=str(folder / "model"), out=tmp_path, device="cpu", dtype="float32",
            template_variables=variables,
        )  # fmt: skip
        return dict(model_facts(RunContext(config)))

    plain, high = facts(), facts(effort="high")
    assert plain["model"] == high["model"]
    assert plain["text"] != high["text"]
    # Both are remembered by their files, and neither is taken for the other.
    assert facts(effort="high") == high and facts(effort="low") != high and facts() == plain


def test_a_reply_is_steered_under_those_of_its_pack(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    model = load_model(folder / "model", device="cpu", dtype="float32")
    pack = random_pack(model)
    told = replace(pack.provenance, parameters={"template_variables": {"effort": "high"}})
    pack = replace(pack, provenance=told)
    pack.save(tmp_path / "pack.safetensors")
    assert template_variables_of(tmp_path) == {}  # no run has made it
    pack.save(tmp_path / untuned_file("pack"))
    assert template_variables_of(tmp_path) == {"effort": "high"}

    def unsteered(**options: object) -> str:
        request = SteerRequest(
            "Why?", "anger=1", tmp_path / "pack.safetensors", model=str(folder / "model"),
            device="cpu", dtype="float32", max_new_tokens=12, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        return steer_beside(request).unsteered

    def wanted(effort: str) -> str:
        return model.generate("Why?", max_new_tokens=12, template_variables={"effort": effort})

    assert wanted("high") != wanted("low")
    assert unsteered() == wanted("high")
    assert unsteered(template_variables={}) == wanted("low")
    assert unsteered(template_variables={"effort": "low"}) == wanted("low")
