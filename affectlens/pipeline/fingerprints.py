"""Fingerprints of what stages read besides the artefacts of other stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from affectlens.core import TONES, ArtefactError, fingerprint
from affectlens.core.artefact import package_version, read_json, write_json

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.pipeline.context import RunContext
    from affectlens.pipeline.run_config import RunConfig

LIBRARIES = ("torch", "transformers", "tokenizers")
"""Whose versions are part of every key.

Another version may bring another kernel or model code. That moves activations in their last digits,
a near tie with them, and with a near tie a whole reply. NumPy and scikit-learn stay out: of them
come seeded draws and folds, which both keep stable.
"""


def versions() -> Mapping[str, str]:
    """Of this package, of how it reads activations, and of the libraries that change numbers."""
    from affectlens.activations.capture import CAPTURE_VERSION

    found = {"affectlens": package_version(), "reading": str(CAPTURE_VERSION)}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "?"
    return found


def generated_by(model: LanguageModel) -> Sequence[object]:
    """Whatever of a model its replies depend on, for the keys that they are kept under."""
    place = str(model.device), str(model.dtype)
    return versions(), model.fingerprint, model.text_fingerprint, *place


def _model(run: RunContext) -> str:
    return model_facts(run)["model"]


def _text(run: RunContext) -> str:
    return model_facts(run)["text"]


def model_facts(run: RunContext) -> Mapping[str, str]:
    """Fingerprints of the model and of how it writes and reads text, remembered by its files.

    A second run in which no file changed need not load a gigabyte to learn that.
    """
    if "model" in run.__dict__:  # loaded already: nothing is cheaper
        return _facts(run.model)
    note = run.folder / "state" / "model.json"
    key = _files_key(run.config)
    try:
        known: Mapping[str, Any] = read_json(note)
        if key is not None and known["files"] == key:
            return {"model": str(known["model"]), "text": str(known["text"])}
    except (ArtefactError, KeyError, TypeError):
        pass
    found = _facts(run.model)
    # Loading may have fetched the files, so look again.
    write_json(note, {"files": _files_key(run.config), **found})
    return found


def _facts(model: LanguageModel) -> dict[str, str]:
    return {"model": model.fingerprint, "text": text_fingerprint(model)}


def text_fingerprint(model: LanguageModel) -> str:
    """Of what turns words into tokens, and of what ends replies and turns them into words."""
    tidied = getattr(model.tokenizer, "clean_up_tokenization_spaces", None)
    return fingerprint(model.text_fingerprint, list(model.eos_ids), tidied)


def _files_key(config: RunConfig) -> str | None:
    """Of what the template is told and of the looks of the files behind the model.

    None if the files are not on this machine (yet).
    """
    from affectlens.models.fingerprint import SCHEME
    from affectlens.models.identity import source_files

    stats = [(file.name, file.stat()) for file in source_files(config.model)]
    looks = [(n, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for n, s in stats]
    if not looks:
        return None
    told = (config.model, config.template_variables, config.quantize, config.dtype)
    return fingerprint(*told, looks, versions(), SCHEME)


def _corpora(run: RunContext) -> str:
    ours = ("implicit",) if run.config.own is None else ()
    return fingerprint({n: run.corpus(n).fingerprint for n in ("replies", "tones", *ours)})


def _events(run: RunContext) -> str:
    return run.corpus("events").fingerprint


def _openers(run: RunContext) -> str:
    return fingerprint(run.openers)


def _prompts(run: RunContext) -> str:
    from affectlens.datasets import elicitation_prompt

    if run.config.own is not None:
        return fingerprint(run.config.own.ask)
    forms = (True, False)
    return fingerprint([elicitation_prompt(t, limited=form) for form in forms for t in TONES])


def _judge(run: RunContext) -> str:
    from affectlens.evaluation.judges import encoder
    from affectlens.pipeline.judges import named_judge

    if run.config.own is not None:
        return fingerprint(named_judge(run.config.own), run.source("encoder"))
    place = files("affectlens.evaluation.judges").joinpath(encoder.ADAPTER_FILE)
    with as_file(place) as adapter:
        if not adapter.is_file():
            raise ArtefactError(f"The judge's adapter {adapter} is missing; install again.")
        return fingerprint(run.digests.of(adapter), run.source("encoder"))


def _encoder(run: RunContext) -> str:
    from affectlens.evaluation.judges.encoder import ENCODER
    from affectlens.models.registry import pull

    folder = pull(ENCODER)
    inside = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return fingerprint({str(f.relative_to(folder)): run.digests.of(f) for f in inside})


def _lexicon(_run: RunContext) -> str:
    from affectlens.evaluation.judges import judge_fingerprint

    # Its words also mask feelings, whoever judges.
    return judge_fingerprint("lexicon")  # its words and its rules


SOURCES: Mapping[str, Callable[[RunContext], str]] = {
    "model": _model,
    "text": _text,
    "corpora": _corpora,
    "events": _events,
    "openers": _openers,
    "prompts": _prompts,
    "judge": _judge,
    "lexicon": _lexicon,
    "encoder": _encoder,
}
"""Everything that is not made by a stage:

the model's weights and config; its tokenizer and chat template; the texts, events, openers and
system prompts, authored or the user's own; the judge (adapter and encoder, or what the user named),
the word list, and the plain encoder.
"""
