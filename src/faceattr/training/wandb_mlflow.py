"""Sends the config to W&B and MLflow, and the results and files to MLflow. Metrics of each epoch are Lightning's work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger


def log_config(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    """The composed config, to those that show it beside the metrics of many runs."""
    for logger in loggers:
        if isinstance(logger, MLFlowLogger | WandbLogger):
            logger.log_hyperparams(dict(config))


def log_results(loggers: Sequence[Logger], metrics: Mapping[str, Mapping[str, Any]], files: Sequence[Path]) -> None:
    """To MLflow: the metrics of the evaluated checkpoint by split, as `test_accuracy`, and those of `files` that exist."""
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            numbers = {
                f"{split}_{name}": float(value)
                for split, split_metrics in metrics.items()
                for name, value in split_metrics.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
            logger.log_metrics(numbers)
            for file in files:
                if file.exists():
                    logger.experiment.log_artifact(logger.run_id, str(file))
