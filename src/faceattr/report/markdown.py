"""Markdown: a table as text, and pages that a program fills between two marks (`<!-- results -->`, `<!-- /results -->`)."""

from collections.abc import Sequence
from pathlib import Path

from faceattr.errors import FaceattrError


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A table with a header line. `numbers`: every column but the first is aligned to the right."""
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"each row needs {len(head)} cells, as the header has: {head}")
    rule = ["---", *(["--:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def read_between_marks(page: Path, name: str = "results") -> str:
    """The text between the two marks of that name, without the empty lines around it."""
    return _parts(page, name)[1].strip()


def write_between_marks(page: Path, text: str, name: str = "results") -> None:
    """Put `text` between the two marks of that name; the rest of the page stays."""
    before, _, after = _parts(page, name)
    page.write_text(f"{before}\n\n{text}\n\n{after}", encoding="utf-8")


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    """The page up to and with the first mark, the text between the marks, the second mark and the rest."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    content = page.read_text(encoding="utf-8")
    if content.count(start) != 1 or content.count(end) != 1 or content.index(end) < content.index(start):
        raise FaceattrError(f"{page}: needs the line {start} once, and after it {end} once.")
    before, _, rest = content.partition(start)
    between, _, after = rest.partition(end)
    return before + start, between, end + after
