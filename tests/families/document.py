"""Writes docs/models.md: what of each family can be read, as tiny models of it prove.

python -m tests.families.document
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affectlens.models.anatomy.discovery import take_apart
from affectlens.models.anatomy.levels import levels
from tests.families.matrix import GROUPS, build

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_HEAD = """# Models

What AffectLens can read and steer in a model is told from the model itself when it is loaded, block
by block, and proved on its own numbers:

- **stream**: `resid_pre` and `resid_post`, so probes, directions, residual steering and gates.
- **sublayers**: also what attention (or a state space, or linear attention) and the MLP add,
  `attn_out`, `mlp_out`, and `resid_mid` between them.
- **units**: also heads, where there is attention, and neurons of dense MLPs and of experts.

`affectlens models info MODEL` prints this for a model, `affectlens models check MODEL` holds every
sum against the model's numbers on a prompt and prints the largest error. Asking for what a layer
has not ends in a sentence that names the layer and the reason. Models outside of this table work at
the level that they prove.

The table is made by `make models-table` from tiny random models of {count} variants, which
`make test-families` captures, sums and steers against plain hooks.
"""


def row(name: str, hf: Any) -> str:
    """A family's row of the table."""
    anatomy = take_apart(hf)
    what = "<br>".join(
        f"layers {layers}: **{level}** ({about})" for layers, level, about in levels(anatomy)
    )
    return f"| {name} | `{anatomy.family}` | {what} | {anatomy.known_by} |"


def page() -> str:
    """The whole page."""
    lines = [_HEAD.format(count=sum(map(len, GROUPS.values())))]
    for title, families in GROUPS.items():
        lines += [f"\n## {title}\n", "| variant | class | level | found by |", "|---|---|---|---|"]
        lines += [row(name, build(name)) for name in families]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
