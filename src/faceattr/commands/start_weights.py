"""The weights that a run starts from: published or random ones, a file's, or those of the run that it resumes."""

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from faceattr.commands.build_from_config import plain
from faceattr.config.schema import Faces
from faceattr.errors import FaceattrError
from faceattr.files import write_atomically
from faceattr.models.pretrained import WeightsReport, load_weights, resolve_scaling
from faceattr.models.staged_network import Network
from faceattr.models.task import Task
from faceattr.training import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Where a run's weights came from, and which stages have pretrained ones; a warning about their scaling; and where they
    are random against the config's wish, why."""

    source: str
    stages: tuple[str, ...]
    warning: str | None = None
    random: str | None = None


def first_weights(cfg: DictConfig, network: Network) -> Weights:
    """Loads them, and sets `model.scaling=auto` to what they expect."""
    pretrained, scaling = cfg.model.pretrained, plain(cfg.model)["scaling"]
    report = load_weights(network, pretrained=pretrained, weights=cfg.model.weights, scaling=scaling)
    if scaling == "auto":
        cfg.model.scaling = resolve_scaling("auto", network, report.expects)
        log.info("model.scaling=auto: %s", cfg.model.scaling)
    random = report.describe() if report.random and pretrained == "auto" else None
    return Weights(report.source, pretrained_stages(network, report), report.warning, random)


def pretrained_stages(network: Network, report: WeightsReport) -> tuple[str, ...]:
    """The stages below the head whose weights were all loaded."""
    unloaded = {network.stage_of(name) for name in report.missing}
    return () if report.random else tuple(name for name in network.stage_names[:-1] if name not in unloaded)


def resumed_weights(cfg: DictConfig, stored: dict[str, Any], task: Task, fingerprint: str, folder: Path) -> Weights:
    """Checks that this is the run of the checkpoint, and gets its checkpoints."""
    check_resume(cfg, stored, task, fingerprint)
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


def check_best(ckpt: str) -> None:
    """Raises FaceattrError where the best checkpoint is not beside `ckpt`, or damaged: the run would be trained, and its
    evaluation would fail."""
    if not checkpoint.has_best_epoch(ckpt):
        return
    try:
        checkpoint.read(Path(ckpt).parent / "best.ckpt")
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
