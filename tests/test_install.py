"""The wheel in an environment of its own, without the checkout: every command, as a user types it in another folder."""

import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import ROOT, TINY, Ended

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
            timeout=300,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


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


@pytest.fixture(scope="module")
def checkpoint(installed) -> Path:
    """best.ckpt of a run of the installed command."""
    ended = installed("faceattr", "train", *TINY, "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    folder = Path(ended.out.rpartition("Results: ")[2].strip())
    assert "elsewhere" in folder.parts and (folder / "train.log").exists() and (folder / "report.html").exists()
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.slow
def test_installed_package_runs_without_checkout(installed):
    code = "import faceattr, faceattr.config.groups as groups; print(faceattr.__file__, groups.config_folder())"
    ended = installed("python", "-c", code)
    assert ended.code == 0 and str(ROOT) not in ended.out, f"{ended}"


@pytest.mark.slow
def test_installed_evaluate_gives_the_metrics_of_the_run(installed, checkpoint):
    ended = installed("faceattr", "evaluate", f"ckpt={checkpoint}", "hydra.run.dir=evaluated")
    assert ended.code == 0, ended.err
    run = checkpoint.parents[1]
    again = run.parents[2] / "evaluated" / "test_metrics.json"
    assert again.read_text() == (run / "test_metrics.json").read_text()


@pytest.mark.slow
def test_installed_predict_writes_a_row_per_image(installed, checkpoint):
    folder = next(Path(os.environ["FACEATTR_CACHE"]).glob("sample/*"))
    ended = installed("faceattr", "predict", f"ckpt={checkpoint}", f"input={folder}", "hydra.run.dir=predicted")
    assert ended.code == 0, ended.err
    assert "images → " in ended.out


@pytest.mark.slow
@pytest.mark.parametrize(("command", "file"), [("preview", "samples.png"), ("leaks", "audit.json")])
def test_installed_looks_at_the_data(installed, checkpoint, command, file):
    ended = installed("faceattr", command, *TINY, f"hydra.run.dir={command}")
    assert ended.code == 0, ended.err
    assert (checkpoint.parents[4] / command / file).exists()


@pytest.mark.slow
def test_installed_cache_lists_and_clears(installed, tmp_path):
    ended = installed("faceattr", "cache", FACEATTR_CACHE=str(tmp_path))
    assert ended.code == 0 and ended.out.startswith("0 arrays in"), f"{ended}"
    assert installed("faceattr", "cache", "clear", FACEATTR_CACHE=str(tmp_path)).code == 0


@pytest.mark.slow
def test_installed_as_module_sweeps_and_names_itself_in_messages(installed, checkpoint):
    sweep = ("python", "-m", "faceattr", "train", "-m", *TINY, "trainer.max_epochs=1")
    ended = installed(*sweep, "seed=0,1", "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    assert "2 of 2" not in ended.err and "Leaderboard: " in ended.out
    folder = checkpoint.parents[1]
    ended = installed("python", "-m", "faceattr", "train", *TINY, f"hydra.run.dir={folder}")
    assert ended.code == 1 and f"python -m faceattr train ckpt={folder}" in ended.err, f"{ended}"


@pytest.mark.slow
def test_installed_resumes(installed, checkpoint):
    last = checkpoint.with_name("last.ckpt")
    ended = installed("faceattr", "train", f"ckpt={last}", "trainer.max_epochs=2", "trainer.patience=null")
    assert ended.code == 0, ended.err
    assert len((checkpoint.parents[1] / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_installed_help_lists_commands_and_groups(installed):
    overview, groups = installed("faceattr", "--help"), installed("faceattr", "train", "--help")
    assert overview.code == groups.code == 0
    commands = [line.split()[0] for line in overview.out.splitlines() if line.startswith("  ")]
    assert commands == ["train", "evaluate", "predict", "preview", "leaks", "cache"]
    for group in (ROOT / "conf").iterdir():
        assert not group.is_dir() or group.name == "hydra" or f"{group.name}" in groups.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "Did you mean train?"),
        ("train modle=vgg16", "Did you mean model?"),
        ("train trainer.patienc=3", "Did you mean trainer.patience?"),
        ("train model=vgg61", "vgg16_half"),
        ("evaluate", "faceattr evaluate ckpt="),
    ],
)
def test_installed_hints_at_what_was_meant(installed, arguments, message):
    ended = installed("faceattr", *arguments.split())
    assert ended.code == 1 and message in ended.err and "Traceback" not in ended.err, f"{ended}"
