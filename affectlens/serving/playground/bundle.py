"""The page's modules as one, for notebooks, which load a single module and no files beside it.

No names clash between the modules (a test holds that), so putting them one after another, each
behind those it imports, and leaving out what tied them together is all there is to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from affectlens.serving.playground.page import static_files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?=(?:default )?(?:async )?(?:function|class|const|let)\b)", re.MULTILINE
)


def bundled(entry: str, modules: Mapping[str, str] | None = None) -> str:
    """One ES module of an entry and all it imports; what the entry exports stays exported.

    Args:
        entry: Name of a module.
        modules: Name to source; default: the page's.
    """
    if modules is None:
        modules = {n: c.decode() for n, c in static_files().items() if n.endswith(".js")}
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for other in _IMPORT.findall(modules[name]):
                visit(other)
            order.append(name)

    visit(entry)
    parts = [_IMPORT.sub("", modules[name]) for name in order]
    inner = [_EXPORT.sub("", part) for part in parts[:-1]]
    return "\n".join([*inner, parts[-1]])
