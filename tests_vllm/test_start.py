"""Servers that must not start, and what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import AffectLensError, ArtefactError, DataError, MismatchError, ModelError
from affectlens.serving.settings import Settings
from affectlens.serving.vllm import internals
from affectlens.serving.vllm import model_runners as runners
from tests_vllm.cases import FOLDER
from tests_vllm.engines import SETTINGS, ask, elsewhere, engine_options, request, start

PACK = str(FOLDER / "tiny.safetensors")


def configured(settings: Any, **options: Any) -> Any:
    """What vLLM does first: its configuration, without an engine yet."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        **engine_options(**options), additional_config={"affectlens": settings}
    ).create_engine_config()


def test_a_pack_of_this_model_is_accepted() -> None:
    """Without force: weights in the file are compared with what the pack was made on."""
    config = configured(dict(SETTINGS))
    settings = Settings.of(config.additional_config)
    assert settings is not None and set(settings.fingerprints) == {"tiny"}


def test_a_pack_of_another_model() -> None:
    with pytest.raises(MismatchError) as caught:
        configured({"packs": str(FOLDER / "other.safetensors")})
    from affectlens.serving.vllm.startup_checks import served_fingerprint
    from affectlens.steering.pack import SteeringPack

    told = str(caught.value)
    assert str(SteeringPack.load(FOLDER / "other.safetensors").provenance.model) in told
    assert served_fingerprint(str(FOLDER / "tiny")) in told and str(FOLDER / "tiny") in told
    assert configured({"packs": str(FOLDER / "other.safetensors"), "force": True})


@pytest.mark.parametrize("force", [False, True])
def test_a_pack_of_another_width(force: bool) -> None:
    with pytest.raises(MismatchError, match=r"width 96.*tiny has 3 and 64"):
        configured({"packs": str(FOLDER / "wide.safetensors"), "force": force})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "Name the packs to serve"),
        ({"packs": 3}, "Name the packs to serve"),
        ("pack.safetensors", "must be a mapping"),
        ({"packs": PACK, "pack": PACK}, "Unknown steering setting 'pack'"),
        ({"packs": {"a": PACK, "b": PACK, "c": PACK}}, "max_packs must be at least .*3"),
        ({"packs": PACK, "default": "angr=1"}, "Unknown emotion 'angr'"),
        ({"packs": PACK, "default": "anger=1e9"}, "between -20 and 20"),
        ({"packs": PACK, "operators": ["add", "mul"]}, "Unknown operator of a server 'mul'"),
        ({"packs": PACK, "reserve": "some"}, "Unknown reserve 'some'"),
        ({"packs": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_bad_settings(settings: Any, sentence: str) -> None:
    with pytest.raises(AffectLensError, match=sentence):
        configured(settings)


@pytest.mark.parametrize(
    ("option", "value"),
    [("enable_dbo", True), ("ubatch_size", 2), ("prefill_context_parallel_size", 2)],
)
def test_steps_whose_tokens_are_split(option: str, value: Any) -> None:
    """Whose token is whose is counted over the whole step, so part of it would go unsteered."""
    from affectlens.serving.vllm.startup_checks import check_start

    config = configured(dict(SETTINGS))
    settings = Settings.of(config.additional_config)
    assert settings is not None and check_start(settings, config) == settings
    assert hasattr(config.parallel_config, option)
    setattr(config.parallel_config, option, value)
    with pytest.raises(DataError, match=rf"together, and .*{option}.* splits them"):
        check_start(settings, config)


def test_damaged_packs(tmp_path: Path) -> None:
    whole = Path(PACK).read_bytes()
    for name, content in (("cut", whole[:-100]), ("empty", b""), ("noise", b"\xff" * 500)):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match=name):
            configured({"packs": str(path)})


def test_a_pack_that_changes_while_the_server_starts(tmp_path: Path) -> None:
    """Workers read the file later than the front end; what they read must be the same."""
    from vllm.v1.engine.llm_engine import LLMEngine

    path = tmp_path / "pack.safetensors"
    shutil.copy(PACK, path)
    config = configured({"packs": str(path)})
    shutil.copy(FOLDER / "second.safetensors", path)
    with pytest.raises(DataError, match=r"pack.safetensors has changed since the server was start"):
        LLMEngine.from_vllm_config(config)


def test_another_version_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.99.1")
    with pytest.raises(ModelError, match=r"tested with vLLM 0\.32, this is 0\.99\.1"):
        configured(dict(SETTINGS))
    assert configured({**SETTINGS, "untested_version": True})
    # Unsteered models it serves all the same.
    from vllm.engine.arg_utils import EngineArgs

    EngineArgs(**engine_options()).create_engine_config()


def test_a_private_name_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = "vllm.v1.core.kv_cache_utils:generate_keys"
    monkeypatch.setattr(internals, "NAMES", (*internals.NAMES, gone))
    with pytest.raises(ModelError, match=r"has no vllm\.v1\.core\.kv_cache_utils:generate_keys"):
        configured({**SETTINGS, "untested_version": True})


def test_workers_that_do_not_steer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps them from it, the server does not start and answer unsteered."""
    monkeypatch.setattr(runners, "attach", lambda _worker, _settings: None)
    with pytest.raises(ModelError, match="workers of this vLLM do not steer"):
        start(settings=SETTINGS)


def test_a_family_that_is_not_known(tmp_path: Path) -> None:
    """OPT keeps its layers elsewhere; the message names what was not found."""
    import transformers

    config = transformers.OPTConfig(
        vocab_size=200, hidden_size=64, ffn_dim=64, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=256, word_embed_proj_dim=64,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="OPTForCausalLM"):
        start(settings={**SETTINGS, "force": True}, model=str(tmp_path), skip_tokenizer_init=True)


def test_a_mixture_of_experts(tmp_path: Path) -> None:
    """It has layers, but no projection that all tokens go through."""
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=200, hidden_size=64, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, num_local_experts=2,
        max_position_embeddings=256,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path)
    told = r"ModelError: .*MixtralForCausalLM.*mixture of experts"
    # vLLM makes what experts need with the first engine of a process, so this one has its own.
    with pytest.raises(AssertionError, match=told):
        elsewhere(
            [], tmp_path, settings={**SETTINGS, "force": True}, model=str(tmp_path),
            skip_tokenizer_init=True,
        )  # fmt: skip


def test_after_all_this_a_good_one_starts(own_caches: Path) -> None:
    llm = start(settings=SETTINGS)
    (plain, steered) = ask(llm, [request([5, 6, 7]), request([5, 6, 7], "anger=1;positions=all")])
    assert plain.tokens != steered.tokens
    assert json.dumps(llm.collective_rpc("affectlens_state"))
