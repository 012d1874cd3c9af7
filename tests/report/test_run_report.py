"""report.html of a run: its content, that it needs no other file, and how it looks and behaves in a browser."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import torch
from browser import chromium
from html_page import NASTY, Page, check_whole
from sweeps import write_sweep

from faceattr.metrics import calibration, compute_metrics, slices
from faceattr.metrics.accuracy import ACCURACY
from faceattr.models.task import Task
from faceattr.report import run_report
from faceattr.report.image_grid import ExplainedImage
from faceattr.report.render_html import LIMIT

RUN = {
    **{"status": "finished", "name": "sample", "seed": 3, "device": "cpu × 1", "seconds": 12.3, "best_epoch": 2},
    **{"classes": ["female", "male"], "fingerprint": "abc123", "weights": "random", "git": "f00", "error": None},
    "versions": {"python": "3.11", "torch": "2.14"},
    "command": "python train.py seed=3",
}
HISTORY = pd.DataFrame(
    {
        **{"epoch": range(4), "train_loss": [0.7, 0.5, 0.4, 0.3], "val_loss": [0.7, 0.6, 0.5, 0.55]},
        **{"train_accuracy": [0.5, 0.7, 0.8, 0.9], "val_accuracy": [0.5, 0.6, 0.75, 0.7], "lr": 1e-3},
    }
)


def result(
    split: str = "test", classes: tuple[str, ...] = ("female", "male"), n: int = 120, **more: Any
) -> run_report.SplitResult:
    """The result of random scores, about four of five correct, from the real metrics."""
    rng, k = np.random.default_rng(len(split)), len(classes)
    task = Task.from_config(
        list(classes), ordinal=more.get("ordinal", False), loss="auto", multilabel=more.get("multilabel", False)
    )
    if task.multilabel:
        truth = rng.integers(0, 2, (n, k)).astype(np.float32)
        scores = np.clip(0.5 + (truth - 0.5) * rng.normal(0.5, 0.5, (n, k)), 0.01, 0.99).astype(np.float32)
        truth[rng.random((n, k)) < 0.1] = np.nan
    else:
        truth = rng.integers(0, more.get("present", k), n)
        scores = np.exp(2 * np.eye(k)[truth] + rng.normal(0, 1, (n, k)))
        scores = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    metrics = compute_metrics.all_metrics(task, torch.tensor(scores), torch.tensor(truth))
    labels = task.flatten_labels(torch.tensor(scores), torch.tensor(truth))
    if n:
        metrics |= compute_metrics.intervals_of(metrics, task, torch.tensor(scores), torch.tensor(truth), None)
        metrics |= calibration.metrics(*(part.numpy() for part in labels))
    cuts = {
        "hair": pd.Series(np.where(rng.random(n) < 0.5, "long", "short")),
        "rare": pd.Series(["a"] * 4 + ["b"] * (n - 4)),
    }
    table = slices.slices(cuts, task, torch.tensor(scores), torch.tensor(truth)) if n > 4 else pd.DataFrame()
    tiles = {"Wrong and certain": [tile(rng, more.get("side", 24), i) for i in range(more.get("images", 4))]}
    return run_report.SplitResult(split, task, metrics | more.get("metrics", {}), scores, truth, table, tiles=tiles)


def tile(rng: np.random.Generator, side: int, i: int) -> ExplainedImage:
    pixels, overlay = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    predicted = "male" if i % 2 else "female"
    return ExplainedImage(
        f"{i}.jpg", pixels, overlay if i != 3 else None, "male", predicted, 0.9, bool(i % 2), predicted if i else "male"
    )


LONG = tuple(f"a class of a very long name, number {i}" for i in range(7))
VAL, TEST, MANY = result("val"), result("test"), result(classes=LONG, multilabel=True)  # their charts are drawn once
ORDERED = result(classes=LONG, ordinal=True, metrics={"average_precision": None, "recall_b": None, "ece": None})
NAMED = result(classes=(NASTY, "male"))


def written(folder: Path, **changes: Any) -> Page:
    """The report of a run in `folder`, with all parts that a run has but for the `changes`."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "metrics.csv", "a #1%.png", "checkpoints/best.ckpt", ".report.part"):
        (folder / name).write_text("x")
    table = pd.DataFrame({"path": "x", "split": ["train", "train", "test"]})
    table["label"] = pd.Categorical(["female", "male", "male"], ["female", "male"])
    table.attrs["multilabel"] = False
    samples = {"female": [np.zeros((8, 8, 3), np.uint8)], "male": []}
    parts: dict[str, Any] = {"history": HISTORY, "results": [VAL, TEST], "table": table}
    parts |= {
        "samples": samples,
        "audit": {"text": "Leakage: no copies", "across": 0},
        "metadata": RUN,
        "config": "seed: 3\n",
    }
    file = run_report.write(folder, **({"title": "sample_cnn"} | parts | changes))
    assert file == folder / "report.html" and not list(folder.glob(".report.html*"))
    return Page(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    written(folder := tmp_path_factory.mktemp("report") / "2026-01-02_03-04-05-000006")
    return folder / "report.html"


def test_write_shows_metrics_with_intervals_and_caveats(run):
    report, of = Page(run), result("test")
    check_whole(report, run.parent)
    accuracy, low, high = (of.metrics[name] for name in ACCURACY)
    assert f"{accuracy:.1%} accuracy on 120 test images . 95% interval: {low:.1%} to {high:.1%}" in report.text
    assert f"{of.metrics['auroc']:.3f} {of.metrics['auroc_low']:.3f}–{of.metrics['auroc_high']:.3f}" in report.text
    assert "Neither training nor model selection used these images. Always predicting “" in report.text
    assert "The epoch was selected on these images" in report.text
    assert report.text.index("Always predicting") < report.text.index("selected on these images"), (
        "the test comes first"
    )
    assert "2026-01-02 03:04 cpu × 1 12 seconds female / male" in report.text
    for part in (
        "python train.py seed=3",
        "abc123",
        "seed: 3",
        "torch 2.14",
        "Leakage: no copies.",
        "hair: long",
        "rare: a",
    ):
        assert part in report.text, part
    assert "faceattr evaluate ckpt=…/best.ckpt" in report.text and str(run.parent) not in report.source
    assert "At epoch 2, the one evaluated: val 0.750" in report.labels and "false positive rate" in report.labels
    assert "✗ female 90.0% true: male Grad-CAM: for male ✓ male 90.0% ✗" in report.text
    assert {"a%20%231%25.png", "checkpoints/best.ckpt"} <= set(report.all("href")), "names are quoted"


def test_write_has_balanced_accuracy_in_the_headline_where_classes_are_uneven(tmp_path):
    uneven = {"n_female": 20, "n_male": 100, "balanced_accuracy": 0.535}
    report = written(tmp_path, results=[result(metrics=uneven)], metadata=RUN | {"data": "csv faces (data.file=b.csv)"})
    assert "53.5% balanced accuracy : each class counts alike" in report.text
    assert "and a balanced accuracy of 50.0%." in report.text
    assert "120 test images of csv faces (data.file=b.csv)" in report.text
    even = written(tmp_path, results=[result(metrics={"n_female": 60, "n_male": 60})])
    assert "balanced accuracy :" not in even.text


def test_write_says_in_the_headline_that_certainty_misleads(tmp_path):
    base = result(n=400)
    truth = np.arange(400) % 2
    wrong = np.arange(400) < 40  # the most certain ones
    male = np.where(truth == 1, 0.8, 0.2)
    male[wrong] = 1 - truth[wrong]
    scores = np.stack([1 - male, male], 1)
    report = written(tmp_path, results=[replace(base, truth=truth, scores=scores, metrics=base.metrics | {"ece": 0.1})])
    text = "Accuracy among the 20 most certain predictions: 0.0%; among the rest: 94.7%. Certainty misleads here"
    assert report.text.count(text) == 2, "in the headline and beside its chart"


def test_write_leaves_out_a_part_that_fails(tmp_path, caplog):
    report = written(tmp_path, history=HISTORY.assign(val_loss="x"), metadata=RUN)
    check_whole(report, tmp_path)
    assert "A part of the report (learning curves) is missing: ValueError" in caplog.text
    assert "accuracy on 120 test images" in report.text and "learning-loss" not in report.source


def test_write_gives_the_same_bytes_for_the_same_input(tmp_path):
    once = written(tmp_path, results=[TEST]).source
    assert once == written(tmp_path, results=[result("test")]).source


def test_write_escapes_names(tmp_path):
    metadata = RUN | {"classes": [NASTY, "male"], "error": NASTY, "quirks": [NASTY], "command": NASTY}
    report = written(tmp_path, title=NASTY, metadata=metadata, results=[NAMED], config=NASTY, audit={NASTY: 1})
    assert "<b>&" not in report.source and "{{x}}" in report.source
    assert report.text.count(NASTY) > 8 and NASTY in report.labels, "in charts too"


@pytest.mark.parametrize(
    "changes",
    [
        {"history": HISTORY.iloc[:0]},
        {"history": HISTORY[["epoch", "train_loss", "val_loss"]].iloc[:1], "results": []},
        {"results": [result(n=0)]},
        {"results": [result(n=1)]},
        {"results": [result(images=0)], "samples": None},
        {"results": [result(present=1)]},
        {"results": [ORDERED]},
        {"results": [result(classes=tuple(map(str, range(30))), n=300)], "table": None},
        {"results": [MANY], "audit": None},
        {
            "metadata": {"ckpt": "a/best.ckpt"},
            "history": None,
            "results": [TEST],
            "table": pd.DataFrame({"path": ["x"]}),
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_write_leaves_missing_parts_out(tmp_path, changes):
    check_whole(written(tmp_path, **({"history": None} | changes)), tmp_path)


@pytest.mark.parametrize(
    ("split", "metadata", "metrics", "text"),
    [
        ("val", {"best_epoch": 0}, {}, "The epoch was selected on these images"),
        ("val", {"last_epoch": 9}, {"temperature": 0.8}, "temperature 0.8, fitted on these images"),
        ("val", {"last_epoch": 9}, {}, "Training did not use these images."),
        (
            "test",
            {"leakage": {"train_test": 1234, "left_out": 0}},
            {},
            "1,234 pairs of copies link them to training images",
        ),
        ("val", {"ckpt": "a/best.ckpt"}, {}, "The epoch was selected on these images"),
        ("test", {"best_epoch": 0}, {"temperature": 2.0}, "temperature 2, fitted on validation images"),
        ("train", {}, {}, "trained on these images"),
        ("all", {"quirks": ["leaks"]}, {}, "This preset keeps the quirks"),
    ],
)
def test_caveats_name_what_used_the_images(split, metadata, metrics, text):
    assert text in run_report.caveats(result(split, metrics=metrics), metadata)


def test_write_shows_errors_of_ordered_classes_by_distance(tmp_path):
    of = result(classes=("young", "middle", "old"), ordinal=True)
    labels = written(tmp_path, results=[of]).labels
    far = np.abs(of.scores.argmax(1) - of.truth)
    assert (
        f"{(far == 0).mean():.1%} exactly right, {(far == 1).mean():.1%} one class off, {(far == 2).mean():.1%}"
        in labels
    )


def test_write_lists_attributes_worst_first(tmp_path):
    of = result(classes=("Bald", "Male", "Young"), multilabel=True)
    table = pd.DataFrame({"split": ["train", "val"], "Bald": [1, np.nan], "Male": [0.0, 1.0], "Young": [1, 1]})
    table.attrs |= {"multilabel": True, "classes": ["Bald", "Male", "Young"]}
    report = written(tmp_path, results=[of], table=table)
    worst = sorted(of.task.classes, key=lambda name: of.metrics[f"accuracy_{name}"])
    assert [row.label for row in of.attributes] == worst
    share = of.metrics["positive_Bald"] / of.metrics["n_Bald"]
    assert (
        f"AP {of.metrics['average_precision_Bald']:.3f}, n = {of.metrics['n_Bald']}, {share:.0%} have it" in report.text
    )
    assert (
        "the mean over 3 attributes" in report.text and "confusion" not in report.labels and "Bald 1 0" in report.text
    )


def test_write_shows_the_chosen_threshold(tmp_path):
    chosen = {"threshold": 0.3, "precision_at_threshold": 0.7, "recall_at_threshold": 0.95}
    report = written(tmp_path, results=[result(metrics=chosen)])
    assert "male from probability 0.300 on has precision 0.700 and recall 0.950" in report.text
    assert report.text.count("chosen threshold") == 2


def test_write_shows_the_comparison_with_another_model(tmp_path):
    pair = {"difference": 0.02, "low": -0.01, "high": 0.05, "wins": 7, "losses": 3, "p": 0.34}
    comparison = {"ckpt": "A.ckpt", "compare": NASTY, "split": "test"} | pair
    report = written(tmp_path, results=[TEST], history=None, comparison=comparison)
    check_whole(report, tmp_path)
    assert (
        "Difference +0.020 (95% -0.010 to +0.050); only ckpt right 7" in report.text
        and f"compare: {NASTY}" in report.text
    )


@pytest.mark.slow
def test_write_reduces_many_images_to_stay_below_the_limit(run, tmp_path):
    many = result(images=110, side=160)  # noise: nothing is harder to compress
    report = written(tmp_path, results=[many], history=None)
    assert len(report.source.encode()) <= LIMIT
    assert "To keep this file under 5 MB" in report.text and "To keep this file under" not in Page(run).text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(browser: Any, file: Path, width: int) -> tuple[Any, list[str]]:
    """The page, and its requests and console messages."""
    shown, noticed = browser.new_page(viewport={"width": width, "height": 800}), []
    shown.on("console", lambda message: noticed.append(f"{message.type}: {message.text}"))
    shown.on("pageerror", lambda error: noticed.append(str(error)))
    shown.on("request", lambda request: request.url.startswith("data:") or noticed.append(request.url))
    shown.goto(file.as_uri())
    return shown, noticed


@pytest.fixture(scope="module")
def pages(run, tmp_path_factory) -> dict[str, Path]:
    """Reports of a run, of one with many long names, and of a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    metadata = RUN | {"classes": LONG, "fingerprint": "f" * 200}
    written(folder / "long", results=[ORDERED], metadata=metadata, title="t" * 90)
    written(folder / "many", results=[MANY])
    (folder / "sweep").mkdir()
    return {
        "run": run,
        **{name: folder / name / "report.html" for name in ("long", "many")},
        "sweep": write_sweep(folder / "sweep"),
    }


@pytest.mark.parametrize("width", [375, pytest.param(1280, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["run", "long", "many", "sweep"])
def test_page_in_a_browser_is_complete_and_requests_nothing(browser, pages, name, width):
    shown, noticed = opened(browser, pages[name], width)
    shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    sizes = shown.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map(one => one.getBoundingClientRect().height)"
    )
    assert sizes and min(sizes) > 60
    assert noticed == [pages[name].as_uri()]
    links = shown.evaluate("[...document.links].map(link => link.href)")
    assert links and all(Path(unquote(link.partition("#")[0]).removeprefix("file://")).exists() for link in links)
    shown.close()


def test_page_in_a_browser_shows_grad_cam_by_click_key_and_checkbox(browser, run):
    shown, _ = opened(browser, run, 375)
    gallery = shown.locator(".gallery").first
    first, plain, cam = gallery.locator("summary").first, gallery.locator(".as-is"), gallery.locator(".cam")

    def showing() -> tuple[bool, bool]:
        return plain.first.is_visible(), cam.first.is_visible()

    assert showing() == (True, False)
    first.click()
    assert showing() == (False, True)
    first.focus()
    shown.keyboard.press("Enter")
    assert showing() == (True, False)
    shown.keyboard.press("Space")
    assert showing() == (False, True) and not cam.nth(1).is_visible()
    gallery.get_by_label("Grad-CAM on all").focus()
    shown.keyboard.press("Space")
    assert all(cam.nth(i).is_visible() for i in range(cam.count())) and not plain.nth(1).is_visible()
    assert gallery.locator("img:visible").count() == 4, "the image without a map stays"
    shown.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "long", "sweep"])
def test_page_on_paper_is_open_and_not_cut(browser, pages, name, tmp_path):
    shown, _ = opened(browser, pages[name], 688)  # A4 without its margins
    shown.emulate_media(media="print")
    beyond = (
        "[...document.querySelectorAll('svg[role=img], table, img, pre')].map(one => one.getBoundingClientRect().right)"
    )
    assert max(shown.evaluate(beyond)) <= 689
    folded = "[...document.querySelectorAll('details.more table, details.more pre')].map(one => one.checkVisibility())"
    drawn = "[...document.querySelectorAll('svg[role=img]')].map(one => one.getBoundingClientRect().height)"
    assert min(shown.evaluate(drawn)) > 60
    assert shown.evaluate(folded) and all(shown.evaluate(folded)), "what is folded is printed too"
    assert not shown.locator("nav").is_visible()
    shown.pdf(path=tmp_path / "report.pdf", format="A4")
    pages_of_it = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert pages_of_it >= (2 if name == "sweep" else 4)
    shown.close()
