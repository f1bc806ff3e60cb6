"""What came of trying a probe's directions: a row per emotion and site, with a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from affectlens.core.artefact import Provenance, read_json, write_json
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, MismatchError

ALPHA = 0.05


@dataclass(frozen=True)
class Effect:
    """One effect beside random directions or subspaces of equal rank.

    Attributes:
        value: Mean over items, nats per token.
        low, high: Its 95 % interval over scenarios.
        random: The same of the random ones, their mean.
        spread: Standard deviation between the random ones.
        over_random: The difference.
        p: Of the difference, two-sided: over scenarios or over random ones, whichever is larger;
            corrected for the emotions in a table.
        items: How many items.
    """

    value: float
    low: float
    high: float
    random: float
    spread: float
    over_random: float
    p: float
    items: int

    @property
    def there(self) -> bool:
        """Whether it is there: above random directions, and above nothing."""
        return self.p < ALPHA and self.over_random > 0 and self.low > 0


@dataclass(frozen=True)
class CausalRow:
    """One emotion at one site.

    Attributes:
        site: Hook name.
        emotion: Whose direction.
        auroc: Of held-out rows along the direction, with its 95 % interval over scenarios.
        steers: Slope of the margin against dose, in contexts of other tones.
        silences: Per task, fall of the margin when the direction is erased.
        erased: Per task, fall when all that linear probes can read is erased (LEACE).
        cosine: With the direction that is known to steer; None if there is none of this site.
    """

    site: str
    emotion: str
    auroc: tuple[float, float, float]
    steers: Effect
    silences: Mapping[str, Effect]
    erased: Mapping[str, Effect]
    cosine: float | None

    def adjusted(self, p: Mapping[str, float]) -> CausalRow:
        """With corrected p-values: ``steers``, ``silences.TASK`` and ``erased.TASK``."""
        return replace(
            self,
            steers=replace(self.steers, p=p["steers"]),
            silences={n: replace(o, p=p[f"silences.{n}"]) for n, o in self.silences.items()},
            erased={n: replace(o, p=p[f"erased.{n}"]) for n, o in self.erased.items()},
        )

    @property
    def verdict(self) -> str:
        """In words, in fixed ones: what it does, and what erasing it takes away."""
        words = ["detects"] if self.auroc[1] > 0.5 else []
        words += ["steers"] if self.steers.there else []
        words += [f"silences {name}" for name, one in self.silences.items() if one.there]
        if not words:
            return "does nothing"
        return "detects only" if words == ["detects"] else ", ".join(words)

    @property
    def erasure(self) -> str:
        """In words: what the whole readable subspace carries."""
        words = [name for name, one in self.erased.items() if one.there]
        return f"carries {', '.join(words)}" if words else "carries nothing"


@dataclass(frozen=True, eq=False, repr=False)
class CausalTable(Displayed):
    """From `affectlens.detect_steer_silence`.

    Attributes:
        tasks: Names of the tasks.
        rows: A row per site and emotion.
        provenance: What made it.
    """

    tasks: tuple[str, ...]
    rows: tuple[CausalRow, ...]
    provenance: Provenance

    def brief(self) -> dict[str, object]:
        """Rows, tasks, how many detect, steer and silence, model."""
        verdicts = [row.verdict for row in self.rows]
        return {
            "rows": len(self.rows),
            "tasks": ", ".join(self.tasks),
            **{word: sum(word in v for v in verdicts) for word in ("detects", "steers")},
            "silences": sum("silences" in v for v in verdicts),
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Numbers and words of every row."""
        rows = list[dict[str, object]]()
        for one in self.rows:
            row: dict[str, object] = {
                "site": one.site,
                "emotion": one.emotion,
                "auroc": one.auroc[0],
                "auroc_low": one.auroc[1],
                "auroc_high": one.auroc[2],
                **_flat("slope", one.steers),
            }
            for name in self.tasks:
                row |= _flat(f"fall_{name}", one.silences[name])
                row |= _flat(f"leace_{name}", one.erased[name])
            rows.append(
                {**row, "cosine": one.cosine, "verdict": one.verdict, "erasure": one.erasure}
            )
        return rows

    def save(self, path: str | Path) -> None:
        """Write one JSON file."""
        facts = {
            "kind": self.provenance.kind,
            "tasks": list(self.tasks),
            "rows": [{**asdict(one), "verdict": one.verdict} for one in self.rows],
            "provenance": asdict(self.provenance),
        }
        write_json(Path(path), facts)

    @classmethod
    def load(cls, path: str | Path) -> CausalTable:
        """Read a file of `save`.

        Raises:
            ArtefactError: If it is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        facts = read_json(Path(path))
        try:
            if facts["kind"] != "causal_table":
                raise MismatchError(f"{path} holds a {facts['kind']}, not a causal_table.")
            rows = tuple(_row(one) for one in facts["rows"])
            return cls(tuple(facts["tasks"]), rows, Provenance(**facts["provenance"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error


def _flat(name: str, one: Effect) -> dict[str, object]:
    return {
        name: one.value,
        f"{name}_low": one.low,
        f"{name}_high": one.high,
        f"{name}_random": one.random,
        f"{name}_p": one.p,
    }


def _row(facts: Mapping[str, Any]) -> CausalRow:
    of_task = {
        field: {name: Effect(**one) for name, one in facts[field].items()}
        for field in ("silences", "erased")
    }
    low, middle, high = facts["auroc"]
    return CausalRow(
        facts["site"],
        facts["emotion"],
        (low, middle, high),
        Effect(**facts["steers"]),
        of_task["silences"],
        of_task["erased"],
        facts["cosine"],
    )
