"""What the libraries that read models complain of, as one sentence."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from affectlens.core.errors import ModelError


@contextmanager
def one_sentence(source: str) -> Generator[None, None, None]:
    """Turn whatever goes wrong while reading a model into a `ModelError` of one sentence."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and the hub each have their own classes
        line = first_line(error)
        if "trust_remote_code" in str(error):
            line = "it needs code from the hub, which affectlens does not run"
        elif not Path(source).exists():
            line = f"not a local path, and the hub did not give it: {line}"
        raise ModelError(f"Could not load {source}: {line.rstrip('.!')}.") from error


def first_line(error: BaseException) -> str:
    """What an error says first; its class if it says nothing."""
    if isinstance(error, KeyError):  # says the key alone
        return f"there is no {error}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
