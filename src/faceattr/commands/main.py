"""The command line: `faceattr <command> …`. The scripts beside the README (train.py, …) call the command of their name.

Every command but `cache` is a Hydra app over conf/. Errors that the user can mend are shown as one message, exit code 1.
"""

import gc
import io
import logging
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from hydra import version as hydra_version
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from faceattr.commands.config_from_checkpoint import add_config_from_checkpoint
from faceattr.commands.error_message import error_message
from faceattr.commands.hydra_app import hydra_parser, own_hydra_state, remove_empty_run, run_hydra
from faceattr.commands.run_folder import released
from faceattr.commands.signals import Stopped, end_with_parent, end_with_reader, is_worker, stop_on_signals
from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.help_and_docs import help_text
from faceattr.config.quote_for_hydra import quote_arguments
from faceattr.config.validate_keys import check_before_imports
from faceattr.errors import FaceattrError
from faceattr.message_text import did_you_mean


@dataclass(frozen=True)
class Command:
    """`config`: the file of conf/ that it is composed from; `function`: what it runs; `own_folder`: see `COMMANDS`;
    `sweeps`: whether it takes -m."""

    summary: str
    config: str
    function: str
    own_folder: str | None = None
    sweeps: bool = True


COMMANDS = {
    "train": Command("train a classifier, and evaluate it", "train", "faceattr.commands.train:train"),
    "evaluate": Command("evaluate a checkpoint: ckpt=…", "evaluate", "faceattr.commands.evaluate:evaluate"),
    "predict": Command("predict images: ckpt=… input=…", "predict", "faceattr.commands.predict:predict"),
    "export": Command("export a checkpoint, with a proof: ckpt=…", "export", "faceattr.commands.export:export"),
    "serve": Command("answer on a page and a JSON API: ckpt=…", "serve", "faceattr.commands.serve:serve", sweeps=False),
    "preview": Command(
        "show the images, splits and augmentation that a training run would get",
        "train",
        "faceattr.commands.preview:preview",
        "${hydra:runtime.choices.data}_${hydra:runtime.choices.augment}",
        sweeps=False,
    ),
    "leaks": Command(
        "find copies of images, and people, in two splits",
        "train",
        "faceattr.commands.leaks:leaks",
        "${hydra:runtime.choices.data}",
        sweeps=False,
    ),
}
"""The Hydra apps. Those with an `own_folder` take the keys of `train`, and write into
outputs/<command>/<own_folder>/<date_time>."""
CACHE_SUMMARY = (
    "list what is stored between runs (pixels, features, hashes); cache verify: remove what is damaged; "
    "cache clear: remove all of it"
)


def main(command: str | None = None) -> None:
    """Run the command of the command line: the first argument, or `command` (train.py calls `main("train")`)."""
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe on Windows is not UTF-8: messages hold … and ±
    if command is None:
        if not arguments or arguments[0] in ("-h", "--help"):
            with end_with_reader():
                print(overview())
            raise SystemExit(0 if arguments else 1)
        command = arguments.pop(0)
    if command == "cache":
        from faceattr.commands.cache import cache

        with end_with_reader():
            return cache(arguments)
    if command not in COMMANDS:
        sys.exit(
            f"Error: faceattr {command}: no such command.{did_you_mean(command, _names())}\nCommands: {', '.join(_names())}"
        )
    run(command, arguments)


def overview() -> str:
    """What `faceattr --help` prints."""
    summaries = {name: command.summary for name, command in COMMANDS.items()} | {"cache": CACHE_SUMMARY}
    return "\n".join(
        [
            "usage: faceattr <command> [key=value …]",
            "",
            *(f"  {name:<9} {summary}" for name, summary in summaries.items()),
            "",
            "faceattr <command> --help lists the config groups and keys of a command.",
        ]
    )


def _names() -> tuple[str, ...]:
    return (*COMMANDS, "cache")


def run(command: str, arguments: Sequence[str]) -> None:
    """Run `command` through Hydra with `arguments` as a user types them. `sys.argv` stays as it is: DDP starts it again."""
    program, function = COMMANDS[command].config, COMMANDS[command].function
    end_with_parent()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and not is_worker()  # which has it from the line below
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that errors are shown in one place
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # OpenMP's idle threads give their core back sooner

    def task(cfg: DictConfig) -> Any:
        end_with_parent()
        with stop_on_signals(), one_clear_error(program, arguments, show_traceback):
            if HydraConfig.get().mode == RunMode.RUN:  # in a sweep, the jobs without an error run
                check_before_imports(cfg)
            with quick_imports():
                called = pkgutil.resolve_name(function)  # torch is imported only once the config is composed
            return called(cfg)

    with stop_on_signals(), released(), one_clear_error(program, arguments, show_traceback):
        arguments = quote_arguments(arguments)
        with quick_imports():
            hydra_arguments = add_own_options(command, arguments)
        hydra_version.setbase("1.3")
        parser: Any = hydra_parser()
        parser.error = refuse_arguments
        parsed = parser.parse_intermixed_args(hydra_arguments)  # `seed=1 -m model=cnn,vgg16` too
        if parsed.help:
            with own_hydra_state(), end_with_reader():
                return print(help_text(command_to_paste(command), program, parsed.overrides, parsed.config_dir))
        prints_only = parsed.cfg or parsed.info or parsed.hydra_help
        with end_with_reader() if prints_only else nullcontext():
            run_hydra(parsed, parser, task, program)


def refuse_arguments(message: str) -> None:
    """What Hydra's parser does with arguments that it does not know, in place of its usage of ten lines."""
    raise FaceattrError(f"{message}. A key is given as key=value, such as trainer.max_epochs=3; --help lists them.")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Where this block imports torch, Python does not look for unused objects meanwhile, nor later among those of the modules:
    there are half a million, and it would look through them a thousand times."""
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if "torch" in sys.modules:
            gc.freeze()
        gc.enable()


def add_own_options(command: str, arguments: Sequence[str]) -> list[str]:
    """`arguments` after what this command adds to them: the config of its checkpoint, its own folder. The user's win."""
    expanded = add_config_from_checkpoint(command, arguments)
    if {"-m", "--multirun"} & set(expanded) and not COMMANDS[command].sweeps:
        raise FaceattrError(f"{command} looks at one configuration. Leave out -m.")
    if (own_folder := COMMANDS[command].own_folder) is None:
        return expanded
    folder = f"outputs/{command}/{own_folder}/${{now:%Y-%m-%d_%H-%M-%S-%f}}"
    own = ["hydra.mode=RUN", f"hydra.run.dir={folder}", f"hydra.job.name={command}"]
    return [*own, *expanded]


@contextmanager
def one_clear_error(program: str, arguments: Sequence[str], show_traceback: bool) -> Iterator[None]:
    """Turn every error that the user can mend into its message and exit code 1, and a signal into a message and its code."""
    try:
        yield
    except (Exception, KeyboardInterrupt, Stopped) as error:
        logging.shutdown()  # Windows removes no open file
        remove_empty_run()
        if isinstance(error, Stopped):
            if not is_worker():  # the first process of a DDP run says it
                sys.stderr.write(f"{error}\n")
            raise SystemExit(error.code) from None
        message = error_message(error, program, arguments)
        if show_traceback or message is None:
            raise
        sys.stderr.write(f"Error: {message}\n")
        raise SystemExit(1) from None
