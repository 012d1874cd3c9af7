"""Charts: their texts (read from SVG) and their files."""

import re
import warnings
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from faceattr.report import charts
from faceattr.report.charts import ThresholdCurve, confusion, counts, curves


def history(epochs: int) -> pd.DataFrame:
    steps = np.arange(epochs)
    return pd.DataFrame(
        {
            "epoch": steps + 1,
            "train_loss": 0.7 * 0.9**steps,
            "train_accuracy": 0.6 + 0.01 * steps,
            "val_loss": 0.8 * 0.9**steps,
            "val_accuracy": 0.55 + 0.0111 * steps,
            "lr": 1e-3,
        }
    )


def texts(svg: Path) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))]


@pytest.fixture(autouse=True)
def text_stays_text():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        yield


@pytest.mark.parametrize("epochs", [1, 60])
def test_curves_draws_both_metrics(tmp_path, epochs):
    curves(history(epochs), tmp_path / "curves.png", evaluated_epoch=1, title="sample_cnn_full")
    with Image.open(tmp_path / "curves.png") as image:
        image.load()
        assert image.width > 1000 and image.width > 2 * image.height
        assert np.asarray(image.convert("L")).std() > 5
    curves(history(epochs), tmp_path / "curves.svg", evaluated_epoch=1, title="sample_cnn_full")
    shown = texts(tmp_path / "curves.svg")
    assert {"sample_cnn_full", "loss", "accuracy", "train", "validation", "epoch"} <= set(shown)


def test_curves_marks_the_evaluated_epoch_and_its_values(tmp_path):
    curves(history(10), tmp_path / "curves.svg", evaluated_epoch=7, title="run")
    shown = texts(tmp_path / "curves.svg")
    assert {"evaluated epoch (7)", "0.617", f"{0.8 * 0.9**6:.3f}"} <= set(shown)
    curves(history(10), tmp_path / "unmarked.svg", evaluated_epoch=None, title="run")
    assert not any("best" in text for text in texts(tmp_path / "unmarked.svg"))


@pytest.mark.parametrize("epochs", [1, 23])
def test_curves_ticks_are_whole_epochs(tmp_path, epochs):
    curves(history(epochs), tmp_path / "curves.svg", evaluated_epoch=None, title="run")
    shown = texts(tmp_path / "curves.svg")
    ticks = shown[: shown.index("epoch")]
    assert ticks and all(tick.isdigit() for tick in ticks)


def test_curves_lines_differ_in_dash(tmp_path):
    curves(history(10), tmp_path / "curves.svg", evaluated_epoch=None, title="run")
    lines = re.findall(r'style="fill: none; stroke-dasharray: ([\d., ]+)[^"]*stroke: #d55e00', _svg(tmp_path))
    assert lines, "the train line is not dashed"
    assert not re.search(r'stroke-dasharray: [^"]*stroke: #0072b2', _svg(tmp_path)), "the validation line is not solid"


def _svg(folder: Path) -> str:
    return (folder / "curves.svg").read_text(encoding="utf-8")


def test_curves_with_a_missing_value_draw_the_rest(tmp_path):
    frame = history(5)
    frame.loc[2, "val_accuracy"] = np.nan
    curves(frame, tmp_path / "curves.svg", evaluated_epoch=3, title="run")
    shown = texts(tmp_path / "curves.svg")
    assert f"{0.8 * 0.9**2:.3f}" in shown and "nan" not in shown
    assert not {"0.0", "0.00"} & set(shown), "a value that is missing is not a zero"


def test_confusion_shows_counts_row_percentages_and_recall(tmp_path):
    confusion([[9412, 402], [611, 9575]], ["female", "male"], tmp_path / "confusion.svg", title="celeba: test")
    shown = texts(tmp_path / "confusion.svg")
    assert {"9,412", "402", "611", "9,575", "95.9%", "4.1%", "6.0%", "94.0%"} <= set(shown)
    assert {"95.9% of 9,814", "94.0% of 10,186", "recall", "true", "predicted"} <= set(shown)
    assert {"celeba: test", "accuracy 94.9% (18,987 of 20,000)"} <= set(shown)
    assert shown.count("female") == shown.count("male") == 2


def test_confusion_rows_are_the_true_classes(tmp_path):
    confusion([[3, 1], [0, 4]], ["young", "old"], tmp_path / "confusion.svg", title="t")
    assert "75.0% of 4" in texts(tmp_path / "confusion.svg") and "100.0% of 4" in texts(tmp_path / "confusion.svg")


def test_confusion_of_a_class_without_images_has_no_recall(tmp_path):
    with np.errstate(all="raise"):
        confusion([[5, 0], [0, 0]], ["female", "male"], tmp_path / "confusion.svg", title="t")
    assert "– of 0" in texts(tmp_path / "confusion.svg")
    confusion(np.zeros((2, 2)), ["female", "male"], tmp_path / "empty.png", title="t")


@pytest.mark.parametrize("classes", [2, 9])
def test_confusion_grows_with_its_classes(tmp_path, classes):
    matrix = np.random.default_rng(0).integers(0, 2000, (classes, classes))
    confusion(matrix, [f"class number {i}" for i in range(classes)], tmp_path / "confusion.png", title="t")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.height / classes > 75  # pixels per row: two lines of text of a legible size


