"""Which scenarios a circuit's units were chosen on, so that no test is made of the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.core.artefact import fingerprint

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.datasets.schema import Corpus

_KEY = "scenarios"


def with_texts(circuit: Circuit, corpus: Corpus) -> Circuit:
    """The circuit, its provenance telling that its units were chosen on these texts too."""
    given = circuit.provenance
    known = {*given.parameters.get(_KEY, ()), *scenario_hashes(corpus).values()}
    parameters = {**given.parameters, _KEY: sorted(known)}
    return replace(circuit, provenance=replace(given, parameters=parameters))


def seen(circuit: Circuit, corpus: Corpus) -> list[str]:
    """The scenarios of a corpus that the circuit's units were chosen on.

    Scenarios are known by the name of their corpus and their own. A circuit whose provenance does
    not tell of any has seen none, as far as is known.
    """
    known = set(circuit.provenance.parameters.get(_KEY, ()))
    return [name for name, value in scenario_hashes(corpus).items() if value in known]


def scenario_hashes(corpus: Corpus) -> dict[str, str]:
    """Of each scenario a short hash."""
    return {name: fingerprint(corpus.name, name)[:8] for name in corpus.scenarios()}
