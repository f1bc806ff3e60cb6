"""A text with every token in the colour of what a pack's probe reads there, for notebooks."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, Site
from affectlens.core.display import Displayed
from affectlens.inspection.lenses import PROBES, Lens
from affectlens.models.hooking.hooks import reading
from affectlens.models.step import accepted
from affectlens.serving.playground.page import static_files

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack

KNOWN = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Labels with a colour and an underline of their own, in the order of the page's style sheet."""


@dataclass(frozen=True, eq=False, repr=False)
class ColouredText(Displayed):
    """A text as a probe reads it, token by token. Notebooks show it in colours.

    Attributes:
        tokens: As text; joined, they are what the model saw.
        classes: Order of the shares.
        layer: Block after which the probe reads.
        shares: Probabilities at each token, of what is read there when it has been said.
    """

    tokens: tuple[str, ...]
    classes: tuple[str, ...]
    layer: int
    shares: Float[Tensor, "token label"]

    def brief(self) -> dict[str, object]:
        """Tokens, classes, layer."""
        return {
            "tokens": len(self.tokens),
            "classes": ", ".join(self.classes),
            "layer": self.layer,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Of each token its likeliest class and all probabilities."""
        return [
            {
                "token": token,
                "class": self.classes[int(own.argmax())],
                **dict(zip(self.classes, own.tolist(), strict=True)),
            }
            for token, own in zip(self.tokens, self.shares, strict=True)
        ]

    def _repr_html_(self) -> str:
        spans = "".join(
            self._span(token, own) for token, own in zip(self.tokens, self.shares, strict=True)
        )
        legend = "".join(
            f'<li><span class="al-token {style_class(label, k)}" style="--p:0.7">'
            f"{html.escape(label)}</span></li>"
            for k, label in enumerate(self.classes)
            if label != "neutral"
        )
        css = static_files()["play.css"].decode()
        return (
            f'<style>{css}</style><div class="al"><div class="al-tokens">{spans}</div>'
            f'<ul class="al-legend">{legend}</ul></div>'
        )

    def _span(self, token: str, own: Tensor) -> str:
        top = int(own.argmax())
        label, share = self.classes[top], float(own[top])
        told = f"reads {label} {share:.0%}"
        kind = "" if label == "neutral" else style_class(label, top)
        faint = " al-faint" if share < 0.5 else ""
        return (
            f'<span class="al-token {kind}{faint}" style="--p:{share:.3f}" '
            f'title="{html.escape(told)}">{html.escape(token)}</span>'
        )


def style_class(label: str, index: int) -> str:
    """The style class of a label; ``tokens.js`` has the same."""
    return f"al-e{KNOWN.index(label)}" if label in KNOWN else f"al-x{index % 4}"


@torch.inference_mode()
def read_text(
    model: LanguageModel, pack: SteeringPack | str | Path, text: str, *, force: bool = False
) -> ColouredText:
    """Read a plain text with the probe that a pack reads by.

    `affectlens.read` reads with any probe, whole corpora too, and knows how sure it may be.

    Args:
        model: The pack's.
        pack: With probes; or its file or name.
        text: What to read.
        force: Take a pack of another model of the same shape.

    Raises:
        ArtefactError: If a file is no pack.
        DataError: If the pack has no probes, or the text no tokens or too many.
        MismatchError: If the pack is for another model.
    """
    from affectlens.steering.pack import SteeringPack

    loaded = pack if isinstance(pack, SteeringPack) else SteeringPack.load(pack)
    loaded.require_model(model, force=force)
    readout = loaded.readout
    if readout is None:
        raise DataError(
            "This pack holds no probes to read with; make it with pack.with_readout(sweep)."
        )
    lens = Lens(PROBES, readout.classes, readout.layers, readout.weights, readout.bias)
    tokenizer: Any = model.tokenizer
    row = [int(one) for one in tokenizer(text)["input_ids"]]
    if not 0 < len(row) <= model.context_length:
        raise DataError(
            f"The text has {len(row)} tokens; {model.name} takes 1 to {model.context_length}."
        )
    ids, mask = model.encode_batch([row])
    found: list[Tensor] = []
    last = len(lens.layers) - 1

    def read(_site: Site, value: Tensor) -> None:
        found.append(lens.read(last, value[0]))

    site = lens.sites[last]
    base = model.anatomy.base
    places = accepted(base, position_ids=model.position_ids(mask), use_cache=False)
    with reading(model.anatomy, [site], read, stop_after=site):
        base(input_ids=ids, attention_mask=mask, **places)
    pieces = tuple(str(tokenizer.decode([one])) for one in row)
    return ColouredText(pieces, lens.columns, lens.layers[last], found[0])
