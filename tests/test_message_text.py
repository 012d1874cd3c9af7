from pathlib import Path

import pytest

from faceattr.message_text import counted, counted_of, did_you_mean, instead_of, listed, shortened


def test_listed_ends_with_dots_where_there_is_more():
    assert [listed("abc", 3), listed("abc", 2), listed([], 2)] == ["a, b, c", "a, b, …", ""]
    assert listed((n for n in range(9)), 2, separator="; ") == "0; 1; …"


def test_counted_has_one_singular():
    assert [counted(0, "image"), counted(1, "image"), counted(2000, "image")] == ["0 images", "1 image", "2,000 images"]


@pytest.mark.parametrize(
    ("number", "total", "text"),
    [(0, 1, "0 of 1 face are"), (1, 1, "1 of 1 face is"), (1, 2, "1 of 2 faces is"), (2, 2000, "2 of 2,000 faces are")],
)
def test_counted_of_takes_the_verb_of_the_part_and_the_noun_of_the_whole(number, total, text):
    assert counted_of(number, total, "face", "are") == text


def test_did_you_mean_compares_without_case():
    assert did_you_mean("smilng", ["Male", "Smiling"]) == " Did you mean Smiling?"
    assert did_you_mean("GENDER", ["Gender"], "data.") == " Did you mean data.Gender?"
    assert did_you_mean("x", ["Male"]) == did_you_mean("x", []) == ""


def test_instead_of_names_what_is_near_or_beside(tmp_path):
    (tmp_path / "photos" / ".git").mkdir(parents=True)
    assert instead_of(tmp_path / "photo") == f" Did you mean {tmp_path}/photos?"
    assert (
        instead_of(tmp_path / "fotos" / "a" / "b.jpg")
        == f" {tmp_path}/fotos does not exist. Did you mean {tmp_path}/photos?"
    )
    assert instead_of(tmp_path / "1.jpg") == f" {tmp_path} holds photos."
    assert instead_of(tmp_path / "photos" / "1.jpg") == f" {tmp_path}/photos holds nothing."
    (tmp_path / "list").touch()
    assert instead_of(tmp_path / "list" / "1.jpg").endswith("/list holds nothing.")
    assert instead_of(Path("/")) and instead_of(Path("\0"))


def test_shortened_gives_the_beginning_and_length_of_a_long_text():
    assert shortened("x" * 200) == "x" * 200
    assert shortened("x" * 3_000_000) == "x" * 100 + "… (3,000,000 characters)"
