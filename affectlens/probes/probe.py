"""One probe that has been fitted: what it reads, where, and what its probabilities are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.places import Site
from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.calibration import (
    CALIBRATIONS,
    Calibration,
    Conformal,
    Quality,
    Temperature,
    Uncalibrated,
)
from affectlens.probes.calibration.base import SOFTMAX
from affectlens.probes.estimators import PROBES, Fitted
from affectlens.probes.estimators.attention import AttentionFit

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.probes.reading import Readings
    from affectlens.probes.sweep import Sweep

_PARTS = ("fitted", "calibration", "conformal")


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Displayed):
    """A probe of one site, from `affectlens.fit_probe` or `of`.

    Attributes:
        kind: A name in `affectlens.probes.PROBES`.
        site: Where it reads.
        position: Which tokens it was fitted on.
        classes: What it tells apart, in the order of its scores.
        exclusive: Whether a text has one class; else any number of labels, each by itself.
        fitted: The map itself, one site, resample and penalty.
        calibration: What makes probabilities of scores.
        conformal: For label sets; None where nothing was held out for them.
        before: How good its probabilities are without the calibration; None if not measured.
        after: How good they are with it.
        facts: Penalty, counts of texts fitted, calibrated and judged on, what they were.
        provenance: What made it.
    """

    kind: str
    site: Site
    position: str
    classes: tuple[str, ...]
    exclusive: bool
    fitted: Fitted
    calibration: Calibration
    conformal: Conformal | None
    before: Quality | None
    after: Quality | None
    facts: Mapping[str, Any]
    provenance: Provenance

    @property
    def link(self) -> str:
        """``"softmax"`` or ``"sigmoid"``."""
        return PROBES[self.kind].link

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads all tokens of a text at once."""
        return PROBES[self.kind].tokens

    @classmethod
    def of(cls, sweep: Sweep, site: Site | str | None = None) -> Probe:
        """A sweep's probe of a site, uncalibrated; default: the best one.

        Raises:
            UnknownNameError: If the sweep has no such site.
        """
        chosen = sweep.best if site is None else site
        chosen = Site.parse(chosen) if isinstance(chosen, str) else chosen
        i = sweep.index(chosen)
        parts = {"weights": sweep.weights[i], "bias": sweep.bias[i]}
        kind = str(sweep.provenance.parameters.get("probe", "logistic"))
        return cls(
            kind=kind,
            site=chosen,
            position=str(sweep.provenance.parameters.get("position", "")),
            classes=tuple(sweep.classes),
            exclusive=True,
            fitted=PROBES[kind].restore({name: t[None, None, None] for name, t in parts.items()}),
            calibration=Uncalibrated(),
            conformal=None,
            before=None,
            after=None,
            facts={"penalty": sweep.penalty[i], "fitted": sweep.counts["fit"]},
            provenance=_part_of(sweep.provenance, chosen),
        )

    def scores(
        self, x: Float[Tensor, "n d"], texts: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "text class"]:
        """Of raw activations.

        Args:
            x: One row per text; of a probe that reads tokens, all of them, text after text.
            texts: Number of the text of each token, for such a probe.
        """
        more = {"texts": texts} if self.reads_tokens else {}
        return self._beside(x).logits(x[None], **more)[0, 0, 0]

    def token_scores(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token class"]:
        """Of single tokens, each as if it were all there is of the text."""
        fitted = self._beside(x)
        if isinstance(fitted, AttentionFit):
            return fitted.token_logits(x[None])[0, 0, 0]
        return fitted.logits(x[None])[0, 0, 0]

    def _beside(self, x: Tensor) -> Fitted:
        """The map where the rows are."""
        parts = self.fitted.parts()
        if all(tensor.device == x.device for tensor in parts.values()):
            return self.fitted
        return PROBES[self.kind].restore({name: t.to(x.device) for name, t in parts.items()})

    def probabilities(
        self, scores: Float[Tensor, "n class"], *, calibrated: bool = True
    ) -> Float[Tensor, "n class"]:
        """Of scores; of exclusive classes they sum to 1."""
        how = self.calibration if calibrated else Uncalibrated()
        return how.probabilities(scores, self.link, self.exclusive)

    def label_sets(
        self, scores: Float[Tensor, "n class"], coverage: float = 0.9
    ) -> Bool[Tensor, "n class"]:
        """Labels of each text that hold the true one as often as asked; see `Conformal`.

        Raises:
            DataError: If nothing was held out for them, or the coverage is no share.
        """
        if self.conformal is None:
            raise DataError(
                "This probe has no label sets: they need groups that it was not fitted on, and one "
                "class per text; fit it with al.fit_probe."
            )
        return self.conformal.sets(self.probabilities(scores, calibrated=False), coverage)

    def read(self, model: LanguageModel, texts: str | Iterable[str], **options: Any) -> Readings:
        """Probabilities per token and per text; see `affectlens.probes.reading.read`."""
        from affectlens.probes.reading import read

        return read(model, self, texts, **options)

    def folded(self) -> tuple[Float[Tensor, "class d"], Float[Tensor, " class"]]:
        """Weights and intercepts whose softmax are the calibrated probabilities, for packs.

        Raises:
            DataError: If there are none: of probes that are not linear, of labels that are not
                exclusive, or calibrated by curves.
        """
        if not isinstance(self.fitted, LinearFit):
            raise DataError(f"A {self.kind} probe is not linear, so no pack can hold it.")
        if self.link != SOFTMAX or not self.exclusive:
            raise DataError(
                f"The probabilities of a {self.kind} probe are no softmax, which servers compute; "
                "fit logistic, lda or ridge for a pack."
            )
        if not isinstance(self.calibration, (Temperature, Uncalibrated)):
            raise DataError(
                f"A calibration by {self.calibration.kind} cannot be folded into a pack; calibrate "
                "by temperature."
            )
        by = self.calibration.temperature if isinstance(self.calibration, Temperature) else 1.0
        return self.fitted.weights[0, 0, 0] / by, self.fitted.bias[0, 0, 0] / by

    def brief(self) -> dict[str, object]:
        """Kind, site, position, classes, calibration, how far claims are off, model."""
        return {
            "kind": self.kind,
            "site": self.site.hook_name,
            "position": self.position,
            "classes": len(self.classes),
            "calibration": self.calibration.kind,
            **({"ece": f"{self.after.ece:.3f}"} if self.after else {}),
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Log-loss and calibration error before and after."""
        both = {"as claimed": self.before, self.calibration.kind: self.after}
        names = ("log_loss", "ece", "ece_low", "ece_high", "rows", "groups")
        return [
            {"probabilities": name, **{n: getattr(one, n) for n in names}}
            for name, one in both.items()
            if one is not None
        ]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        parts = {name: getattr(self, name) for name in _PARTS}
        tensors = {
            f"{name}.{part}": tensor
            for name, one in parts.items()
            if one is not None
            for part, tensor in one.parts().items()
        }
        facts = {
            "kind": self.kind,
            "site": self.site.hook_name,
            "position": self.position,
            "classes": self.classes,
            "exclusive": self.exclusive,
            "calibration": self.calibration.kind,
            "facts": dict(self.facts),
            **{n: None if one is None else asdict(one) for n, one in self._qualities().items()},
        }
        write_tensors(Path(path), tensors, self.provenance, facts)

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read a file of `save`.

        Raises:
            ArtefactError: If it is missing, damaged or inconsistent.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "probe")
        facts = file.extra

        def parts(of: str) -> dict[str, Tensor]:
            mine = (name for name in file.tensors if name.startswith(f"{of}."))
            return {name.partition(".")[2]: file.tensors[name] for name in mine}

        try:
            sets = parts("conformal")
            loaded = cls(
                kind=str(facts["kind"]),
                site=Site.parse(facts["site"]),
                position=str(facts["position"]),
                classes=tuple(str(name) for name in facts["classes"]),
                exclusive=bool(facts["exclusive"]),
                fitted=PROBES[facts["kind"]].restore(parts("fitted")),
                calibration=CALIBRATIONS[facts["calibration"]].restore(parts("calibration")),
                conformal=Conformal.restored(sets) if sets else None,
                before=_quality(facts["before"]),
                after=_quality(facts["after"]),
                facts=facts["facts"],
                provenance=file.provenance,
            )
            found = loaded.fitted.parts()
            bias = found["outer_bias" if "outer_bias" in found else "bias"]
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); fit the probe again.") from error
        if bias.shape != (1, 1, 1, len(loaded.classes)):
            raise ArtefactError(f"{path}: scores and classes do not fit; fit the probe again.")
        return loaded

    def _qualities(self) -> dict[str, Quality | None]:
        return {"before": self.before, "after": self.after}


def _quality(facts: Any) -> Quality | None:
    if facts is None:
        return None
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    return Quality(**fields)


def _part_of(whole: Provenance, site: Site) -> Provenance:
    """Of one site's probe of a sweep."""
    return Provenance(
        "probe",
        model=whole.model,
        model_name=whole.model_name,
        corpus=whole.corpus,
        parameters={"site": site.hook_name},
        inputs={"sweep": whole.fingerprint},
    )
