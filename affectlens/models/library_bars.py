"""Progress bars of the libraries that read models: ours are shown, theirs are not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from affectlens.core.progress import watched


@contextmanager
def no_library_bars() -> Generator[None, None, None]:
    """No bars of transformers inside the block, and none of downloads where nobody watches.

    What these libraries log still comes.
    """
    from huggingface_hub import utils as hub
    from transformers.utils import logging

    def nothing(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return logging.EmptyTqdm(*args, **kwargs)

    def silent(*args: Any, **kwargs: Any) -> Any:
        return bar(*args, **{**kwargs, "disable": True})

    gguf: Any = None
    with suppress(ImportError):  # the hook does not reach its bar
        gguf = import_module("transformers.modeling_gguf_pytorch_utils")
    bar: Any = getattr(gguf, "tqdm", None)
    hide_downloads = not watched() and not hub.are_progress_bars_disabled()
    before = logging.set_tqdm_hook(nothing)
    if hide_downloads:
        hub.disable_progress_bars()
    if bar is not None:
        gguf.tqdm = silent
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)
        if bar is not None:
            gguf.tqdm = bar
        if hide_downloads:
            hub.enable_progress_bars()
