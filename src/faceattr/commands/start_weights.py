"""The weights that a run starts from: published or random ones, a file's, or those of the run that it resumes."""

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from faceattr.commands.settings import plain
from faceattr.config.schema import Faces
from faceattr.errors import FaceattrError
from faceattr.models.network import Network
from faceattr.models.pretrained import load_weights
from faceattr.models.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Where a run's weights came from; a warning about their scaling; and where they are random against the config's wish, why."""

    source: str
    warning: str | None = None
    random: str | None = None


def first_weights(cfg: DictConfig, network: Network) -> Weights:
    pretrained = cfg.model.pretrained
    report = load_weights(network, pretrained=pretrained, weights=cfg.model.weights, scaling=cfg.model.scaling)
    random = report.describe() if report.random and pretrained == "auto" else None
    return Weights(report.source, report.warning, random)


def resumed_weights(cfg: DictConfig, stored: dict[str, Any], task: Task, fingerprint: str, folder: Path) -> Weights:
    """Checks that this is the run of the checkpoint, and gets its best checkpoint."""
    check_resume(cfg, stored, task, fingerprint)
    copy_best(cfg.ckpt, folder)
    log.info("Resuming %s", cfg.ckpt)
    source = str(stored["weights"])
    if not source.startswith("random") or cfg.model.pretrained != "auto":
        return Weights(source)
    log.warning("Weights: %s", source)
    return Weights(source, random=f"Weights: {source}")


def check_resume(cfg: DictConfig, stored: dict[str, Any], task: Task, fingerprint: str) -> None:
    """Raises FaceattrError where the run differs from the one whose checkpoint has the description `stored`."""
    now, before = plain(cfg), stored["config"]
    finetune = before["finetune"] | {"cache": now["finetune"]["cache"]}  # changes no figure
    before = before | {"finetune": finetune}
    changed = [key for key in ("model", "finetune", "augment", "optim", "loss", "seed") if before[key] != now[key]]
    faces = [{**asdict(Faces()), **config.get("faces", {}), "weights": None} for config in (before, now)]
    changed += ["faces"] if faces[0] != faces[1] else []
    changed += ["trainer.monitor"] if before["trainer"].get("monitor") != now["trainer"]["monitor"] else []
    changed += ["classes"] if stored["classes"] != list(task.classes) else []
    changed += ["fingerprint"] if stored["fingerprint"] != fingerprint else []
    on_leak = {config["data"].get("on_leak", "warn") for config in (before, now)}
    changed += ["data.on_leak"] if "drop" in on_leak and len(on_leak) > 1 else []
    if changed:
        raise FaceattrError(
            f"ckpt={cfg.ckpt}: this is not the same run: {', '.join(changed)} differ from when it was begun.\n"
            "To start a new run from its weights: model.weights=… instead of ckpt=…"
        )


def copy_best(ckpt: str, folder: Path) -> None:
    """Copy the best checkpoint beside `ckpt` into the run's `folder`, where that is another one: none may be better."""
    before, here = Path(ckpt).parent / "best.ckpt", folder / "checkpoints" / "best.ckpt"
    if before.exists() and before != here:
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(before, here)
