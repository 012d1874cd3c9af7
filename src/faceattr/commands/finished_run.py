"""What a training run returns. Also for a finished run that is resumed: nothing is left to do, so nothing is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from faceattr.commands.build_from_config import plain
from faceattr.files import read_json
from faceattr.training.run_json import RunRecord, read_metrics


@dataclass(frozen=True)
class TrainedRun:
    """`ckpt` is the checkpoint that was evaluated; `metrics` are those of each split, as in <split>_metrics.json.

    `resumed_finished`: the run was finished before, and stays as it was.
    """

    folder: Path
    ckpt: Path
    metrics: dict[str, dict[str, Any]]
    resumed_finished: bool = False


def finished_run(cfg: DictConfig, stored: dict[str, Any], folder: Path) -> TrainedRun | None:
    """The run in `folder` if it is finished, `cfg.ckpt` is its last.ckpt, and `cfg` asks for the same as that run did; else None.

    stored: the description in that checkpoint.
    """
    last = folder / "checkpoints" / "last.ckpt"
    finished = read_json(folder / RunRecord.FILE).get("status") == "finished"
    if not finished or Path(cfg.ckpt) != last or _without_locations(plain(cfg)) != _without_locations(stored["config"]):
        return None
    best = last.with_name(f"{cfg.trainer.checkpoint}.ckpt")
    return TrainedRun(folder, best, read_metrics(folder), resumed_finished=True)


def _without_locations(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the keys that may differ when a run is resumed: `ckpt` and `data.root`."""
    config = {key: value for key, value in config.items() if key != "ckpt"}
    return config | {"data": {key: value for key, value in config["data"].items() if key != "root"}}
