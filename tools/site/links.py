"""Links of the repository, led to the pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping

_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def led_to_pages(
    markdown: str, where: str, uri: str, pages: Mapping[str, str], known: Collection[str]
) -> str:
    """Markdown whose links to files of the repository go to pages of the site.

    Args:
        markdown: Of a page.
        where: Its file in the repository, ``"docs/circuits.md"``.
        uri: The page, ``"circuits.md"``.
        pages: File of the repository → page, for those that do not lie in ``docs/``.
        known: All pages and files of the site.

    Returns:
        The same; a link to a file that the site has no page for keeps its text alone.
    """

    def led(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found.group()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(where), path))
        page = pages.get(place, place.removeprefix("docs/") if place.startswith("docs/") else "")
        if page not in known:
            # What lies in docs/ and is missing is a broken link, and MkDocs says so.
            return found.group() if place.startswith("docs/") else text
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{mark}{anchor})"

    return _LINK.sub(led, markdown)
