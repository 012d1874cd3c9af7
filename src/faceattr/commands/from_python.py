"""A command inside another program, such as a notebook: composed and run as on a command line, and nothing of it stays."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hydra import version as hydra_version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from faceattr.commands.config_from_checkpoint import add_config_from_checkpoint
from faceattr.commands.error_message import error_message
from faceattr.commands.hydra_app import own_hydra_state, remove_empty_run
from faceattr.commands.log_handlers import LogFile
from faceattr.commands.run_folder import released
from faceattr.config.conf_folder import config_folder, register_schemas
from faceattr.config.quote_for_hydra import quote_arguments
from faceattr.errors import FaceattrError

Result = TypeVar("Result")


def run_command(command: str, overrides: Sequence[str], function: Callable[[DictConfig], Result]) -> Result:
    """Run `function` on the config of conf/<command>.yaml with `overrides`, as Hydra runs the command.

    `sys.argv` is not read; Hydra's global state and the loggers are as before when it returns.
    Raises FaceattrError for everything that the command line shows as one message.
    """
    for override in overrides:
        if override.startswith("-") or ("=" not in override and not override.startswith("~")):
            raise FaceattrError(f"{override}: give key=value. Options such as -m are for the command line.")
        if override.startswith("hparams_search="):
            raise FaceattrError(f"{override}: searches run from the command line: faceattr {command} -m {override}")
    try:
        with own_hydra_state(), released():
            return _run(
                command, [*add_config_from_checkpoint(command, quote_arguments(overrides)), "hydra.mode=RUN"], function
            )
    except FaceattrError:
        raise
    except Exception as error:
        message = error_message(error, command, overrides)
        if message is None:
            raise
        raise FaceattrError(message) from error
    except SystemExit as stop:
        if isinstance(stop.code, str):  # a Hydra callback's error: its other exceptions would be swallowed
            raise FaceattrError(stop.code.removeprefix("Error: ")) from None
        raise KeyboardInterrupt from stop  # Lightning exits when it is interrupted


def _run(command: str, arguments: list[str], function: Callable[[DictConfig], Result]) -> Result:
    failures: list[Exception] = []

    def task(cfg: DictConfig) -> Result | None:
        try:
            with log_to(Path(HydraConfig.get().runtime.output_dir) / f"{command}.log"):
                return function(cfg)
        except Exception as error:  # Hydra would print it
            remove_empty_run()
            failures.append(error)
            return None

    register_schemas()
    hydra_version.setbase("1.3")
    hydra = Hydra.create_main_hydra2(command, create_config_search_path(str(config_folder())))
    returned = hydra.run(command, task, arguments, with_log_configuration=False).return_value
    if failures:
        raise failures[0]
    return returned


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Log what faceattr says into `file` too, and to stderr where the program has set up no logging."""
    logger = logging.getLogger("faceattr")
    level, in_file = logger.level, LogFile(str(file), delay=True)
    in_file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    handlers: list[logging.Handler] = [in_file]
    if not logger.hasHandlers():
        handlers.append(logging.StreamHandler())
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
