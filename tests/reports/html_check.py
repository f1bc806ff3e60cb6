"""A strict reader of our HTML: balance, ids, and everything a browser would fetch."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}
FETCHED = {"src", "href", "srcset", "action", "formaction", "poster", "data", "xlink:href", "ping"}


class Page(HTMLParser):
    """Fails on unbalanced elements; collects ids, links, styles, scripts, cells and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.css: list[str] = []
        self.scripts: dict[str, str] = {}
        self.words: list[str] = []
        self.rows: list[list[tuple[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"
        assert len(self.ids) == len(set(self.ids)), "an id occurs twice"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute"
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in VOID:
            self.stack.append(tag)
        if given.get("id"):
            self.ids.append(given["id"])
        self.fetched += [given[name] or "" for name in FETCHED & set(given)]
        if given.get("style"):
            self.css.append(given["style"])
        assert not any(name.startswith("on") for name in names), f"<{tag}> has a handler"
        if tag == "script":
            self.scripts[given.get("id") or f"script-{len(self.scripts)}"] = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", given.get("data-value")))

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/> is not HTML")

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-1:]}"
        self.stack.pop()

    def handle_data(self, data):
        inside = self.stack[-1] if self.stack else ""
        if inside == "script":
            self.scripts[list(self.scripts)[-1]] += data
        elif inside == "style":
            self.css.append(data)
        else:
            self.words.append(data)
            if {"td", "th"} & set(self.stack) and self.rows:
                shown, value = self.rows[-1][-1]
                self.rows[-1][-1] = (shown + data, value)

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    def outside(self) -> list[str]:
        """Everything the browser would load from somewhere else."""
        css = "\n".join(self.css)
        loads = self.fetched + re.findall(r"url\(\s*['\"]?([^'\")]*)", css)
        loads += re.findall(r"@import[^;]*", css)
        return [url for url in loads if not url.startswith(("#", "data:"))]
