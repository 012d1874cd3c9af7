"""What the rooms may know: `cfg` ends in commands, below they take typed values. (import-linter keeps the directions.)"""

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "faceattr"
READS_CONFIG = {
    "api.py": "names the type of a composed config",
    "data/sources/sample.py": "is a program too, with arguments like Hydra's",
    "report/leaderboard.py": "reads the overrides that Hydra wrote beside the jobs of a sweep",
    "report/unfinished_jobs.py": "reads them too, to say how a killed sweep goes on",
}
"""Files below commands, but for config/, that import omegaconf, and why."""


def test_only_commands_and_config_import_omegaconf():
    importing = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if re.search(r"^\s*(from|import) (omegaconf|hydra)\b", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    below = {name for name in importing if not name.startswith(("commands/", "config/"))}
    assert below == set(READS_CONFIG)


def test_files_are_written_atomically_in_one_place():
    writing = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if re.search(r"\.part\b", file.read_text(encoding="utf-8"))
    }
    assert writing == {"files.py", "data/disk_cache.py"}  # whose lock guards the part


def test_names_of_metrics_and_charts_need_no_torch():
    """A leaderboard and `--help` need them at once. (test_api.py: what an exported folder needs.)"""
    code = "import sys, faceattr.metrics.registry, faceattr.report.charts\nprint({'torch', 'matplotlib.pyplot'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
