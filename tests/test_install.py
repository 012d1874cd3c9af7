"""The wheel in an environment of its own, without the checkout: every command, as a user types it in another folder."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import FIGURES, PATIENCE, ROOT, TINY, Ended

SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "src", "conf")

Installed = Callable[..., Ended]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    """Runs a program of the environment in an empty folder: `installed("faceattr", "train", …)`."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = _build_wheel(folder)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", environment, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
    )
    # the packages that these tests run with; a .pth is not read through another, so an editable faceattr stays out
    own = next(environment.rglob("site-packages"))
    (own / "more.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()

    def run(program: str, *arguments: object, **env: str) -> Ended:
        found = shutil.which(program, path=programs)
        assert found, f"{program} is not in {programs}"
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [found, *map(str, arguments)],
            cwd=elsewhere,
            env=clean | {"OMP_NUM_THREADS": "1"} | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


SEVERAL = """
import json, os, sys
import faceattr.commands.train, faceattr.commands.main, matplotlib.pyplot
for command in json.loads(sys.argv[1]):
    if (child := os.fork()) == 0:
        sys.argv = ["faceattr", *command]
        faceattr.commands.main.main()
        sys.exit(0)
    print("\\ncode", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def _several(installed: Installed, *commands: list[str]) -> list[str]:
    """What each command prints: all in forks of one process, since importing torch is most of a tiny command."""
    ended = installed("python", "-c", SEVERAL, json.dumps([list(map(str, command)) for command in commands]))
    *printed, last = ended.out.split("\ncode 0\n")
    assert len(printed) == len(commands) and last == "", f"{ended}"
    return printed


def _build_wheel(folder: Path) -> Path:
    """From a copy, since a build leaves files beside the sources."""
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, sources / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, sources], check=True)
    (wheel,) = folder.glob("faceattr-*.whl")
    return wheel


@pytest.mark.slow
def test_wheel_runs_every_command_without_the_checkout(installed):
    """One test, since each command goes on with what an earlier one left: pytest-xdist would train once per worker."""
    full = (*TINY, "trainer.max_epochs=1", "evaluate.report=full")
    run = _results(succeeded(installed("python", "-m", "faceattr", "train", *full)))
    for name in ("train.log", "report.html", ".hydra/config.yaml"):
        assert (run / name).exists()
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    again = installed("faceattr", "train", *TINY, f"hydra.run.dir={run}")
    assert again.code == 1 and f"go on with it: faceattr train ckpt={last}" in again.err, f"{again}"

    metrics = (run / "test_metrics.json").read_text()
    faces = next(Path(os.environ["FACEATTR_CACHE"]).glob("sample/*_n60_size32_*"))
    sweep, _, predicted, *_ = _several(
        installed,
        ["train", "-m", *TINY, "trainer.max_epochs=1", "seed=0,1"],
        ["evaluate", f"ckpt={best}", FIGURES, "hydra.run.dir=evaluated"],
        ["predict", f"ckpt={best}", f"input={faces}"],
        ["preview", *TINY, "hydra.run.dir=preview"],
        ["leaks", *TINY, "hydra.run.dir=leaks"],
        ["train", f"ckpt={last}", "trainer.max_epochs=2", FIGURES],
    )
    assert "Leaderboard: " in sweep and "60 images → " in predicted
    elsewhere = run.parents[2]
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert (elsewhere / "preview" / "samples.png").exists() and (elsewhere / "leaks" / "audit.json").exists()
    assert (elsewhere / "evaluated" / "test_metrics.json").read_text() == metrics
    names = [path.name for path in elsewhere.rglob("*")]
    assert not [name for name in names if set(name) & set('<>:"\\|?*=')]


@pytest.mark.slow
def test_wheel_helps_without_the_checkout(installed, tmp_path):
    where = "import faceattr; from faceattr.config.conf_folder import config_folder; print(faceattr.__file__, config_folder())"
    assert str(ROOT) not in succeeded(installed("python", "-c", where)).out
    page = (
        "from importlib.resources import files; print(len([*(files('faceattr.commands.serving') / 'page').iterdir()]))"
    )
    assert succeeded(installed("python", "-c", page)).out == "5\n"
    overview = succeeded(installed("faceattr", "--help")).out
    commands = [line.split()[0] for line in overview.splitlines() if line.startswith("  ")]
    assert commands == ["train", "evaluate", "predict", "export", "serve", "preview", "leaks", "cache"]
    groups = succeeded(installed("faceattr", "train", "--help")).out
    for group in ("data", "model", "finetune", "augment", "optim", "trainer", "logger", "experiment", "quirks"):
        assert f"\n{group}:" in groups
    for arguments, message in HINTS.items():
        ended = installed("faceattr", *arguments.split())
        assert ended.code == 1 and message in ended.err and "Traceback" not in ended.err, f"{ended}"
    for arguments in (["cache"], ["cache", "clear"]):
        assert "0 arrays " in succeeded(installed("faceattr", *arguments, FACEATTR_CACHE=str(tmp_path))).out


HINTS = {
    "trian": "Did you mean train?",
    "train modle=vgg16": "Did you mean model?",
    "train trainer.patienc=3": "Did you mean trainer.patience?",
    "train model=vgg61": "vgg16_half",
    "evaluate": "faceattr evaluate ckpt=",
}


def succeeded(ended: Ended) -> Ended:
    assert ended.code == 0, ended.err
    return ended


def _results(ended: Ended) -> Path:
    """The run's folder, as the last line says."""
    return Path(ended.out.rpartition("Results: ")[2].strip())
