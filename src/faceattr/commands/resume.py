"""Resuming a run (`ckpt=…/last.ckpt`): whether it is the same run, its weights and checkpoints; or that it is finished already."""

import json
import logging
import shutil
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from faceattr.commands.build_from_config import plain
from faceattr.commands.evaluate_after_training import TrainedRun
from faceattr.commands.images_to_evaluate import SAME_IMAGES
from faceattr.commands.initial_weights import Weights
from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.quote_for_hydra import argument
from faceattr.config.schema import Faces
from faceattr.errors import FaceattrError
from faceattr.files import read_json, write_atomically
from faceattr.message_text import counted, listed, shortened
from faceattr.models.task import Task
from faceattr.training import checkpoint_format
from faceattr.training.run_json import RunRecord, read_metrics

log = logging.getLogger(__name__)


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
    return _without(config, {"ckpt"}) | {"data": _without(config["data"], {"root"})}


def _without(node: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in keys}


def resumed_weights(cfg: DictConfig, stored: dict[str, Any], task: Task, fingerprint: str, folder: Path) -> Weights:
    """Checks that this is the run of the checkpoint, and gets its checkpoints."""
    check_resume(cfg, stored, task, fingerprint)
    check_newest(Path(cfg.ckpt), folder)
    if cfg.trainer.checkpoint == "best":
        check_best(cfg.ckpt)
    copy_checkpoints(Path(cfg.ckpt), folder / "checkpoints")
    log.info("Resuming %s", cfg.ckpt)
    source, stages = str(stored["weights"]), tuple(map(str, stored["pretrained_stages"]))
    if not source.startswith("random") or cfg.model.pretrained != "auto":
        return Weights(source, stages)
    log.warning("Weights: %s", source)
    return Weights(source, stages, random=f"Weights: {source}")


def check_resume(cfg: DictConfig, stored: dict[str, Any], task: Task, fingerprint: str) -> None:
    """Raises FaceattrError, with each key that differs, where the run differs from the one whose checkpoint has the description
    `stored`."""
    now, before = plain(cfg), stored["config"]
    finetune = before["finetune"] | {"cache": now["finetune"]["cache"]}  # changes no figure
    before = before | {"finetune": finetune}
    changed = [
        change
        for key in ("model", "finetune", "augment", "optim", "loss", "seed")
        for change in _changes(key, before[key], now[key])
    ]
    changed += _changes(
        "faces", *({**asdict(Faces()), **config.get("faces", {}), "weights": None} for config in (before, now))
    )
    changed += _changes("trainer.monitor", before["trainer"].get("monitor"), now["trainer"]["monitor"])
    changed += _changes("classes", stored["classes"], list(task.classes))
    if stored["fingerprint"] != fingerprint:
        changed += _changes("data", *(_without(config["data"], SAME_IMAGES - {"root"}) for config in (before, now)))
        changed += _changes("fingerprint", stored["fingerprint"], fingerprint)
    on_leak = [config["data"].get("on_leak", "warn") for config in (before, now)]
    changed += _changes("data.on_leak", *on_leak) if "drop" in on_leak else []
    if changed:
        raise FaceattrError(
            f"ckpt={cfg.ckpt}: this is not the same run. Changed since it began: {listed(dict.fromkeys(changed), 5)}.\n"
            "To start a new run from its weights: model.weights=… instead of ckpt=…"
        )


def _changes(key: str, before: Any, now: Any) -> list[str]:
    """Each key at or below `key` with two values, and both of them."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = {name: (before.get(name, "absent"), now.get(name, "absent")) for name in {**before, **now}}
        return [change for name, pair in pairs.items() for change in _changes(f"{key}.{name}", *pair)]
    texts = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in (before, now))
    return [] if before == now else ["{} (was {}, now {})".format(key, *map(shortened, texts))]


def check_newest(ckpt: Path, folder: Path) -> None:
    """Raises FaceattrError where the run in `folder` has a later last.ckpt than `ckpt`: going on would overwrite its epochs."""
    last = folder / "checkpoints" / "last.ckpt"
    elsewhere = ckpt.resolve().parent != last.resolve().parent
    if elsewhere or not last.is_file() or ckpt.samefile(last):
        return
    done, later = checkpoint_format.epochs_done(ckpt), checkpoint_format.epochs_done(last)
    if done < later:
        raise FaceattrError(
            f"ckpt={ckpt} is from after {counted(done, 'epoch')}; last.ckpt beside it has {later}, which would be overwritten.\n"
            f"To go on: {command_to_paste('train', argument('ckpt', last))}\n"
            f"To go on from {ckpt.name}: add hydra.run.dir=NEW_FOLDER"
        )


def check_best(ckpt: str) -> None:
    """Raises FaceattrError where the best checkpoint is not beside `ckpt`, or damaged: the run would be trained, and its
    evaluation would fail."""
    if not checkpoint_format.has_best_epoch(ckpt):
        return
    try:
        checkpoint_format.read(Path(ckpt).parent / "best.ckpt")
    except FaceattrError as error:
        raise FaceattrError(
            f"ckpt={ckpt}: its run had a best epoch, and no later one may be better. {str(error).removeprefix('ckpt=')}\n"
            "Put that best.ckpt there, or evaluate the last epoch: trainer.checkpoint=last"
        ) from error


def copy_checkpoints(ckpt: Path, folder: Path) -> None:
    """Copy the best checkpoint beside `ckpt`, and `ckpt`, into `folder`, where that is another one: no epoch may be better, or
    none be trained."""
    if ckpt.parent.resolve() == folder.resolve():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in ((ckpt.parent / "best.ckpt", "best.ckpt"), (ckpt, "last.ckpt")):
        if file.exists():
            with file.open("rb") as source, write_atomically(folder / name) as target:
                shutil.copyfileobj(source, target)
