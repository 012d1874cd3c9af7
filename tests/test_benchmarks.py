"""The code of the benchmark: what a measurement holds, medians, ratios and targets in the tables, `make bench-gpu` without CUDA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from faceattr.report.markdown import read_between_marks

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def run_record(case, variant, number, rates, **more):
    memory = {"pss": 900.0, "own": 800.0, "rss": 950.0}
    times = {"epochs": [2.0, 1.0], "first_epoch": 8.0, "seconds": 12.0}
    fixed = {"date": "2030-01-02T03:04:05+00:00", "commit": "abc", "memory": memory}
    return {"case": case, "variant": variant, "round": number, "rates": rates} | times | fixed | more


def test_all_tables_shows_medians_ratios_within_a_round_and_targets():
    import result_tables

    runs = []
    for number, (ours, keras, lightning) in enumerate([(600, 200, 150), (660, 200, 110), (300, 50, 100)], 1):
        rates = {"faceattr": ours, "keras": keras, "lightning": lightning}
        runs += [run_record("s3", who, number, [1, rate, rate]) for who, rate in rates.items()]
    text = result_tables.all_tables({"machine": {"cpu": "a CPU", "cores": 2}, "runs": runs})
    ratios = next(line for line in text.splitlines() if "×" in line and "met" in line)
    assert "| 3.30× (3.00–6.00); ≥ 3: met |" in ratios
    assert "| 4.00× (3.00–6.00); ≥ 5: **not met** | – | – |" in ratios  # neither timm nor the bare loop was measured
    assert "| 200 | 110 | – | 600 | – |" in text


def test_whole_run_seconds_is_the_measured_time_or_extended_from_the_later_epochs():
    import result_tables

    run = {"first_epoch": 8.0, "epochs": [5.0, 2.0, 4.0, 3.0], "seconds": 30.0}
    assert result_tables.whole_run_seconds(50)(run) == 8 + 49 * 3
    assert result_tables.whole_run_seconds(4)(run) == 30


def test_other_targets_are_upper_limits():
    import result_tables
    from cases import EVALUATION_ROWS, GROWTH_IMAGES

    images = (str(GROWTH_IMAGES[0]), str(GROWTH_IMAGES[-1]))
    runs = [run_record("growth", n, 1, [1, rate]) for n, rate in zip(images, (1000, 800), strict=True)]
    for rows, megabytes in zip(EVALUATION_ROWS, (500.0, 700.0), strict=True):
        runs.append(run_record("evaluation", str(rows), 1, [], memory={"own": megabytes, "pss": megabytes * 2}))
    runs.append(run_record("start_up", "first_step", 1, [], first_step=7.0))
    runs.append(run_record("start_up", "compose", 1, [], seconds=2.0))
    lines = result_tables.all_tables({"machine": {}, "runs": runs}).splitlines()[6:]
    assert [line.split("|")[2].strip() for line in lines] == [
        "1.25×; ≤ 1.1: **not met**",
        "200 MB; ≤ 300: met",
        "400 MB; ≤ 300: **not met**",
        "7.00 s; ≤ 8: met",
        "2.00 s; ≤ 1.5: **not met**",
    ]


def test_docs_benchmarks_shows_the_committed_results():
    import result_tables

    shown = read_between_marks(BENCHMARKS.parent / "docs" / "benchmarks.md")
    assert shown == result_tables.all_tables(json.loads((BENCHMARKS / "results.json").read_text()))


def test_measure_gives_output_time_and_memory(tmp_path, monkeypatch):
    """The command ends once its memory was sampled after it had written its file."""
    from measure_process import PeakMemory, measure

    sample, seen = PeakMemory.sample, tmp_path / "seen"

    def noted(self, now):
        before, written = self._sampled, (tmp_path / "file").exists()
        sample(self, now)
        if written and self._sampled != before:
            seen.touch()

    monkeypatch.setattr(PeakMemory, "sample", noted)
    script = "from epoch_timer import EpochTimer; t = EpochTimer(); b = bytearray(2**27); t.start_epoch(); t.step(8);"
    script += f"t.end_epoch(); open({str(tmp_path / 'file')!r}, 'w').close();"
    script += f"t.print_json(extra=1)\nimport os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)"
    env = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    measured = measure([sys.executable, "-c", script], cwd=tmp_path, env=env, watch=tmp_path / "file")
    printed = json.loads(measured.stdout)
    assert printed["extra"] == 1 and printed["epochs"][0]["images"] == 8
    assert 0 < printed["first_step"] < measured.seconds and 0 < measured.file_appeared < measured.seconds
    assert measured.memory["rss"] > 128
    if sys.platform == "linux":
        assert measured.memory["own"] > 128 and measured.memory["pss"] >= measured.memory["own"]


def test_measure_names_exit_code_and_output_of_a_failed_command(tmp_path):
    from measure_process import CommandFailed, measure

    program = "import sys; print('the reason'); sys.exit(3)"
    with pytest.raises(CommandFailed, match=r"exit code 3.*the reason"):
        measure([sys.executable, "-c", program], cwd=tmp_path, env=os.environ)


def test_record_saves_a_measurement_once_and_reports_a_failed_one(tmp_path, capsys):
    from benchmark import Benchmark
    from measure_process import CommandFailed

    def fail():
        raise CommandFailed("exit code 3")

    def measured(seconds):
        return lambda: {"rates": [1.0, 2.0], "seconds": seconds, "memory": {"pss": 1.0}, "other_busy_cores": 0.0}

    benchmark = Benchmark(tmp_path / "results.json", tmp_path, quick=True)
    benchmark.results["machine"] = {"commit": "abc", "versions": {}}
    benchmark.record("s3", "keras", 1, fail)
    for seconds in (1.0, 2.0):
        benchmark.record("s3", "timm", 1, measured(seconds))
    saved = Benchmark(tmp_path / "results.json", tmp_path, quick=True).results["runs"]
    assert [(run["variant"], run["seconds"]) for run in saved] == [("timm", 1.0)]
    assert benchmark.failed == 1 and "s3 keras round 1 FAILED: exit code 3" in capsys.readouterr().err


def test_class_folders_repeats_pictures_under_other_names(tmp_path):
    from image_files import class_folders

    pictures = [(tmp_path / f"{i}.jpg", "ab"[i % 2]) for i in range(4)]
    for file, _ in pictures:
        file.write_text(file.stem)
    out = class_folders(tmp_path / "out", pictures, train=5, val=1)
    contents = {str(file.relative_to(out)): file.read_text() for file in sorted(out.rglob("*.jpg"))}
    assert contents == {f"train/{'ab'[i % 2]}/{i:06d}.jpg": str(i % 4) for i in range(5)} | {"val/b/000005.jpg": "1"}


def test_bare_loop_starts_behind_the_layers_whose_output_a_run_caches(capsys):
    import bare_loop
    from epoch_timer import EpochTimer

    tiny = ["model=cnn", "model.blocks=[[8],[8]]", "model.image_size=[32,32]", "data.batch_size=8", "trainer=cpu"]
    for policy, cached in (("full", False), ("frozen", True)):
        cfg = bare_loop.compose_config([*tiny, f"finetune={policy}", "augment=none"])
        bare_loop.run(EpochTimer(), cfg, classes=2, images=16, epochs=2)
        printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        assert [epoch["images"] for epoch in printed["epochs"]] == [16, 16] and printed["parameters"] > 0
        assert (printed["cached_layers"] > 0) == cached


def test_data_loading_gives_both_loaders_the_same_images(tmp_path, monkeypatch):
    import data_loading
    from image_files import class_folders
    from PIL import Image

    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "cache"))
    pictures = []
    for number, label in enumerate(["a", "b"] * 4):
        Image.new("RGB", (40, 40), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
        pictures.append((tmp_path / f"{number}.png", label))
    folder = class_folders(tmp_path / "out", pictures, train=8, val=4)
    means = []
    for loader in (data_loading.faceattr_loader, data_loading.lightning_loader):
        images = next(iter(loader(str(folder))))[0]
        assert images.shape == (8, 3, 128, 128)
        scale = 255 if images.dtype == torch.uint8 else 1
        means.append(sorted((images / scale).mean((1, 2, 3)).tolist()))
    assert means[0] == pytest.approx(means[1], abs=1e-3)


def test_step_parts_times_functions_that_exist():
    import step_parts

    assert all(callable(getattr(owner, name)) for owner, name, _ in step_parts.PARTS)


@pytest.mark.parametrize(("program", "option"), [("run.py", "--rounds"), ("gpu.py", "--seconds")])
def test_help_lists_the_options(program, option):
    ended = subprocess.run([sys.executable, BENCHMARKS / program, "--help"], capture_output=True, text=True)
    assert ended.returncode == 0 and option in ended.stdout


@pytest.mark.slow
def test_bench_gpu_without_cuda_measures_nothing():
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], env=env, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout == "No CUDA device is visible here: nothing was measured.\n"
