"""report.html: what it says, that it is whole without any other file, and how it looks and behaves in a real browser."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import torch
from sweeps import job

from faceattr.metrics import calibration, evaluation, slices
from faceattr.metrics.accuracy import ACCURACY
from faceattr.models.task import Task
from faceattr.report import leaderboard, page
from faceattr.report.image_grid import Explained
from faceattr.report.render import LIMIT, Row, Scale

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "src" / "faceattr" / "report" / "templates"
NASTY = '<b>&"{{x}}'
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


class Read(HTMLParser):
    """What a page holds: its text, and its elements as (tag, attributes)."""

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


def judged(
    split: str = "test", classes: tuple[str, ...] = ("female", "male"), n: int = 120, **more: Any
) -> page.SplitResult:
    """Images of made-up scores, about four of five right, judged by the code that judges real ones."""
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
    found = evaluation.evaluate(task, torch.tensor(scores), torch.tensor(truth))
    decided = task.flatten_labels(torch.tensor(scores), torch.tensor(truth))
    if n:
        found |= evaluation.intervals_of(found, task, torch.tensor(scores), torch.tensor(truth), None)
        found |= calibration.metrics(*(part.numpy() for part in decided))
    cuts = {
        "hair": pd.Series(np.where(rng.random(n) < 0.5, "long", "short")),
        "rare": pd.Series(["a"] * 4 + ["b"] * (n - 4)),
    }
    table = slices.slices(cuts, task, torch.tensor(scores), torch.tensor(truth)) if n > 4 else pd.DataFrame()
    tiles = {"Wrong and certain": [tile(rng, more.get("side", 24), i) for i in range(more.get("images", 4))]}
    return page.SplitResult(split, task, found | more.get("found", {}), scores, truth, table, tiles)


def tile(rng: np.random.Generator, side: int, i: int) -> Explained:
    pixels, overlay = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    predicted = "male" if i % 2 else "female"
    return Explained(
        f"{i}.jpg", pixels, overlay if i != 3 else None, "male", predicted, 0.9, bool(i % 2), predicted if i else "male"
    )


LONG = tuple(f"a class of a very long name, number {i}" for i in range(7))
VAL, TEST, MANY = judged("val"), judged("test"), judged(classes=LONG, multilabel=True)  # what they draw is drawn once
ORDERED = judged(classes=LONG, ordinal=True, found={"average_precision": None, "recall_b": None, "ece": None})
NAMED = judged(classes=(NASTY, "male"))


def written(folder: Path, **changes: Any) -> Read:
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
    file = page.write(folder, **({"title": "sample_cnn"} | parts | changes))
    assert file == folder / "report.html" and not list(folder.glob(".report.html*"))
    return Read(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    written(folder := tmp_path_factory.mktemp("report") / "2026-01-02_03-04-05-000006")
    return folder / "report.html"


def check_whole(read: Read, folder: Path) -> None:
    """Nothing is fetched from anywhere, links lead somewhere, ids are unique, headings are in order, pictures have words."""
    ids, links = read.all("id"), [*read.all("href"), *read.all("src"), *read.all("xlink:href")]
    assert len(ids) == len(set(ids))
    for link in links:
        assert link.startswith(("data:", "#")) or (folder / unquote(link)).exists(), link
        assert not link.startswith("#") or link[1:] in ids, link
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link rel=.stylesheet", read.source)
    assert set(re.findall(r"url\(#([^)]+)\)", read.source)) <= set(ids)
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert all(attributes.get("alt") for tag, attributes in read.elements if tag == "img")
    assert all(
        attributes.get("aria-label") for tag, attributes in read.elements if tag == "svg" and "role" in attributes
    )
    assert len(read.source.encode()) <= LIMIT and "nan" not in re.findall(r"[a-z]+", read.text)


def test_a_run_is_told_with_intervals_in_words_that_a_sceptic_accepts(run):
    read, of = Read(run), judged("test")
    check_whole(read, run.parent)
    accuracy, low, high = (of.metrics[name] for name in ACCURACY)
    assert f"{accuracy:.1%} accuracy on 120 test images . 95% interval: {low:.1%} to {high:.1%}" in read.text
    assert f"{of.metrics['auroc']:.3f} {of.metrics['auroc_low']:.3f}–{of.metrics['auroc_high']:.3f}" in read.text
    assert "Neither training nor model selection used these images. Always predicting “" in read.text
    assert "The epoch was selected on these images" in read.text
    assert read.text.index("Always predicting") < read.text.index("selected on these images"), "the test comes first"
    assert "2026-01-02 03:04 cpu × 1 12 seconds female / male" in read.text
    for part in (
        "python train.py seed=3",
        "abc123",
        "seed: 3",
        "torch 2.14",
        "Leakage: no copies.",
        "hair: long",
        "rare: a",
    ):
        assert part in read.text, part
    assert f"faceattr evaluate ckpt={run.parent / 'checkpoints' / 'best.ckpt'}" in read.text
    assert "At epoch 2, the one evaluated: val 0.750" in read.labels and "false positive rate" in read.labels
    assert "✗ female 90.0% true: male Grad-CAM: for male ✓ male 90.0% ✗" in read.text
    assert {"a%20%231%25.png", "checkpoints/best.ckpt"} <= set(read.all("href")), "names are quoted"


def test_the_same_input_gives_the_same_bytes(tmp_path):
    once = written(tmp_path, results=[TEST]).source
    assert once == written(tmp_path, results=[judged("test")]).source


def test_names_are_text_never_markup(tmp_path):
    metadata = RUN | {"classes": [NASTY, "male"], "error": NASTY, "quirks": [NASTY], "command": NASTY}
    read = written(tmp_path, title=NASTY, metadata=metadata, results=[NAMED], config=NASTY, audit={NASTY: 1})
    assert "<b>&" not in read.source and "{{x}}" in read.source
    assert read.text.count(NASTY) > 8 and NASTY in read.labels, "in charts too"


@pytest.mark.parametrize(
    "changes",
    [
        {"history": HISTORY.iloc[:0]},
        {"history": HISTORY[["epoch", "train_loss", "val_loss"]].iloc[:1], "results": []},
        {"results": [judged(n=0)]},
        {"results": [judged(n=1)]},
        {"results": [judged(images=0)], "samples": None},
        {"results": [judged(present=1)]},
        {"results": [ORDERED]},
        {"results": [judged(classes=tuple(map(str, range(30))), n=300)], "table": None},
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
def test_what_is_missing_is_left_out(tmp_path, changes):
    check_whole(written(tmp_path, **({"history": None} | changes)), tmp_path)


@pytest.mark.parametrize(
    ("split", "about", "found", "said"),
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
def test_what_stands_between_the_figures_and_what_they_seem_to_say(split, about, found, said):
    assert said in page.caveats(judged(split, found=found), about)


def test_ordered_classes_are_told_by_distance(tmp_path):
    of = judged(classes=("young", "middle", "old"), ordinal=True)
    labels = written(tmp_path, results=[of]).labels
    far = np.abs(of.scores.argmax(1) - of.truth)
    assert (
        f"{(far == 0).mean():.1%} exactly right, {(far == 1).mean():.1%} one class off, {(far == 2).mean():.1%}"
        in labels
    )


def test_many_attributes_are_told_one_by_one_worst_first(tmp_path):
    of = judged(classes=("Bald", "Male", "Young"), multilabel=True)
    table = pd.DataFrame({"split": ["train", "val"], "Bald": [1, np.nan], "Male": [0.0, 1.0], "Young": [1, 1]})
    table.attrs |= {"multilabel": True, "classes": ["Bald", "Male", "Young"]}
    read = written(tmp_path, results=[of], table=table)
    worst = sorted(of.task.classes, key=lambda name: of.metrics[f"accuracy_{name}"])
    assert [row.label for row in of.attributes] == worst
    share = of.metrics["positive_Bald"] / of.metrics["n_Bald"]
    assert (
        f"AP {of.metrics['average_precision_Bald']:.3f}, n = {of.metrics['n_Bald']}, {share:.0%} have it" in read.text
    )
    assert "the mean over 3 attributes" in read.text and "confusion" not in read.labels and "Bald 1 0" in read.text


def test_the_chosen_threshold_is_told_and_drawn(tmp_path):
    chosen = {"threshold": 0.3, "precision_at_threshold": 0.7, "recall_at_threshold": 0.95}
    read = written(tmp_path, results=[judged(found=chosen)])
    assert "male from probability 0.300 on has precision 0.700 and recall 0.950" in read.text
    assert read.text.count("chosen threshold") == 2


def test_an_evaluation_beside_another_model_tells_the_difference(tmp_path):
    pair = {"difference": 0.02, "low": -0.01, "high": 0.05, "wins": 7, "losses": 3, "p": 0.34}
    comparison = {"ckpt": "A.ckpt", "compare": NASTY, "split": "test"} | pair
    read = written(tmp_path, results=[TEST], history=None, comparison=comparison)
    check_whole(read, tmp_path)
    assert (
        "Difference +0.020 (95% -0.010 to +0.050); only ckpt right 7" in read.text and f"compare: {NASTY}" in read.text
    )


@pytest.mark.parametrize(("images", "reduced"), [(36, False), (110, True)])
def test_a_page_of_many_images_stays_below_its_limit_and_says_so(tmp_path, images, reduced):
    read = written(tmp_path, results=[judged(images=images, side=160)])  # noise: nothing is harder to compress
    assert len(read.source.encode()) <= LIMIT
    assert ("To keep this file under 5 MB" in read.text) == reduced


def test_a_scale_holds_what_it_shows():
    scale = Scale([Row("a", 0.93, 0.91, 0.95), Row("b", None), Row("c", float("nan"), dots=(0.97,))], 0.9)
    assert scale.ticks[0] <= 0.9 and scale.ticks[-1] >= 0.97 and len(scale.ticks) <= 6
    assert float(scale.at(0.9)[:-1]) >= 0 and float(scale.at(0.97)[:-1]) <= 100
    assert Scale([]).ticks[0] <= 0 and Scale([Row("one", 1.0, 1.0, 1.0)]).ticks[-1] > 0.99


def sweep_in(folder: Path) -> Path:
    job(folder, 0, ["model=cnn", "optim.lr=0.1", "seed=0"], 0.90)
    job(folder, 1, ["model=cnn", "optim.lr=0.1", "seed=1"], 0.92)
    (job(folder, 2, ["model=vgg16", "optim.lr=0.01", "seed=0"], 0.95) / "report.html").write_text("x")
    job(folder, 3, [f"model={NASTY}", "optim.lr=0.01", "seed=1"], status="failed", error="Out of memory\nat <block5>")
    leaderboard.write(folder)
    return folder / "report.html"


def test_a_sweep_shows_its_leaderboard_each_key_and_every_run(tmp_path):
    read = Read(sweep_in(tmp_path))
    check_whole(read, tmp_path)
    assert "Best: model=vgg16 optim.lr=0.01 with 0.950 (0.924–0.967). No other interval reaches it." in read.text
    assert "2 seeds ±0.014" in read.text and "✗ failed Out of memory at <block5>" in read.text
    assert "Validation accuracy by model. Best on average: vgg16 with 0.950" in read.labels
    assert {"0/", "2/report.html", "3/", "leaderboard.csv"} <= set(read.all("href"))
    for key in ("model", "optim.lr", "seed 0", "seed 1", NASTY):
        assert key in read.text


def test_a_sweep_of_nothing_but_failures_has_a_page_too(tmp_path):
    job(tmp_path, 0, ["model=cnn"])
    leaderboard.write(tmp_path)
    check_whole(read := Read(tmp_path / "report.html"), tmp_path)
    assert "No run finished." in read.text and "killed" in read.text


def test_the_colours_of_text_have_contrast():
    style = (TEMPLATES / "style.jinja2").read_text()
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", style))

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return float(
            np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    for name in ("ink", "muted", "accent", "warn"):
        for behind in ("#ffffff", colours["tint"]):
            assert (luminance(behind) + 0.05) / (luminance(colours[name]) + 0.05) >= 4.5, name


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium that asks nobody for anything by itself."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    quiet = ["background-networking", "component-update", "sync"]
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    with playwright.sync_playwright() as found:
        started = found.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


def opened(browser: Any, file: Path, width: int) -> tuple[Any, list[str]]:
    """The page, and what it asked for or complained of."""
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
        "sweep": sweep_in(folder / "sweep"),
    }


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("name", ["run", "long", "many", "sweep"])
def test_a_browser_shows_it_whole_and_asks_for_nothing(browser, pages, name, width):
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


def test_grad_cam_by_click_by_key_and_on_all(browser, run):
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


@pytest.mark.parametrize("name", ["run", "long", "sweep"])
def test_on_paper_all_is_open_and_nothing_is_cut(browser, pages, name, tmp_path):
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
