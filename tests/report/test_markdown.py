"""Markdown tables and pages that are filled between marks."""

import pytest

from faceattr.errors import FaceattrError
from faceattr.report import markdown


def test_table_has_a_header_and_a_line_per_row():
    assert markdown.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert markdown.table(["a", "b"], [], numbers=True) == "| a | b |\n| --- | --: |"


def test_table_refuses_a_row_with_a_missing_cell():
    with pytest.raises(ValueError, match="2 cells"):
        markdown.table(["a", "b"], [["1"]])


def test_write_between_marks_replaces_only_the_text_between_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    markdown.write_between_marks(page, "new")
    assert page.read_text() == "before\n<!-- results -->\n\nnew\n\n<!-- /results -->\nafter\n"
    assert markdown.read_between_marks(page) == "new"


@pytest.mark.parametrize("text", ["no marks", "<!-- /results --> <!-- results -->", "<!-- results --> only the first"])
def test_write_between_marks_refuses_a_page_without_both_marks(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(FaceattrError, match=r"page.md: needs the line <!-- results -->"):
        markdown.write_between_marks(page, "new")
    assert page.read_text() == text
