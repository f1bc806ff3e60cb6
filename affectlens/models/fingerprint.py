"""A short name for what a model computes: all its weights, and its config.

The same in bfloat16 and float32, on every device, whole or in shards, wrapped or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from affectlens.core.artefact import canonical_json, fingerprint
from affectlens.core.errors import ModelError
from affectlens.models.adapters import adapter_facts, as_computed
from affectlens.models.placement import kept_elsewhere

SCHEME = 2
"""Of the hash; part of every name, so that names of another scheme never match by chance."""

_PIECE = 2**20  # elements hashed at a time: fits a cache, and large tensors use all cores
# Below the least number that float16 holds with the precision of bfloat16: left out, so that the
# weights of a bfloat16 checkpoint have one name in all three formats.
_LEAST = 2.0**-17
_GLANCES = 16
COMPILED = "_orig_mod."
"""What `torch.compile` puts before the names of what a module it wraps holds."""

_WRAPPER = "._original_component"
_NO_EFFECT = re.compile(
    r"_name_or_path|_commit_hash|_(attn|experts)_implementation.*|transformers_version"
    r"|architectures|auto_map|dtype|torch_dtype|use_bfloat16|torchscript|problem_type|prefix"
    r"|return_dict|use_return_dict|use_cache|output_(attentions|hidden_states|router_logits|past)"
    r"|(bos|eos|pad|sep|cls|unk|mask|decoder_start)_token_id|id2label|label2id|num_labels"
    r"|.*dropout.*|.*_pdrop|.*layerdrop|initializer.*|init_.*|gradient_checkpointing"
    r"|router_aux_loss_coef|router_jitter_noise|router_z_loss_coef|pretraining_tp"
    r"|task_specific_params|tie_word_embeddings"
)
"""Settings of a config that change no forward pass in evaluation mode: bookkeeping, what is
returned, special tokens, training. Every other one counts, those not thought of included."""

Read = Callable[[], Tensor]


def model_fingerprint(hf: Any) -> str:
    """Hash of every weight, every persistent buffer and every setting that changes a forward pass.

    Values are rounded to bfloat16 first, so loading the same weights in float32 gives the same
    name; so does float16 where it can hold them (weights saved in bfloat16 or float16, those below
    8e-6 aside). A model wrapped by a ``TransformerBridge`` has the name of the plain one, and so
    has one that is spread over devices or the disk.

    Adapters of PEFT count as they act just now: switched off or merged they leave the name that
    the model has without them. Quantised weights are named by their codes and scales.

    Raises:
        ModelError: If weights are not in memory.
    """
    tensors, kept = _plain_tensors(hf), kept_elsewhere(hf)
    reads: dict[str, Read] = {}
    for name, values in tensors.items():
        if values.is_meta and id(values) not in kept:
            raise ModelError(
                f"The weights of {type(hf).__name__} are not loaded ({name}); load them first."
            )
        reads[name] = kept.get(id(values)) or partial(_whole, values)
    return _fingerprint(type(hf).__name__, hf.config, reads, adapter_facts(hf))


def checkpoint_fingerprint(folder: Path) -> str:
    """`model_fingerprint` of a folder's safetensors, read without loading the model.

    Raises:
        OSError, KeyError, ValueError: If there are no safetensors or config, or a parameter of the
            model is not stored under its own name (quantised or fused checkpoints).
    """
    import transformers
    from safetensors import safe_open

    config = transformers.AutoConfig.from_pretrained(folder)
    family = str((config.architectures or [""])[0])
    stored: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            stored |= dict.fromkeys(handle.keys(), file)
    if not stored:
        raise OSError(f"no safetensors in {folder}")
    with torch.device("meta"):
        plain = getattr(transformers, family)(config)
    prefix = f"{plain.base_model_prefix}."

    def read(key: str) -> Tensor:
        with safe_open(stored[key], framework="pt") as handle:
            return handle.get_tensor(key)

    reads: dict[str, Read] = {}
    for name in _own_tensors(plain):
        key = name if name in stored else name.removeprefix(prefix)
        if key not in stored:
            raise KeyError(f"no {name} in {folder}")
        reads[name] = partial(read, key)
    return _fingerprint(family, config, reads)


def config_facts(config: Any) -> dict[str, Any]:
    """Settings of the text model that are not the family's defaults and change a forward pass.

    Defaults are left out, so that a newer transformers, which knows more settings, gives the same.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    given: dict[str, Any] = text.to_dict()
    try:
        default: Mapping[str, Any] = type(text)().to_dict()
    except (TypeError, ValueError, AttributeError, KeyError):  # a config without defaults
        default = {}
    absent = object()
    return {
        name: value
        for name, value in given.items()
        if not _NO_EFFECT.fullmatch(name)
        and (name == "model_type" or default.get(name, absent) != value)
    }


def _fingerprint(
    family: str, config: Any, tensors: Mapping[str, Read], adapters: Mapping[str, Any] | None = None
) -> str:
    # Through text: JSON has no tuples, and a config read from a file none either.
    facts = canonical_json({k: _plain(v) for k, v in config_facts(config).items()})
    more = [canonical_json(adapters)] if adapters else []
    return fingerprint(SCHEME, family, facts, _digests(tensors), *more)


