"""Class names that DejaVu Sans cannot write: drawn with a font of the system, or as codes, never as boxes."""

import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from faceattr.data.faces.detect import Face
from faceattr.report import charts, fonts
from faceattr.report.draw_answers import Note, annotate
from faceattr.report.fonts import DEJAVU, drawable
from faceattr.report.image_grid import Tile, grid

CLASSES = ["男性", "여성"]
CODES = ["[U+7537 U+6027]", "[U+C5EC U+C131]"]
LAST_RESORT = DEJAVU.with_name("LastResortHE-Regular.ttf")


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A function: the system has these fonts only."""

    def install(*files: Path) -> None:
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(file) for file in files])
        for cached in (fonts.drawable, fonts._fallbacks, fonts._family, fonts._codes):
            cached.cache_clear()

    yield install
    install()


@pytest.fixture
def font(tmp_path) -> Path:
    """One that has every character: Matplotlib's font for unknown ones, under another name."""
    if not LAST_RESORT.exists():
        pytest.skip("This Matplotlib has no LastResortHE")
    file = tmp_path / "All-Regular.ttf"
    file.write_bytes(LAST_RESORT.read_bytes())
    return file


def texts_of(draw, monkeypatch) -> str:
    """All text of the figure that `draw` saves, and whether Matplotlib warned of a missing glyph: an error."""
    seen = []
    monkeypatch.setattr(charts, "_lay_out", lambda figure, form: seen.extend(figure.findobj(fonts.Text)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw()
    return "\n".join(text.get_text() for text in seen)


def draw_all(folder: Path) -> None:
    matrix, tile = [[5, 1], [2, 7]], Tile(np.zeros((20, 20, 3), np.uint8), f"✓ {CLASSES[1]} 98.0%")
    charts.confusion(matrix, CLASSES, folder / "confusion.png", title=f"{CLASSES[0]}: test images")
    charts.counts(charts.pd.DataFrame({"train": [3, 4]}, index=CLASSES), folder / "counts.png", title="")
    grid([[tile]], folder / "grid.png", title="t", note="n", names=[CLASSES[0]])


def test_drawable_leaves_alone_what_dejavu_has(system):
    system()
    for text in ("größe ✓ ✗ − – 0.5\n", "Ελλάδα русский العربية", ""):
        assert drawable(text) == (text, ())


def test_pictures_have_codes_where_no_font_has_the_characters_and_it_is_logged_once(
    system, tmp_path, monkeypatch, caplog
):
    system(DEJAVU)
    with caplog.at_level(logging.WARNING):
        drawn = texts_of(lambda: draw_all(tmp_path), monkeypatch)
    assert not re.search("[男性여성]", drawn) and all(drawn.count(code) >= 3 for code in CODES)
    assert f"✓ {CODES[1]} 98.0%" in drawn and f"{CODES[0]}: test images" in drawn
    assert [caplog.text.count(f"show {name} as {code}") for name, code in zip(CLASSES, CODES, strict=True)] == [1, 1]


def test_pictures_take_a_font_of_the_system_that_has_the_characters(system, font, tmp_path, monkeypatch, caplog):
    system(DEJAVU, font)
    drawn = texts_of(lambda: draw_all(tmp_path), monkeypatch)
    assert all(drawn.count(name) >= 3 for name in CLASSES) and "U+" not in drawn + caplog.text
    assert drawable("a男")[1] == (font,)
    assert Path(font_manager.fontManager.ttflist[-1].fname) == font


def test_drawable_does_without_a_font_that_cannot_be_read(system, font, tmp_path):
    (tmp_path / "Broken-Regular.ttf").write_bytes(b"no font")
    system(tmp_path / "Broken-Regular.ttf", tmp_path / "absent.ttf")
    assert drawable(CLASSES[0]) == (CODES[0], ())
    system(tmp_path / "Broken-Regular.ttf", font)
    assert drawable(CLASSES[0]) == (CLASSES[0], (font,))


def test_charts_of_the_report_keep_the_text_for_the_browser_and_are_silent(system, caplog):
    system()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        element = charts.svg(lambda file: charts.confusion([[1, 0], [0, 1]], CLASSES, file, title=""), "name", "alt")
    assert all(f">{name}<" in element for name in CLASSES) and not caplog.text


def test_annotate_writes_codes_or_takes_the_font(system, font):
    picture, face = Image.new("RGB", (400, 400)), Face(150, 150, 100, 100, (), 1.0)
    pictures = []
    for installed, text in (([], CLASSES[0]), ([], CODES[0]), ([font], CLASSES[0])):
        system(*installed)
        pictures.append(np.asarray(annotate(picture, [Note(face, text)])))
    assert (pictures[0] == pictures[1]).all() and (pictures[0] != pictures[2]).any()
