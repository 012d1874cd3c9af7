"""The documents: what they link to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "file", ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_every_relative_link_leads_somewhere(file):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / file).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / file).parent.joinpath(link).exists()]
    assert not missing