def _plain(value: Any) -> Any:
    """What JSON can hold, keys as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        plain = [_plain(v) for v in value]
        return sorted(plain, key=str) if isinstance(value, (set, frozenset)) else plain
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _digests(tensors: Mapping[str, Read]) -> list[tuple[str, list[int], str]]:
    """Name, shape and hash of each tensor, by name; hashed on all cores."""

    def one(name: str) -> tuple[str, list[int], str]:
        values = tensors[name]()
        return name, list(values.shape), tensor_digest(values)

    names = sorted(tensors)
    with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
        return list(pool.map(one, names))


def tensor_digest(values: Tensor) -> str:
    """Hash (32 hex digits) of a tensor's values as bfloat16; of the bytes of one without a point.

    xxHash: fast and of 128 bits. It finds what changed; it is no proof against forgery.
    """
    import xxhash

    digest = xxhash.xxh3_128()
    flat = values.detach().reshape(-1)
    for piece in flat.split(_PIECE):
        digest.update(_piece_bytes(piece))
    return digest.hexdigest()


def _piece_bytes(piece: Tensor) -> Any:
    if not piece.is_floating_point():
        plain = torch.view_as_real(piece) if piece.is_complex() else piece
        plain = plain.cpu().contiguous().view(torch.uint8)
        return memoryview(cast("Any", plain.numpy()))
    rounded = piece.to(torch.bfloat16)
    # In one pass; a NaN stays one.
    kept = torch.nn.functional.hardshrink(rounded, _LEAST)
    if not bool(kept.any()):  # tiny on purpose (layer scales), or zero
        kept = rounded
    return memoryview(cast("Any", kept.cpu().contiguous().view(torch.int16).numpy()))


def glance(hf: Any) -> tuple[str, bytes]:
    """What differs when weights or config have been changed in memory, at a hundredth of the cost.

    The config, which adapters act and how, and of every tensor its address, its version and 16
    values. Offloaded weights are fetched anew for every call, so nobody changes them in memory.
    """
    places: list[Any] = []
    samples: dict[torch.device, list[Tensor]] = {}
    for name, values in _own_tensors(hf).items():
        flat = values.detach().view(-1) if values.is_contiguous() else values.detach().reshape(-1)
        places.append((name, values.data_ptr(), 0 if values.is_inference() else values._version))
        if values.is_meta:
            continue
        step = max(1, len(flat) // _GLANCES)
        samples.setdefault(flat.device, []).append(flat[::step][:_GLANCES].float())
    seen = [torch.cat(some).cpu().numpy().tobytes() for some in samples.values()]
    facts = {k: _plain(v) for k, v in config_facts(hf.config).items()}
    facts["adapters"] = adapter_facts(hf)
    return fingerprint(canonical_json(facts), places), b"".join(seen)


def _whole(values: Tensor) -> Tensor:
    """A tensor that is spread over processes, put together."""
    gather = getattr(values, "full_tensor", None)
    return values if gather is None else gather()


def _own_tensors(hf: Any) -> dict[str, Tensor]:
    """Parameters, tied ones once, and what else a checkpoint holds; adapters as they act."""
    found: dict[str, Tensor] = dict(hf.named_parameters())
    with torch.inference_mode(False):  # torchao's tensors cannot be detached in it
        state: dict[str, Any] = hf.state_dict()
    found |= {name: value for name, value in hf.named_buffers() if name in state}
    every = {name for name, _ in hf.named_parameters(remove_duplicate=False)} | set(found)
    # What quantised modules keep beside their codes is no parameter and no buffer of theirs.
    found |= {k: v for k, v in state.items() if k not in every and isinstance(v, Tensor)}
    if any(values.is_meta for values in found.values()):  # offloaded, so tied ones are apart
        tied = cast("Mapping[str, str]", getattr(hf, "all_tied_weights_keys", None) or {})
        found = {k: v for k, v in found.items() if k not in tied or tied[k] not in found}
    plain = {n.replace(COMPILED, ""): part for k, v in found.items() for n, part in _parts(k, v)}
    return as_computed(hf, plain)


def _parts(name: str, values: Tensor) -> list[tuple[str, Tensor]]:
    """A tensor, or those that one of a class of its own (torchao) is made of."""
    flatten: Any = getattr(values, "__tensor_flatten__", None)
    if flatten is None or hasattr(values, "full_tensor"):
        return [(name, values)]
    inner = [(f"{name}.{own}", getattr(values, own)) for own in flatten()[0]]
    return [part for own, value in inner for part in _parts(own, value)]


def _plain_tensors(hf: Any) -> dict[str, Tensor]:
    """Tensors by the names they have on an unwrapped model."""
    found = _own_tensors(hf)
    if not any(_WRAPPER in name for name in found):  # names of compiled parts are plain already
        return found
    with torch.device("meta"):
        plain = type(hf)(hf.config)
    wanted = set(_own_tensors(plain))
    every: Iterable[tuple[str, Tensor]] = [
        *hf.named_parameters(remove_duplicate=False),
        *hf.named_buffers(remove_duplicate=False),
    ]
    cleaned = {name.replace(_WRAPPER, ""): value for name, value in every}
    return {name: value for name, value in cleaned.items() if name in wanted}
