"""What is left to do of a sweep that was killed: a command for each job that did not finish, or was never started; what has to
be mended where the command would fail again."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from faceattr.config.command_to_paste import command_to_paste, leaderboard_to_paste
from faceattr.config.quote_for_hydra import argument
from faceattr.report.leaderboard import one_line_error, read_jobs


def unfinished(folder: str | Path) -> list[str]:
    """The commands that go on with the jobs of the sweep in `folder`, each in its own folder: from its last checkpoint, or from
    the start where it has none. Without those of refused jobs, which would fail again. A search (Optuna) chooses its jobs one by
    one: those that it did not start are not known."""
    folder = Path(folder)
    jobs = read_jobs(folder)
    commands = []
    for job in jobs:
        last = job["job"] / "checkpoints" / "last.ckpt"
        if not job["error"] or job["refused"]:
            continue
        begin = [*job["arguments"], argument("hydra.run.dir", job["job"])]
        commands.append(command_to_paste("train", *([argument("ckpt", last)] if last.exists() else begin)))
    started = Counter(tuple(job["arguments"]) for job in jobs)
    for number, arguments in enumerate(_planned(folder)):
        if started[arguments]:
            started[arguments] -= 1
        else:
            commands.append(command_to_paste("train", *arguments, argument("hydra.run.dir", folder / str(number))))
    return commands


def _planned(folder: Path) -> Iterator[tuple[str, ...]]:
    """The arguments of each job that a grid consists of, as Hydra stored the grid when it began; none of a search."""
    file = folder / "multirun.yaml"
    if not file.is_file():
        return
    hydra = OmegaConf.load(file).hydra
    if not str(OmegaConf.select(hydra, "sweeper._target_")).endswith(".BasicSweeper"):
        return
    try:
        overrides = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    except HydraException:
        return
    for batch in BasicSweeper.split_arguments(overrides, None):
        yield from map(tuple, batch)


def left_to_do(folder: str | Path) -> list[str]:
    """Lines: the commands of `unfinished`, and why the jobs have none that were refused. Empty where all jobs finished."""
    commands, refused = unfinished(folder), [one_line_error(job) for job in read_jobs(folder) if job["refused"]]
    go_on = ["To go on with the jobs that did not finish:", *commands] if commands else []
    mend = (
        ["These jobs would fail again until this is mended (report.html has their arguments):", *refused]
        if refused
        else []
    )
    return [*go_on, *mend]


def describe(folder: str | Path) -> str:
    """How to go on with a sweep that holds jobs, and how to begin another one."""
    lines = left_to_do(folder)
    text = f"hydra.sweep.dir={folder} holds the jobs of an earlier sweep"
    if not lines:
        return f"{text}, and all of them finished. Give another hydra.sweep.dir, or move it away."
    end = "For a new sweep, give another hydra.sweep.dir, or move this one away."
    return "\n".join([f"{text}.", *lines, f"For the leaderboard: {leaderboard_to_paste(folder)}", end])
