"""report.html of a sweep, and its chart of a config key."""

import re
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from html_page import NASTY, Page, check_whole
from sweeps import job, write_sweep

from faceattr.report import charts, leaderboard, sweep_report


def drawn(folder: Path, **jobs: object) -> list[str]:
    """The texts of a chart of these jobs."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        charts.panels(folder / "panels.svg", partial(sweep_report.by_value, **jobs))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (folder / "panels.svg").read_text(encoding="utf-8"))
    return [text.strip() for text in texts]


def test_write_shows_leaderboard_keys_and_runs(tmp_path):
    report = Page(write_sweep(tmp_path))
    check_whole(report, tmp_path)
    assert "Best: model=vgg16 optim.lr=0.01 with 0.950 (0.924–0.967). No other interval reaches it." in report.text
    assert "2 seeds ±0.014" in report.text and "✗ failed Out of memory at <block5>" in report.text
    assert "Validation accuracy by model. Best on average: vgg16 with 0.950" in report.labels
    assert {"0/", "2/report.html", "3/", "leaderboard.csv"} <= set(report.all("href"))
    for key in ("model", "optim.lr", "seed 0", "seed 1", NASTY):
        assert key in report.text


def test_write_counts_one_job_one_configuration_and_one_other_interval(tmp_path):
    job(tmp_path, 0, ["model=cnn"], 0.9)
    leaderboard.write(tmp_path)
    text = Page(tmp_path / "report.html").text
    assert "1 job " in text and "1 configuration " in text and "1 seed" in text
    job(tmp_path, 1, ["model=vgg16"], 0.9)
    leaderboard.write(tmp_path)
    text = Page(tmp_path / "report.html").text
    assert "2 jobs" in text and "1 of 1 other interval reaches it." in text


def test_write_of_failed_jobs_only(tmp_path):
    job(tmp_path, 0, ["model=cnn"])
    leaderboard.write(tmp_path)
    check_whole(report := Page(tmp_path / "report.html"), tmp_path)
    assert "No run finished." in report.text and "killed" in report.text


def test_by_value_lists_values_or_draws_an_axis_of_numbers(tmp_path):
    jobs = pd.DataFrame(
        [("vgg16", 0.9, "0"), ("cnn", 0.8, "0"), ("cnn", 0.82, "1")], columns=["value", "accuracy", "seed"]
    )
    shown = drawn(tmp_path, key="model", jobs=jobs)
    assert {"model", "vgg16", "cnn", "seed 0", "seed 1", "validation accuracy"} <= set(shown)
    rates = pd.DataFrame({"value": ["0.1", "0.01", "0.001"], "accuracy": [0.7, 0.9, 0.8], "seed": ""})
    shown = drawn(tmp_path, key="optim.lr", jobs=rates)
    assert shown.index("0.001") < shown.index("0.01") < shown.index("0.1"), "numbers in their order"
    many = pd.DataFrame({"value": [f"{10**-x:.6f}" for x in np.linspace(1, 5, 12)], "accuracy": 0.9, "seed": "0"})
    assert "0.100000" not in drawn(tmp_path, key="optim.lr", jobs=many)