def test_charts_of_long_class_names_show_both_their_ends(tmp_path):
    names = [f"{'a class with a long name ' * 8}{number}" for number in range(2)]
    expected = ["a class with a…ng name 0", "a class with a…ng name 1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the layout's, when there is no room
        confusion(np.eye(2), names, tmp_path / "confusion.svg", title="")
        counts(pd.DataFrame({"train": [3, 4]}, index=names), tmp_path / "counts.svg", title="")
    assert all(texts(tmp_path / "confusion.svg").count(name) == 2 for name in expected)
    assert set(expected) <= set(texts(tmp_path / "counts.svg"))


def test_confusion_shows_dollar_signs_as_they_are(tmp_path):
    confusion(np.eye(2), [r"$\no", "$$"], tmp_path / "confusion.svg", title=r"$\x$ run")
    assert {r"$\no", "$$", r"$\x$ run"} <= set(texts(tmp_path / "confusion.svg"))


def test_counts_shows_all_numbers_and_hatches_splits(tmp_path):
    table = pd.DataFrame({"train": [1680, 7], "val": [360, 3], "test": [0, 12]}, index=["young", r"$\old"])
    counts(table, tmp_path / "counts.svg", title="imfdb: images")
    shown = texts(tmp_path / "counts.svg")
    assert {"1,680", "360", "0", "7", "3", "12", "young", r"$\old", "imfdb: images"} <= set(shown)
    assert {"train 1,687", "val 363", "test 12"} <= set(shown)
    hatched = set(re.findall(r"fill: url\(#(\w+)\)", (tmp_path / "counts.svg").read_text(encoding="utf-8")))
    assert len(hatched) == 2, "val and test have a hatch each, train none"


def drawn(folder: Path, *panels) -> list[str]:
    """The texts of a figure of these panels."""
    charts.panels(folder / "panels.svg", *panels)
    return texts(folder / "panels.svg")


def test_svg_has_unique_ids_a_label_and_no_style():
    one, same, other = (
        charts.svg(
            lambda file: counts(pd.DataFrame({"train": [3], "val": [1]}, index=["a<b"]), file, title=""),
            name,
            'a "b" <c>',
        )
        for name in ("one", "one", "other")
    )
    assert one == same and one.startswith("<svg viewBox=") and one.endswith("</svg>") and ">a&lt;b<" in one
    assert 'role="img" aria-label="a &#34;b&#34; &lt;c&gt;"' in one
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (one, other)]
    assert ids[0] and ids[1] and not ids[0] & ids[1], "two charts of a page share no id"
    assert set(re.findall(r"url\(#([^)]+)\)", one)) <= ids[0] and all(name.startswith("one-") for name in ids[0])
    assert not re.search(r"<style|<metadata|<\?xml|http", one)


def test_svg_that_fails_is_a_warning_and_a_sentence(caplog):
    def draw(file):
        raise ZeroDivisionError("no images")

    assert "could not be drawn" in charts.svg(draw, "val-roc", "roc")
    assert [record.getMessage() for record in caplog.records] == [
        "The chart val-roc is missing: ZeroDivisionError: no images"
    ]


def test_threshold_curves_name_their_classes_and_the_chosen_threshold(tmp_path):
    x = np.array([0, 0.5, 1])
    curves = [
        ThresholdCurve(name, x, x, (0.5, 0.5), chosen) for name, chosen in (("young", None), ("$old", (0.2, 0.7)))
    ]
    shown = drawn(tmp_path, *(partial(charts.threshold_curves, curves=curves, roc=roc) for roc in (True, False)))
    assert {"ROC", "precision and recall", "false positive rate", "young", "$old", "chosen threshold"} <= set(shown)
    svg = (tmp_path / "panels.svg").read_text()
    assert len(set(re.findall(r"stroke-dasharray: ([^;]+);", svg))) >= 2, "lines differ in dash"


def test_distances_draws_signed_shares(tmp_path):
    shown = drawn(tmp_path, partial(charts.distances, matrix=[[5, 2, 0], [1, 6, 1], [3, 0, 2]]))
    assert [text for text in shown if "." in text] == ["65.0%", "15.0%", "5.0%", "15.0%", "0.0%"], (
        "in order, right first"
    )
    assert [text for text in shown if re.fullmatch(r"correct|[+−]\d", text)] == ["−2", "−1", "correct", "+1", "+2"]
    assert drawn(tmp_path, partial(charts.distances, matrix=np.zeros((3, 3)))).count("0.0%") == 5


@pytest.mark.parametrize("form", ["png", "svg"])
def test_save_lays_out_as_savefig_does_with_constrained_layout(tmp_path, form):
    """A label of two lines needs a margin that only a layout gives."""

    def figure(**options) -> Figure:
        drawn = Figure(figsize=(3, 2), **options)
        drawn.add_subplot().set(ylabel="two\nlines", title="title")
        return drawn

    with matplotlib.rc_context({"svg.hashsalt": "the same", "savefig.dpi": 150}):
        charts.save(figure(), tmp_path / f"ours.{form}")
        figure(layout="constrained").savefig(tmp_path / f"theirs.{form}")
        figure().savefig(tmp_path / f"none.{form}")

    ours, theirs, none = (
        re.sub(rb"<dc:date>.*?</dc:date>", b"", (tmp_path / f"{name}.{form}").read_bytes())
        for name in ("ours", "theirs", "none")
    )
    assert ours == theirs != none


@pytest.mark.parametrize("letters", [5, 8, 14, 40])
def test_confusion_has_room_for_the_names_of_classes(tmp_path, monkeypatch, letters):
    figures, lay_out = [], charts._lay_out
    monkeypatch.setattr(charts, "_lay_out", lambda figure, form: (figures.append(figure), lay_out(figure, form)))
    names = [f"{('AbcdefghiJ' * 4)[: letters - 1]}{number}" for number in range(2)]
    charts.confusion([[1234, 0], [0, 1234]], names, tmp_path / "x.png", title="")
    renderer, (width, height) = figures[0].canvas.get_renderer(), figures[0].bbox.max
    for text in figures[0].findobj(Text):
        box = text.get_window_extent(renderer)
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside or not text.get_text(), f"{text.get_text()} is cut off: {box}"
