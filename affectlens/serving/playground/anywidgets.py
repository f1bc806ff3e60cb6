"""The widget's class; importing this needs anywidget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import finalize

import anywidget
import traitlets

from affectlens.serving.playground.bridge import AsgiBridge
from affectlens.serving.playground.bundle import bundled
from affectlens.serving.playground.page import static_files
from affectlens.steering.pack import SteeringPack
from affectlens.steering.spec import SteeringSpec


class PlaygroundWidget(anywidget.AnyWidget):
    """See `affectlens.play`.

    Attributes:
        spec_text: What is set last, as text.
        pack_name: Of the pack it is for.
    """

    _esm = bundled("widget.js")
    _css = static_files()["play.css"].decode()

    spec_text = traitlets.Unicode("none").tag(sync=True)
    pack_name = traitlets.Unicode("").tag(sync=True)
    _settings = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        pack: SteeringPack,
        app: Any,
        stop: Callable[[], object],
        settings: Mapping[str, Any],
        start: SteeringSpec | None = None,
    ) -> None:
        # What is asked holds before a browser has shown it, too: cells below may run at once.
        super().__init__(_settings=dict(settings), spec_text=str(start or "none"))
        self._pack = pack
        bridge = AsgiBridge(app, self.send)
        self.on_msg(lambda _widget, message, _buffers: bridge.receive(message))

        def end() -> None:
            bridge.close()
            stop()

        self._end = finalize(self, end)

    @property
    def spec(self) -> SteeringSpec:
        """What is set last, as a request for the pack: ``pack.steer(model, widget.spec)``."""
        return self._pack.resolve(self.spec_text)

    def close(self) -> None:
        """Take the widget away and end what answers it."""
        self._end()
        super().close()
