"""What a report's HTML holds, and that it needs nothing else."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from faceattr.report.render_html import LIMIT

NASTY = '<b>&"{{x}}'
"""A name that is neither HTML nor a template."""


class Page(HTMLParser):
    """The text of a page, and its elements as (tag, attributes)."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source, self.words, self.elements = file.read_text(encoding="utf-8"), list[str](), list[tuple[str, dict]]()
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.words.append(data)

    def all(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if attributes.get(name) is not None]

    @property
    def labels(self) -> str:
        return " ".join(self.all("aria-label"))


def check_whole(page: Page, folder: Path) -> None:
    """Nothing is requested, links exist, ids are unique, headings are in order, images have texts."""
    ids, links = page.all("id"), [*page.all("href"), *page.all("src"), *page.all("xlink:href")]
    assert len(ids) == len(set(ids))
    for link in links:
        assert link.startswith(("data:", "#")) or (folder / unquote(link)).exists(), link
        assert not link.startswith("#") or link[1:] in ids, link
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link rel=.stylesheet", page.source)
    assert set(re.findall(r"url\(#([^)]+)\)", page.source)) <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert all(
        attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg" and "role" in attributes
    )
    assert len(page.source.encode()) <= LIMIT and "nan" not in re.findall(r"[a-z]+", page.text)
