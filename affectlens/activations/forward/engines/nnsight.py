"""nnsight as an engine: one trace per batch, here or on another machine.

nnsight puts a controller on every module of what it wraps, so it gets a second module tree over the
same weights. Hooks of `affectlens.models.hooking.hooks` and steering do not apply to it.

With ``remote=True`` a batch goes to NDIF, which must serve the model under the hub id it was loaded
by; the address and the key are nnsight's own settings. ``remote="local"`` sends it to nnsight's
imitation of that service in this process.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from affectlens.activations.forward.engines.base import Capabilities, Engine, Reader
from affectlens.core.errors import ModelError
from affectlens.core.extras import needed
from affectlens.core.places import KINDS, Site, in_order
from affectlens.models.hooking.hooks import Tap, taps
from affectlens.models.hooking.shared_weights import same_weights
from affectlens.models.sources import is_hub_id


@dataclass(frozen=True, eq=False)
class NnsightEngine(Engine):
    """nnsight's traces; see the module.

    Attributes:
        remote: As nnsight's ``trace`` takes it: False, True or ``"local"``.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="nnsight",
        kinds=KINDS,
        stops_early=True,
        logits_skipped=True,
        left_padding=True,
        keeps_fused_attention=True,
        remote=True,
        help="Run remotely, whole sites travel back before positions are picked",
    )

    remote: bool | str = False

    @cached_property
    def root(self) -> Any:
        """nnsight's view of the model."""
        if self.model.bridge is not None:
            raise ModelError(
                "nnsight cannot run a TransformerBridge; load the Hugging Face model, or use "
                "engine='transformer_lens'."
            )
        needed("nnsight", "engine='nnsight'")
        from nnsight import TransformersModel

        # nnsight changes the padding side of the tokenizer it is given.
        return TransformersModel(
            same_weights(self.model.hf),
            task="text-generation",
            tokenizer=copy.deepcopy(self.model.tokenizer),
        )

    def _run(self, inputs: Mapping[str, Any], sites: Sequence[Site], read: Reader) -> None:
        ordered = in_order(sites)
        names = {module: name for name, module in self.model.hf.named_modules()}
        found = [taps(self.model.anatomy, site) for site in ordered]
        where = [[f"{names[tap.module]}.{tap.side}" for tap in one] for one in found]
        shape = inputs["input_ids"].shape

        def value_of(one: Sequence[Tap], values: Sequence[Any]) -> Tensor:
            firsts = (value[0] if isinstance(value, tuple) else value for value in values)
            # Some blocks make one axis of batch and position.
            whole = (x.reshape(*shape, -1) if x.ndim == 2 else x for x in firsts)
            scaled = (
                x if tap.scale == 1 else x * tap.scale for tap, x in zip(one, whole, strict=True)
            )
            total = next(scaled)
            for x in scaled:
                total = total + x
            return total

        if self.remote:
            values = iter(self._fetch(inputs, [place for places in where for place in places]))
            for site, one in zip(ordered, found, strict=True):
                read(site, value_of(one, [next(values) for _ in one]).to(self.model.device))
            return
        root = self.root
        with root.trace(**inputs) as tracer:
            for site, one, places in zip(ordered, found, where, strict=True):
                read(site, value_of(one, [root.get(place) for place in places]))
            tracer.stop()

    def _fetch(self, inputs: Mapping[str, Any], where: Sequence[str]) -> list[Tensor]:
        """The values at places named after modules, from the machine that has the model."""
        import nnsight

        root, name = self.root, str(self.model.hf.name_or_path)
        if self.remote is True and not is_hub_id(name):
            raise ModelError(
                f"{self.model.name} was not loaded by a hub id, so no other machine can know it; "
                "load it as owner/name, or use remote=False."
            )
        try:
            with root.trace(**inputs, remote=self.remote) as tracer:
                values = nnsight.save([])
                for place in where:
                    value = root.get(place)
                    values.append(value[0] if isinstance(value, tuple) else value)
                tracer.stop()
        except Exception as error:  # network, key, queue, versions: whatever the service has
            raise ModelError(
                f"nnsight could not run {name} remotely ({error}); check its address, your key and "
                "whether the service has this model."
            ) from error
        return values
