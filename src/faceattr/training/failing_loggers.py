"""A logger (TensorBoard, W&B, MLflow) that fails while a run trains, as when its server is gone: the run goes on without it."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pytorch_lightning.loggers import Logger

log = logging.getLogger(__name__)

CALLED_BY_LIGHTNING = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")
KEY = "logger_errors"
"""Of run.json: the class of each logger that failed, with its error."""


def go_on_without(loggers: Iterable[Logger], fields: dict[str, Any]) -> None:
    """From now on an error of one of these loggers is a warning, and it gets nothing more: one that waits for a server waits long.

    fields: those of run.json, which get the error.
    """
    for logger in loggers:
        for name in CALLED_BY_LIGHTNING:
            setattr(logger, name, partial(attempt, logger, fields, getattr(logger, name)))


def attempt(logger: Logger, fields: dict[str, Any], call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `call` returns; None where it fails, or where `logger` has failed before."""
    name = type(logger).__name__
    if name in fields.get(KEY, {}):
        return None
    try:
        return call(*arguments, **named)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        fields.setdefault(KEY, {})[name] = reason
        log.warning("%s has failed, and gets nothing more of this run: %s", name, reason)
        log.debug("%s", name, exc_info=True)
        return None
