"""What can be set of a capture that several processes share."""

from __future__ import annotations

from dataclasses import dataclass

from affectlens.activations.settings import CaptureOptions, CaptureSettings
from affectlens.core.settings import indifferent


@dataclass(frozen=True)
class RaySettings(CaptureSettings):
    """A capture, and the actors that make it.

    Attributes:
        workers: How many actors, each with its own copy of the model.
        address: A cluster, as ``ray.init`` takes it. Default: the one this process is connected to,
            that of ``RAY_ADDRESS``, or one that is started on this machine and ends afterwards.
        threads: Of each actor. Default: all cores divided by the number of actors.
        gpus: Of each actor. Default: one if there are any, unless the device is another.
        device: Where to load a model that is given by name; default: the best each actor has.
        model_dtype: What to load it in; default: what is fast there.
    """

    workers: int = indifferent(2)
    address: str | None = indifferent(None)
    threads: int | None = indifferent(None)
    gpus: float | None = indifferent(None)
    device: str | None = indifferent(None)
    model_dtype: str | None = indifferent(None)


class RayOptions(CaptureOptions, total=False):
    """Keywords for `RaySettings`, which says what each does."""

    workers: int
    address: str | None
    threads: int | None
    gpus: float | None
    device: str | None
    model_dtype: str | None
