"""A folder as the pages take it for granted: ``runs/demo``, made by a whole run in small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_run import run_small, save_encoder, save_judge, save_model


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With a tiny model in ``model``, and the tiny judge and encoder in the place of the real."""
    from affectlens.evaluation.judges import encoder
    from affectlens.models.registry import list_models

    folder = tmp_path_factory.mktemp("demo")
    save_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTLENS_CACHE", str(folder / "cache"))
        place = next(info.path for info in list_models() if info.name == "minilm")
        save_encoder(place)
        save_judge(folder / "judge.safetensors", place)
        patch.setattr(encoder, "ADAPTER_FILE", str(folder / "judge.safetensors"))
        encoder.shipped_adapter.cache_clear()
        run_small(folder, out=folder / "runs" / "demo")
        yield folder
    encoder.shipped_adapter.cache_clear()
