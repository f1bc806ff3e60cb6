"""Replies of the arms: what was asked, what was said, and what the judges heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, DataError
from affectlens.core.jsonl import read_jsonl, write_jsonl
from affectlens.core.progress import progress

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.reproductions.emotion_circuits.scenarios import Event
    from affectlens.reproductions.study import StudyRun


@dataclass(frozen=True)
class Said:
    """One reply.

    Attributes:
        split, skeleton, valence: Of the content.
        emotion: The target; "" where there is none.
        text: The reply.
        blind: What the blind judge hears; "" before it was asked.
        told: Whether the judge that is told the target hears it; None: not asked, or no answer.
    """

    split: str
    skeleton: str
    valence: str
    emotion: str
    text: str
    blind: str = ""
    told: bool | None = None

    @property
    def group(self) -> str:
        """Key of the content."""
        return f"{self.skeleton}:{self.valence}"


def save_said(path: Path, replies: Sequence[Said]) -> None:
    """Write them, one a line."""
    write_jsonl(path, (asdict(reply) for reply in replies))


def load_said(path: Path) -> list[Said]:
    """Inverse of `save_said`.

    Raises:
        ArtefactError: If the file is missing or damaged.
    """
    try:
        return [Said(**row) for row in read_jsonl(path)]
    except TypeError as error:
        raise ArtefactError(f"{path} is damaged ({error}); run it again with --force.") from error


def generate_said(
    model: LanguageModel,
    events: Sequence[Event],
    asked: Sequence[tuple[str, str]],
    settings: GenerationSettings,
    title: str,
) -> list[Said]:
    """Generate a reply to every event for each (target, emotion of the system prompt).

    Prompts share nothing: what is done at "the last position of a pass" must be the last of the
    prompt.
    """
    from affectlens.models.generation.generation import generate_ids

    chats = [(event, target, system) for event in events for target, system in asked]
    prompts = [
        model.encode_chat(event.record(system).chat, add_generation_prompt=True).ids
        for event, _, system in chats
    ]
    with progress(title, len(prompts)) as advance:
        rows = generate_ids(model, prompts, settings, share_prompts=False, on_progress=advance)
    return [
        Said(
            event.split,
            event.skeleton,
            event.valence,
            target,
            str(model.tokenizer.decode(list(row), skip_special_tokens=True)).strip(),
        )
        for (event, target, _), row in zip(chats, rows, strict=True)
    ]


def require_system_role(model: LanguageModel) -> None:
    """Refuse models that cannot be asked by a system prompt.

    Raises:
        DataError: If the tokenizer has no chat template, or one that prints no system message.
    """
    import jinja2

    if not getattr(model.tokenizer, "chat_template", None):
        raise DataError(
            f"{model.name} is a base model, without a chat template; this study asks for emotions "
            "by system prompt, so name an instruction-tuned model."
        )
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": "QXSYSTEMXQ"},
        {"role": "user", "content": "QXUSERXQ"},
    ]
    try:
        text = str(model.tokenizer.apply_chat_template(chat, tokenize=False))
    except (jinja2.TemplateError, TypeError, ValueError):
        text = ""
    if "QXSYSTEMXQ" not in text:
        raise DataError(
            f"The chat template of {model.name} has no system role; this study asks for emotions "
            "by system prompt, so name a model that has one."
        )


def told_verdicts(run: StudyRun, replies: Sequence[Said]) -> list[bool | None]:
    """Of the judge behind the endpoint; all None without one."""
    endpoint = run.option("endpoint")
    if endpoint is None:
        return [None] * len(replies)
    from affectlens.evaluation.judges.told import ToldJudge

    judge = ToldJudge.at(endpoint, run.option("endpoint_model"))
    with progress("judge told the target", len(replies)) as advance:
        return judge([r.text for r in replies], [r.emotion for r in replies], advance)
