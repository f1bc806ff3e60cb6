"""The table of studies: a second one is a package with a `Reproduction`, and its name here."""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.reproductions.emotion_circuits import EMOTION_CIRCUITS
from affectlens.reproductions.reproduction import Reproduction

REPRODUCTIONS: Registry[Reproduction] = Registry("reproduction", EMOTION_CIRCUITS)
