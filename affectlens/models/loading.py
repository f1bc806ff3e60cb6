"""Loading a language model by name, hub id, folder, GGUF file or object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError, ModelError, unknown
from affectlens.models.adapters import has_adapters, without_wrapper
from affectlens.models.anatomy.anatomy import Anatomy
from affectlens.models.anatomy.discovery import take_apart
from affectlens.models.anatomy.softcap import keep_soft_cap
from affectlens.models.anatomy.transformer_lens import bridged_model
from affectlens.models.anatomy.unembedding import unembed
from affectlens.models.chat.chats import TokenizedRow, encode
from affectlens.models.chat.special_tokens import stop_ids
from affectlens.models.chat.variables import check_variables
from affectlens.models.devices import pick_device, pick_dtype
from affectlens.models.fingerprint import checkpoint_fingerprint
from affectlens.models.hooking.compiled import uncompiled
from affectlens.models.identity import (
    ModelIdentity,
    WatchedFingerprint,
    known_identity,
    remember_identity,
    text_fingerprint,
)
from affectlens.models.placement import Spread, SpreadOptions, device_of, is_spread
from affectlens.models.refusals import check_task
from affectlens.models.sinks import Sinks, find_sinks
from affectlens.models.sources import Reading, check_options, locate, read_model
from affectlens.models.step import position_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from affectlens.models.anatomy.padding import PaddingCheck


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer, and where its parts are.

    Attributes:
        name: What it was loaded by, for messages.
        hf: The Hugging Face model, in evaluation mode.
        tokenizer: Its tokenizer.
        anatomy: Where attention, MLPs and norms are.
        watched: Gives its fingerprint.
        bridge: The ``TransformerBridge`` it was made from, if it was.
        template_variables: What its chat template is told, wherever it writes a chat.
    """

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    watched: WatchedFingerprint
    bridge: Any = None
    template_variables: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def fingerprint(self) -> str:
        """Hash of all weights and of the config as they are now; see `model_fingerprint`."""
        return self.watched()

    @property
    def text_fingerprint(self) -> str:
        """Hash of what decides which tokens a chat becomes: tokenizer, template, variables."""
        found = text_fingerprint(self.tokenizer)
        variables = dict(self.template_variables)
        return fingerprint(found, variables) if variables else found

    def with_template_variables(self, variables: Mapping[str, Any]) -> LanguageModel:
        """The same model, whose chat template is told more; see `load_model`.

        Raises:
            DataError: If there is no template, or it does not use a name.
        """
        told = {**self.template_variables, **variables}
        checked = check_variables(self.tokenizer, told, self.name)
        return replace(self, template_variables=checked)

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool
    ) -> TokenizedRow:
        """Tokens of a chat in the model's template; see `affectlens.models.chat.chats.render`."""
        return encode(
            self.tokenizer,
            messages,
            add_generation_prompt=add_generation_prompt,
            variables=self.template_variables,
        )

    @property
    def device(self) -> torch.device:
        """Where inputs must be: the first device of a model that is spread over several."""
        return device_of(self.hf.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self._embedding().dtype

    @property
    def n_layers(self) -> int:
        """How many blocks."""
        return self.anatomy.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.anatomy.d_model

    @property
    def context_length(self) -> int:
        """Longest sequence, in tokens."""
        return self.anatomy.context_length

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a reply, the chat template's end of turn first."""
        return stop_ids(self.hf, self.tokenizer)

    @cached_property
    def sinks(self) -> Sinks:
        """Tokens that means leave out; see `affectlens.models.sinks`. Measured when first asked."""
        # In a context of its own: what is steered where this is asked for has no part in it.
        return Context().run(find_sinks, self)

    @property
    def pad_id(self) -> int:
        """Token that fills up short rows; masked, so its value never matters."""
        pad: Any = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else next(iter(self.eos_ids), 0)

    def encode_batch(
        self, rows: Sequence[Sequence[int]], side: str = "right"
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Pad rows of token ids to one length.

        Args:
            rows: Token ids, none of the rows empty.
            side: Where the padding goes, ``"left"`` or ``"right"``.

        Returns:
            Ids and attention mask (1 = real), on the model's device.

        Raises:
            DataError: If there is no row, an empty row, or an id outside the vocabulary.
            UnknownNameError: If the side is neither.
        """
        if side not in ("left", "right"):
            raise unknown("side", side, ["left", "right"])
        if not rows or not all(len(row) for row in rows):
            raise DataError("Every text needs at least one token; drop the empty ones.")
        vocabulary = self._embedding().shape[0]
        highest = max(max(row) for row in rows)
        if highest >= vocabulary or min(min(row) for row in rows) < 0:
            raise DataError(
                f"Token id {highest} is outside the vocabulary of {self.name} ({vocabulary} "
                "tokens); the tokenizer belongs to another model."
            )
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            where = slice(longest - len(row), None) if side == "left" else slice(len(row))
            ids[i, where] = torch.tensor(row, dtype=torch.long)
            mask[i, where] = 1
        return ids.to(self.device), mask.to(self.device)

    @staticmethod
    def position_ids(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """Positions counted over real tokens only, so that left padding changes nothing."""
        return position_ids(mask)

    @cached_property
    def padding(self) -> PaddingCheck:
        """Which rows may run in one batch; see `affectlens.models.anatomy.padding`."""
        from affectlens.models.anatomy.padding import PaddingCheck

        return PaddingCheck(self)

    def logits(self, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Logits of ``last_hidden_state`` of `anatomy.base` (any rows of it); see `unembed`."""
        return unembed(self.hf, hidden)

    @overload
    def generate(  # pyright: ignore[reportOverlappingOverload]
        self, prompt: str, *, system: str | None = None, max_new_tokens: int = 40, **options: Any
    ) -> str: ...
    @overload
    def generate(
        self,
        prompt: Sequence[str],
        *,
        system: str | None = None,
        max_new_tokens: int = 40,
        **options: Any,
    ) -> list[str]: ...
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        system: str | None = None,
        max_new_tokens: int = 40,
        **options: Any,
    ) -> str | list[str]:
        """Reply to prompts; see `affectlens.models.generation` for the options."""
        from affectlens.models.generation.generation import generate

        return generate(self, prompt, system=system, max_new_tokens=max_new_tokens, **options)

    def _embedding(self) -> Tensor:
        embedding: Any = self.hf.get_input_embeddings()
        return embedding.weight


def load_model(
    source: Any,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    template_variables: Mapping[str, Any] | None = None,
    **spread: Unpack[SpreadOptions],
) -> LanguageModel:
    """Load a causal language model.

    Args:
        source: A built-in name (``"smollm2-135m-instruct"``), a hub id (``"owner/name"``), a local
            folder, a folder with an adapter of PEFT, a ``.gguf`` file, a Hugging Face model, a
            ``PeftModel``, or a ``TransformerBridge``.
        tokenizer: Needed with a Hugging Face model; otherwise replaces the one that comes along.
        device: Default: the best there is. Objects stay where they are unless told otherwise.
        dtype: Default: bfloat16 where the device is fast at it, else float32. Objects likewise.
        template_variables: What the chat template is told, for example ``{"enable_thinking":
            True}`` or ``{"reasoning_effort": "high"}``; part of every key that depends on prompts.
        spread: For large models, fields of `affectlens.models.placement.Spread`:
            ``device_map="auto"`` (instead of ``device``), ``max_memory``, ``offload_folder``,
            ``quantization_config``.

    Returns:
        The model in evaluation mode. An object passed in is used itself, not a copy; adapters
        inside act as they are switched.

    Raises:
        UnknownNameError: If there is no such model, device or dtype.
        ModelError: If the weights cannot be read or the architecture is not understood.
        DataError: If options contradict each other, or the template does not use a variable.
    """
    bridge = None
    options = Spread(**spread).options()
    check_options(source, options, device)
    if isinstance(source, (str, Path)):
        name = str(source)
        where = pick_device(device)
        like = Reading(pick_dtype(dtype, where), where, tokenizer is None, options)
        hf, own_tokenizer = read_model(source, like)
    else:
        source = uncompiled(source)
        source = without_wrapper(source)
        inside = bridged_model(source)
        hf, own_tokenizer = inside or (source, None)
        bridge = None if inside is None else source
        if not isinstance(hf, torch.nn.Module) or not hasattr(hf, "config"):
            raise ModelError(
                f"A {type(source).__name__} is not a language model; give a name, a path, a "
                "Hugging Face causal language model or a TransformerBridge."
            )
        name = str(getattr(hf.config, "_name_or_path", "") or type(hf).__name__)
        check_task(hf, name)
        if device is not None:
            hf = hf.to(pick_device(device))
        if dtype is not None:
            hf = hf.to(pick_dtype(dtype, pick_device(device)))
        hf.eval()
    tokenizer = tokenizer if tokenizer is not None else own_tokenizer
    if tokenizer is None:
        raise ModelError(f"{name} needs its tokenizer: load_model(model, tokenizer=...).")
    model: Any = hf
    keep_soft_cap(model)
    anatomy = take_apart(model)
    named = _watched(model, own_tokenizer, source if isinstance(source, (str, Path)) else None)
    loaded = LanguageModel(name, model, tokenizer, anatomy, named, bridge)
    return loaded.with_template_variables(template_variables) if template_variables else loaded


def _watched(hf: Any, tokenizer: Any, source: str | Path | None) -> WatchedFingerprint:
    """The fingerprint, by the files it came from if they are known."""
    # Neither what is spread or quantised on the way nor an adapter is named by its files alone.
    if source is None or has_adapters(hf) or is_spread(hf) or hasattr(hf, "hf_quantizer"):
        return WatchedFingerprint(hf)
    known = known_identity(source)
    if known is not None and known.text:
        return WatchedFingerprint(hf, known.weights)
    # What float16 rounds away would give another name, so the files are asked.
    name = _name_of_files(source) if hf.dtype == torch.float16 else None
    watched = WatchedFingerprint(hf, name)
    if name is not None or hf.dtype != torch.float16:
        text = "" if tokenizer is None else text_fingerprint(tokenizer)
        remember_identity(source, ModelIdentity(watched(), text))
    return watched


def _name_of_files(source: str | Path) -> str | None:
    folder = Path(locate(source))
    try:
        return checkpoint_fingerprint(folder) if folder.is_dir() else None
    except (OSError, KeyError, ValueError):
        return None
