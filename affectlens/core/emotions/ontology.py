"""Label sets as small ontologies: JSON-LD that others can read, and theirs read back.

The vocabulary is SKOS where it has a word (concept, broader, preferred label), and TONE's relations
(Gupta et al., arXiv 2401.06810: opposite, composed of) where it has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from affectlens.core.artefact import read_json, write_json
from affectlens.core.emotions.coordinates import DIMENSIONS, Coordinates
from affectlens.core.emotions.label_sets import LabelSet
from affectlens.core.errors import DataError

SUFFIX = ".jsonld"
_OWN = "urn:affectlens:labels#"
_KIN = {"broader": "broader", "opposite": "opposite", "milder": "milder", "stronger": "stronger"}
CONTEXT: Mapping[str, Any] = {
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "dcterms": "http://purl.org/dc/terms/",
    "own": _OWN,
    "name": "dcterms:identifier",
    "help": "dcterms:description",
    "source": "dcterms:source",
    "labels": {"@id": "skos:hasTopConcept", "@container": "@list"},
    "label": "skos:prefLabel",
    "mixtures": {"@id": "own:mixture"},
    "composedOf": {"@id": "own:composedOf", "@container": "@list"},
    **{name: "skos:broader" if name == "broader" else f"own:{name}" for name in _KIN},
    **{name: f"own:{name}" for name in (*DIMENSIONS, "term", "rated_by")},
}
"""What each word of a file means, as linked data."""


def to_jsonld(labels: LabelSet) -> dict[str, Any]:
    """A label set as plain JSON-LD."""
    return {
        "@context": dict(CONTEXT),
        "@id": f"{_OWN}{labels.name}",
        "@type": "skos:ConceptScheme",
        "name": labels.name,
        "help": labels.help,
        "source": labels.source,
        "labels": [_concept(labels, label) for label in labels.labels],
        "mixtures": [
            {"@type": "skos:Concept", "label": name, "composedOf": list(pair)}
            for name, pair in labels.composed_of.items()
        ],
    }


def from_jsonld(document: Mapping[str, Any], where: str = "The document") -> LabelSet:
    """Inverse of `to_jsonld`; what it does not know is passed over.

    Args:
        document: Of a file.
        where: For messages.

    Raises:
        DataError: If it holds no label set.
    """
    labels = list[str]()
    kin: dict[str, dict[str, str]] = {name: {} for name in _KIN}
    known = dict[str, Coordinates]()
    for concept in _concepts(document.get("labels"), where):
        label = concept["label"]
        labels.append(label)
        for name in _KIN:
            if isinstance(concept.get(name), str):
                kin[name][label] = concept[name]
        if "valence" in concept:
            known[label] = _coordinates(concept, f"{where}: {label}")
    mixed = dict[str, tuple[str, str]]()
    for concept in _concepts(document.get("mixtures", []), where):
        parts = concept.get("composedOf")
        if not isinstance(parts, list) or len(cast("list[Any]", parts)) != 2:
            raise DataError(f"{where}: {concept['label']} is not composed of two labels.")
        mixed[concept["label"]] = (str(parts[0]), str(parts[1]))
    if not labels:
        raise DataError(
            f"{where} holds no labels; a label set is JSON-LD with a list labels, as "
            "`affectlens labels show NAME --export FILE` writes it."
        )
    return LabelSet(
        name=str(document.get("name", "own")),
        help=str(document.get("help", "read from a file")),
        labels=tuple(labels),
        source=str(document.get("source", "")),
        composed_of=mixed,
        own_coordinates=known,
        **kin,
    )


def export_labels(labels: LabelSet, path: str | Path) -> None:
    """Write a label set to a JSON-LD file, atomically."""
    write_json(Path(path), to_jsonld(labels))


def import_labels(path: str | Path) -> LabelSet:
    """Inverse of `export_labels`.

    Raises:
        ArtefactError: If the file is missing or no JSON.
        DataError: If it holds no label set.
    """
    document = read_json(Path(path))
    if not isinstance(document, dict):
        raise DataError(f"{path} holds no label set: not a JSON object.")
    return from_jsonld(cast("dict[str, Any]", document), str(path))


def _concept(labels: LabelSet, label: str) -> dict[str, Any]:
    made: dict[str, Any] = {"@id": f"{_OWN}{label}", "@type": "skos:Concept", "label": label}
    for name in _KIN:
        table: Mapping[str, str] = getattr(labels, name)
        if label in table:
            made[name] = table[label]
    found = labels.coordinates(label)
    if found is not None:
        made |= {"valence": found.valence, "arousal": found.arousal}
        made |= {"dominance": found.dominance, "term": found.term, "rated_by": found.source}
    return made


def _concepts(listed: Any, where: str) -> Iterator[dict[str, Any]]:
    if not isinstance(listed, list):
        return
    for concept in cast("list[Any]", listed):
        named = isinstance(concept, dict) and isinstance(cast("Any", concept).get("label"), str)
        if not named:
            raise DataError(f"{where}: a concept has no label.")
        yield cast("dict[str, Any]", concept)


def _coordinates(concept: Mapping[str, Any], where: str) -> Coordinates:
    try:
        v, a, d = (float(concept[name]) for name in DIMENSIONS)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where} needs valence, arousal and dominance as numbers.") from None
    if not all(-1 <= number <= 1 for number in (v, a, d)):
        raise DataError(f"{where}: valence, arousal and dominance lie between -1 and 1.")
    term, source = concept.get("term", concept["label"]), concept.get("rated_by", "")
    return Coordinates(v, a, d, str(term), str(source))
