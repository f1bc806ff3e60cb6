"""What a model has, layer by layer, in words and at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core.errors import UnknownNameError
from affectlens.core.places import Site, WritePoint
from affectlens.models import describe
from affectlens.models.anatomy.levels import levels, spans
from affectlens.models.hooking.hooks import check_sites, writing
from affectlens.models.loading import load_model
from tests.conftest import tiny_tokenizer
from tests.families.matrix import build


@pytest.fixture(scope="module")
def hybrid() -> Any:
    """State spaces at both ends, attention between them."""
    return load_model(build("bamba"), tokenizer=tiny_tokenizer())


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for images, as a folder."""
    folder = tmp_path_factory.mktemp("seeing")
    build("mistral3_mm").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_neighbouring_layers_are_folded() -> None:
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


def test_what_a_layer_has_not_is_refused_with_reason_and_place(hybrid: Any) -> None:
    because = r"in block 0 its mixer \(BambaMixer\) is no attention .*; it is at layers 1\."
    for site in (Site(0, "z"), Site(0, "pattern")):
        with pytest.raises(UnknownNameError, match=because):
            check_sites(hybrid.anatomy, [site])
    with (
        pytest.raises(UnknownNameError, match=because),
        writing(hybrid.anatomy, {WritePoint(0, "o_proj_in"): lambda value: value}),
    ):
        pass
    check_sites(hybrid.anatomy, [Site(1, "z"), Site(0, "attn_out"), Site(0, "mlp_post")])


def test_widths_are_those_of_the_layer(hybrid: Any) -> None:
    assert [part.n_heads * part.d_head for part in hybrid.anatomy.blocks] == [0, 32, 0]
    assert [hybrid.anatomy.width(Site(n, "z")) for n in range(3)] == [0, 32, 0]
    assert hybrid.anatomy.width("z") == 32


def test_a_checkpoint_for_images_is_loaded_whole_and_checked(seeing: Path) -> None:
    model = load_model(str(seeing), dtype="float32")
    assert type(model.hf).__name__ == "Mistral3ForConditionalGeneration"
    assert model.generate("Hello", max_new_tokens=2) is not None
    done = CliRunner().invoke(app, ["models", "check", str(seeing), "--prompt", "So am I."])
    assert done.exit_code == 0, done.output
    assert "layers 0-2     units: 4 heads of 8, 64 neurons" in done.output
    assert "largest error" in done.output


def test_info_has_the_level_of_each_layer(seeing: Path) -> None:
    done = CliRunner().invoke(app, ["models", "info", str(seeing)])
    assert done.exit_code == 0, done.output
    assert "layers 0-2" in done.output and "units: 4 heads of 8, 64 neurons" in done.output


def test_finding_the_parts_of_many_like_blocks_runs_each_a_few_times() -> None:
    """Passes over all weights are what loading waits for."""
    hf = build("ministral")
    times = [0] * len(hf.model.layers)

    def count(layer: int) -> Any:
        def hook(_module: Any, _args: Any, _output: Any) -> None:
            times[layer] += 1

        return hook

    for layer, block in enumerate(hf.model.layers):
        block.mlp.register_forward_hook(count(layer))
    anatomy = load_model(hf, tokenizer=tiny_tokenizer()).anatomy
    assert anatomy.known_by == "a traced pass"
    # Blocks found, sums followed, all proved; the first of its kind is tried twice more.
    assert times == [5, *[3] * (len(times) - 1)]


def test_a_config_tells_what_a_model_has_without_its_weights(tmp_path: Path, hybrid: Any) -> None:
    build("bamba").config.save_pretrained(tmp_path)
    about = describe(str(tmp_path))
    assert about["told_by"].startswith("its config")
    for layers, level, what in levels(hybrid.anatomy):
        assert about[f"layers {layers}"] == f"{level}: {what}"
