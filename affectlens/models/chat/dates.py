"""The date that chat templates print: a fixed one keeps prompts the same tomorrow."""

from __future__ import annotations

import json
from datetime import datetime

TODAY = datetime(2024, 7, 26)

_CODES = (
    *("-d", "-m", "-H", "-I", "-M", "-S", "-j", "-y"),
    *"aAbBcCdDeFgGhHIjmMnpPrRsStTuUVwWxXyYzZ",
)


def with_fixed_date(template: str) -> str:
    """A chat template whose ``strftime_now`` is of `TODAY`.

    Transformers hands templates plain data only, no functions of ours; so the function is written
    in the template's own language, before all else.
    """
    if "strftime_now" not in template:
        return template
    written = "".join(
        f".replace({json.dumps('%' + code)}, {json.dumps(TODAY.strftime('%' + code))})"
        for code in _CODES
    )
    percent = json.dumps("\0")
    macro = (
        "{%- macro strftime_now(format) -%}"
        f"{{{{ format.replace('%%', {percent}){written}.replace({percent}, '%') }}}}"
        "{%- endmacro %}"
    )
    return macro + "{{- '' }}" + template  # a template's own first line break stays
