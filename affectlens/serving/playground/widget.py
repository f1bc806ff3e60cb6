"""The playground in a notebook: the page's own modules, and the local server's own routes.

Nothing listens on a port: the widget's requests come as messages of the notebook (`bridge`), so it
works wherever widgets do, without a network.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from affectlens.core import DataError, ModelError

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack

_NAME = "pack"


def play(
    model: LanguageModel,
    pack: SteeringPack | str | Path,
    spec: Any = None,
    *,
    prompt: str | None = None,
    force: bool = False,
) -> Any:
    """The playground in a notebook (Jupyter, VS Code, Colab, marimo).

    Args:
        model: The model, loaded.
        pack: Of the same model; beside a file that is named lie perhaps a run's directions and
            circuit, which are then shown too.
        spec: What the first column starts with, anything `SteeringPack.resolve` reads.
        prompt: What stands in the box at the start.
        force: Take a pack of another model of the same shape.

    Returns:
        A widget. Its ``spec`` is the `SteeringSpec` that is set last, ``close()`` ends it.

    Raises:
        ModelError: If anywidget or what the local server needs is not installed.
        MismatchError: If the pack is for another model.
        AffectLensError: If the spec cannot be served.
    """
    try:
        import anywidget  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import fastapi  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ModelError(
            f"The widget needs {error.name}; run: pip install 'affectlens[play]'"
        ) from None
    from affectlens.serving.playground.anywidgets import PlaygroundWidget
    from affectlens.steering.pack import SteeringPack

    loaded = pack if isinstance(pack, SteeringPack) else SteeringPack.load(pack)
    loaded.require_model(model, force=force)
    start = None if spec is None else loaded.resolve(spec)
    if start is not None and (start.unit != "recommended" or getattr(start, "schedule", None)):
        raise DataError(
            f"The playground's sliders are in recommended doses, the same at every token; {start} "
            "is not: leave out unit and schedule."
        )
    folder = None
    if isinstance(pack, SteeringPack):
        folder = tempfile.TemporaryDirectory(prefix="affectlens-")
        file = Path(folder.name) / "pack.safetensors"
        pack.save(file)
    else:
        file = Path(pack)
    settings: dict[str, Any] = {}
    if prompt is not None:
        settings["prompt"] = prompt
    if start is not None and start.weights:
        gate: Any = start.gate
        settings["columns"] = [
            {
                "weights": dict(start.weights),
                "mode": start.mode,
                "positions": start.positions,
                "operator": start.operator,
                "gate": None
                if gate is None
                else {"label": gate.label, "above": gate.above, "threshold": gate.threshold},
            }
        ]
    app, stop = _app(model, file, force=force)
    widget = PlaygroundWidget(loaded, app, stop, settings, start)
    if folder is not None:
        finalize(widget, folder.cleanup)
    return widget


def _app(model: LanguageModel, file: Path, *, force: bool) -> tuple[Any, Any]:
    """The local server's app for one pack, and what stops its engine."""
    from affectlens.serving.door import Door
    from affectlens.serving.local.app import build_app
    from affectlens.serving.local.engine import Engine
    from affectlens.serving.local.service import HttpSettings, Service
    from affectlens.serving.settings import Settings

    engine = Engine(model)
    door = Door(Settings(packs={_NAME: str(file)}, force=force))
    app = build_app(Service(engine, door, HttpSettings()))
    engine.__enter__()
    return app, lambda: engine.__exit__(None, None, None)
