"""What must hold of a circuit's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.core.errors import DataError, MismatchError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit


def check_circuit(circuit: Circuit) -> None:
    """Refuse shapes that do not fit each other, what is not finite, and evidence of other units.

    Raises:
        DataError: If there are any.
        MismatchError: If the evidence is about other units.
    """
    e, layers, d_mlp = circuit.neuron_scores.shape
    n_heads = circuit.head_scores.shape[-1]
    shapes = {
        "head_scores": (e, layers, n_heads),
        "delta_neurons": (e, layers, d_mlp),
        "allocation": (e, layers, 2),
        "sizes": (layers, 2),
        "routed": (layers,),
    }
    for name, shape in shapes.items():
        if tuple(getattr(circuit, name).shape) != shape or e != len(circuit.emotions):
            raise DataError(
                f"{name} of the circuit has shape {list(getattr(circuit, name).shape)}, not "
                f"{list(shape)}."
            )
    width = circuit.delta_heads.shape[-1]
    if tuple(circuit.delta_heads.shape[:2]) != (e, layers) or width % max(n_heads, 1):
        raise DataError(
            f"delta_heads of the circuit has shape {list(circuit.delta_heads.shape)}; it needs "
            f"[{e}, {layers}, a multiple of {n_heads}]."
        )
    for name in ("neuron_scores", "head_scores", "delta_neurons", "delta_heads"):
        if not bool(getattr(circuit, name).isfinite().all()):
            raise DataError(f"{name} of the circuit holds NaN or infinity; make it again.")
    if circuit.evidence is not None and circuit.evidence.units != circuit.units_fingerprint:
        raise MismatchError(
            "The evidence is about other units than the circuit has; test this circuit anew, or "
            "drop the evidence with `circuit.with_evidence(None)`."
        )
