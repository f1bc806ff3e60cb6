"""What a run is asked to do, checked at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from affectlens.core import DataError
from affectlens.pipeline.own.choice import OwnCorpus

DEFAULT_MODEL = "smollm2-135m-instruct"


class RunConfig(BaseModel):
    """Parameters of `affectlens.pipeline.run`.

    Attributes:
        model: Built-in name, hub id, local folder or GGUF file.
        out: Run folder.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or None for the best there is.
        dtype: ``"bfloat16"``, ``"float16"``, ``"float32"``, or None for what the device is fast at.
        device_map: Spreads the model over devices, main memory and disk; see `load_model`.
        quantize: Name of a quantiser, see `affectlens.models.quantisers.QUANTISERS`; what it makes
            of the weights is another model in every key.
        events: At most so many scenarios (three events each) to tune on and to test on; None = all.
        size: How much is done, a name in `affectlens.pipeline.sizes.SIZES`.
        style: How replies are to show a feeling, a name in `affectlens.pipeline.styles.STYLES`.
        seed: Of everything random: folds, bootstrap, random direction.
        max_new_tokens: Length of generated replies.
        backend: What generates the arms, a name in `affectlens.evaluation.BACKENDS`. It changes the
            stage ``evaluate`` alone, strengths are chosen as ever.
        url: A vLLM server that runs already and has the packs of the run, or a Ray cluster; None
            starts one.
        vllm_python: Interpreter of the environment that has vLLM, to start one with.
        ray_workers: Processes of the back end ``ray``; None: one per GPU, else two.
        template_variables: What the chat template is told, by name; part of every key that
            depends on prompts.
        own: Texts and labels of one's own; None: ours.
        force: Redo stages even if nothing changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = DEFAULT_MODEL
    out: Path = Path("runs/demo")
    device: str | None = None
    dtype: str | None = None
    device_map: str | None = None
    quantize: str | None = None
    events: int | None = Field(default=None, ge=1)
    size: str = "full"
    style: str = "explicit"
    seed: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=40, ge=4, le=1024)
    backend: str = "transformers"
    url: str | None = None
    vllm_python: str | None = None
    ray_workers: int | None = Field(default=None, ge=1)
    template_variables: dict[str, Any] = Field(default_factory=dict)
    own: OwnCorpus | None = None
    force: bool = False

    @field_validator("backend")
    @classmethod
    def _known(cls, backend: str) -> str:
        from affectlens.evaluation.backends import BACKENDS

        return BACKENDS[backend].name

    @classmethod
    def checked(cls, **options: Any) -> RunConfig:
        """Build one, with problems told in a sentence.

        Raises:
            DataError: If an option is unknown or out of range.
            UnknownNameError: If there is no such back end.
        """
        from affectlens.evaluation.backends import BACKENDS

        try:
            config = cls(**options)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, p['loc']))}={p.get('input')!r}: {p['msg']}"
                for p in error.errors()
            )
            raise DataError(f"These run options do not work: {problems}.") from None
        kind = BACKENDS[config.backend]
        if (config.url and not kind.has_address) or (config.vllm_python and kind.name != "vllm"):
            raise DataError("--url and --vllm-python are for --backend vllm; give that as well.")
        if config.ray_workers and kind.name != "ray":
            raise DataError("--ray-workers is for --backend ray; give that as well.")
        if kind.name in ("vllm", "ray") and (config.quantize or config.device_map):
            who = "A vLLM server loads the model in its"
            if kind.name == "ray":
                who = "Ray's workers load the model in their"
            raise DataError(
                f"{who} own way; leave out --backend {kind.name}, or --quantize and --device-map."
            )
        if config.device_map is not None and config.device is not None:
            raise DataError("Give --device for one device or --device-map for several, not both.")
        if config.url and config.vllm_python:
            raise DataError(
                "--url names a server that runs already, --vllm-python starts one; give one of "
                "them."
            )
        return config
