"""The benchmark's own code: what a measurement holds, medians, ratios and verdicts in the tables, and the skip without CUDA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def a_run(case, who, number, rates, **more):
    memory = {"pss": 900.0, "own": 800.0, "rss": 950.0}
    times = {"epochs": [2.0, 1.0], "first_epoch": 8.0, "seconds": 12.0}
    fixed = {"date": "2030-01-02T03:04:05+00:00", "commit": "abc", "memory": memory}
    return {"case": case, "who": who, "round": number, "rates": rates} | times | fixed | more


def test_the_tables_hold_medians_ratios_per_round_and_verdicts():
    import render

    runs = []
    for number, (ours, keras, lightning) in enumerate([(600, 200, 150), (660, 200, 110), (300, 50, 100)], 1):
        rates = {"faceattr": ours, "keras": keras, "lightning": lightning}
        runs += [a_run("s3", who, number, [1, rate, rate]) for who, rate in rates.items()]
    text = render.tables({"machine": {"cpu": "a CPU", "cores": 2}, "runs": runs})
    ratios = next(line for line in text.splitlines() if "bar" not in line and "×" in line and "met" in line)
    assert "| 3.30× (3.00–6.00); ≥ 3: met |" in ratios
    assert "| 4.00× (3.00–6.00); ≥ 5: **not met** | – | – |" in ratios  # neither timm nor the ceiling was measured
    assert "| 200 | 110 | – | 600 | – |" in text


def test_a_whole_run_is_measured_where_it_was_run_and_extended_where_it_was_not():
    import render

    assert render.whole(50)({"first_epoch": 8.0, "epochs": [5.0, 2.0, 4.0, 3.0], "seconds": 30.0}) == 8 + 49 * 3
    assert render.whole(2)({"first_epoch": 8.0, "epochs": [5.0, 2.0], "seconds": 30.0}) == 30


def test_growth_memory_and_start_are_judged_by_what_is_at_most():
    import render
    from cases import GROWTH, ROWS

    runs = [a_run("growth", str(GROWTH[0]), 1, [1, 1000]), a_run("growth", str(GROWTH[-1]), 1, [1, 800])]
    for rows, megabytes in zip(ROWS, (500.0, 700.0), strict=True):
        runs.append(a_run("evaluation", str(rows), 1, [], memory={"own": megabytes, "pss": megabytes * 2}))
    runs += [a_run("startup", "first_step", 1, [], first_step=7.0), a_run("startup", "compose", 1, [], seconds=2.0)]
    verdicts = [line.split("|")[2].strip() for line in render.tables({"machine": {}, "runs": runs}).splitlines()[6:]]
    assert verdicts == [
        "1.25×; ≤ 1.1: **not met**",
        "200 MB; ≤ 300: met",
        "400 MB; ≤ 300: **not met**",
        "7.00 s; ≤ 8: met",
        "2.00 s; ≤ 1.5: **not met**",
    ]


def test_the_tables_go_between_the_marks(tmp_path):
    import render

    (tmp_path / "a.md").write_text(f"before\n{render.MARKS[0]}\nold\n{render.MARKS[1]}\nafter\n")
    render.insert(tmp_path / "a.md", "new")
    assert (tmp_path / "a.md").read_text() == f"before\n{render.MARKS[0]}\n\nnew\n\n{render.MARKS[1]}\nafter\n"


def test_the_document_shows_the_results_that_are_kept():
    import render

    document = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    file = BENCHMARKS / "results.json"
    shown = document.split(render.MARKS[0])[1].split(render.MARKS[1])[0].strip()
    assert shown == (render.tables(json.loads(file.read_text())) if file.exists() else "Not measured yet.")


def test_a_measurement_knows_its_output_time_memory_and_failure(tmp_path):
    from measure import Failed, measure

    script = "from clock import Clock; c = Clock(); b = bytearray(2**27); c.begin(); c.step(8); c.end(); import time;"
    script += f"open({str(tmp_path / 'there')!r}, 'w').close(); time.sleep(0.7); c.report(extra=1)"
    env = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    ended = measure([sys.executable, "-c", script], cwd=tmp_path, env=env, watch=tmp_path / "there")
    said = json.loads(ended.out)
    assert said["extra"] == 1 and said["epochs"][0]["images"] == 8 and 0 < said["first_step"] < ended.seconds
    assert 0 < ended.appeared < ended.seconds and ended.memory["rss"] > 128
    if sys.platform == "linux":
        assert ended.memory["own"] > 128 and ended.memory["pss"] >= ended.memory["own"]
    with pytest.raises(Failed, match=r"exit code 3.*said why"):
        measure([sys.executable, "-c", "import sys; print('said why'); sys.exit(3)"], cwd=tmp_path, env=env)


def test_every_competitor_gets_the_same_files(tmp_path):
    from files import class_folders

    pictures = [(tmp_path / f"{i}.jpg", "ab"[i % 2]) for i in range(4)]
    for file, _ in pictures:
        file.write_text(file.stem)
    out = class_folders(tmp_path / "out", pictures, train=5, val=1)
    found = {str(file.relative_to(out)): file.read_text() for file in sorted(out.rglob("*.jpg"))}
    assert found == {f"train/{'ab'[i % 2]}/{i:06d}.jpg": str(i % 4) for i in range(5)} | {"val/b/000005.jpg": "1"}


@pytest.mark.slow
def test_bench_gpu_says_why_it_does_nothing():
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], env=env, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout == "No CUDA device is visible here: nothing was measured.\n"
