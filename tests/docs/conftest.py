"""A folder as the pages take it for granted: ``runs/demo``, made by a whole run in small."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tiny_run import run_small, save_encoder, save_judge, save_model


@contextmanager
def _tiny_judge(folder: Path) -> Generator[None]:
    """The tiny judge and encoder in the place of the real ones, inside the block alone."""
    from affectlens.evaluation.judges import encoder

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTLENS_CACHE", str(folder / "cache"))
        patch.setattr(encoder, "ADAPTER_FILE", str(folder / "judge.safetensors"))
        encoder.shipped_adapter.cache_clear()
        try:
            yield
        finally:
            encoder.shipped_adapter.cache_clear()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; ``model`` is a tiny one."""
    from affectlens.models.registry import list_models

    folder = tmp_path_factory.mktemp("demo")
    save_model(folder)
    with pytest.MonkeyPatch.context() as patch:  # the judge is made after the real one
        patch.setenv("AFFECTLENS_CACHE", str(folder / "cache"))
        place = next(info.path for info in list_models() if info.name == "minilm")
        save_encoder(place)
        save_judge(folder / "judge.safetensors", place)
    with _tiny_judge(folder):
        run_small(folder, out=folder / "runs" / "demo")
    return folder


@pytest.fixture
def demo(made: Path) -> Iterator[Path]:
    """The folder, and its judge as long as a test takes: other tests of the process want the real.

    A test that comes later would otherwise judge with a tiny encoder.
    """
    with _tiny_judge(made):
        yield made
