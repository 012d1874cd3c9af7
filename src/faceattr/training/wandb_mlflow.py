"""Sends the config to W&B and MLflow, and the results and files to MLflow. Metrics of each epoch are Lightning's work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger

from faceattr.training.failing_loggers import attempt


def begin(logger: Logger, config: Mapping[str, Any]) -> None:
    """Opens its files, or its run on a server, and sends the composed config where it is shown beside the metrics of many runs."""
    _ = logger.experiment
    if isinstance(logger, MLFlowLogger | WandbLogger):
        logger.log_hyperparams(dict(config))


def log_results(
    loggers: Sequence[Logger], metrics: Mapping[str, Mapping[str, Any]], files: Sequence[Path], fields: dict[str, Any]
) -> None:
    """To MLflow: the metrics of the evaluated checkpoint by split, as `test_accuracy`, and those of `files` that exist.

    fields: those of run.json, which get an error.
    """
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            numbers = {
                f"{split}_{name}": float(value)
                for split, split_metrics in metrics.items()
                for name, value in split_metrics.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
            attempt(logger, fields, logger.log_metrics, numbers)
            for file in files:
                if file.exists():
                    attempt(logger, fields, logger.experiment.log_artifact, logger.run_id, str(file))
