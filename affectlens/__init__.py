"""AffectLens: find where emotion lives in open language models, and turn it like a dial.

The names below are the public API; each is imported when first used, so that ``import affectlens``
costs nothing::

    import affectlens as al

    model = al.load_model("smollm2-135m-instruct")
    corpus = al.datasets.load("replies").filter(role="direction")
    acts = al.capture(model, corpus, sites="resid_post", positions="mean:reply")
    dirs = al.directions(acts)
    circuit = al.find_circuit(model, corpus, dirs)
    pack = al.SteeringPack.from_circuit(circuit, model)
    with pack.steer(model, "anger=1"):
        print(model.generate("My train was cancelled."))
"""

from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from affectlens.core.artefact import package_version

        return package_version()
    try:
        return _public(name)
    except ModuleNotFoundError as error:
        from affectlens.core.errors import ModelError
        from affectlens.core.extras import lacking

        if (said := lacking(error)) is None:
            raise
        raise ModelError(said) from error
