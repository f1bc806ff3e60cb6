"""How a pack shows itself: in a line, in a notebook, as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.core.display import Displayed

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


class PackDisplay(Displayed):
    """What `affectlens.steering.SteeringPack` says of itself."""

    def brief(self) -> dict[str, object]:
        """Emotions, modes, size of the model, whether it reads, model."""
        pack = cast("SteeringPack", self)
        return {
            "emotions": len(pack.emotions),
            "modes": "+".join(pack.modes),
            "layers": pack.n_layers,
            "d_model": pack.d_model,
            "readout": pack.readout is not None,
            **({"enough": self._enough(pack)} if pack.enough else {}),
            **({"calibrated": "+".join(pack.responses)} if pack.responses else {}),
            "model": pack.provenance.model_name,
        }

    @staticmethod
    def _enough(pack: SteeringPack) -> str:
        """Of each emotion how many ranked units keep half of what the model does."""
        counts = {e: int(of["heads"] + of["neurons"]) for e, of in pack.enough.items()}
        return ", ".join(f"{emotion} {count}" for emotion, count in counts.items()) + " units"

    def table_rows(self) -> list[dict[str, object]]:
        """Size of the natural dose of each emotion at each place, and the strength recommended."""
        pack = cast("SteeringPack", self)
        return [
            {
                "mode": (mode := name.partition(".")[0]),
                "point": name.partition(".")[2],
                "layer": layer,
                "emotion": emotion,
                "norm": float(vectors[e, i].norm()),
                "recommended": pack.recommended.get(mode, {}).get(emotion),
            }
            for name, vectors in pack.vectors.items()
            for e, emotion in enumerate(pack.emotions)
            for i, layer in enumerate(pack.layers[name])
        ]
