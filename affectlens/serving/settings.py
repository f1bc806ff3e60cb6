"""What an operator configures: ``--additional-config '{"affectlens": {"packs": "pack.st"}}'``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.serving.contract import KEY
from affectlens.steering.operators import OPERATORS, served_operators
from affectlens.steering.operators.add import ADD
from affectlens.steering.pack import SteeringPack

RESERVE = ("packs", "all")


@dataclass(frozen=True)
class Settings:
    """Settings of a server that steers.

    Attributes:
        packs: Name to file. The first is the one that requests mean if they name none.
        default: Spec for requests that bring none; None leaves them alone.
        operators: What requests may ask for. More operators are more work for every token.
        reserve: ``"packs"``: places where these packs write; ``"all"``: every place, so that any
            pack of the model can be loaded later.
        max_packs: How many packs of this size fit at once.
        read: Whether emotions can be read with the packs' probes.
        force: Serve a pack of another model of the same shape.
        untested_version: Run on a version of vLLM this was not tested with.
        pack_folder: Packs in this folder may be loaded over HTTP; None: no pack may.
        fingerprints: Of the packs, filled in when the server starts: workers refuse a file that
            has changed since, and compiled code of other packs is not used.
    """

    packs: Mapping[str, str]
    default: str | None = None
    operators: tuple[str, ...] = field(default_factory=served_operators)
    reserve: str = "packs"
    max_packs: int = 2
    read: bool = True
    force: bool = False
    untested_version: bool = False
    pack_folder: str | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, additional_config: Any) -> Settings | None:
        """Our part of ``additional_config``; None if there is none.

        Raises:
            DataError, UnknownNameError: Naming what cannot be used.
        """
        raw = additional_config.get(KEY) if isinstance(additional_config, Mapping) else None
        if raw is None:
            return None
        if not isinstance(raw, Mapping):
            raise DataError(
                f"additional_config[{KEY!r}] must be a mapping such as "
                f'{{"packs": "pack.safetensors"}}, not {raw!r}.'
            )
        given = dict(raw)
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise unknown("steering setting", name, cls.__dataclass_fields__)
        return cls(
            packs=_packs(given.pop("packs", None)),
            operators=_operators(given.pop("operators", served_operators())),
            **given,
        )._checked()

    def _checked(self) -> Settings:
        if self.reserve not in RESERVE:
            raise unknown("reserve", self.reserve, RESERVE)
        if not isinstance(self.max_packs, int) or self.max_packs < len(self.packs):
            raise DataError(
                f"max_packs must be at least the number of packs ({len(self.packs)}), not "
                f"{self.max_packs!r}."
            )
        if self.default is not None and not isinstance(self.default, str):
            raise DataError(f"default must be a spec such as 'anger=0.5', not {self.default!r}.")
        if self.pack_folder is not None and not isinstance(self.pack_folder, str):
            raise DataError(f"pack_folder must be a folder, not {self.pack_folder!r}.")
        return self

    def load(self) -> dict[str, SteeringPack]:
        """Read the packs.

        Raises:
            ArtefactError, MismatchError: As `SteeringPack.load`.
            DataError: If a file is not the one the server was started with.
        """
        packs = {name: SteeringPack.load(path) for name, path in self.packs.items()}
        for name, pack in packs.items():
            if self.fingerprints.get(name, pack.fingerprint) != pack.fingerprint:
                raise DataError(
                    f"{self.packs[name]} has changed since the server was started; start it again."
                )
        return packs

    def with_fingerprints(self, packs: Mapping[str, SteeringPack]) -> Settings:
        """The same, with the packs' fingerprints."""
        return replace(self, fingerprints={n: pack.fingerprint for n, pack in packs.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain form; `of` reads it back."""
        plain = asdict(self)
        return {**plain, "operators": list(self.operators)}


def _packs(given: Any) -> dict[str, str]:
    if isinstance(given, str):
        return {Path(given).stem: given}
    if isinstance(given, Mapping) and given:
        packs = {str(name): str(path) for name, path in given.items()}
        if all(name and path for name, path in packs.items()):
            return packs
    raise DataError(
        'Name the packs to serve: {"packs": "pack.safetensors"}, or {"packs": {"name": "file"}}.'
    )


def _operators(given: Any) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in served_operators():
            raise unknown("operator of a server", name, served_operators())
    return tuple(name for name in OPERATORS if name in {ADD.name, *names})
