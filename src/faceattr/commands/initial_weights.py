"""The weights that a new run starts from: published or random ones, or a file's."""

import logging
from dataclasses import dataclass

from omegaconf import DictConfig

from faceattr.commands.build_from_config import plain
from faceattr.models.pretrained import WeightsReport, load_weights, resolve_scaling
from faceattr.models.staged_network import Network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Where a run's weights came from, and which stages have pretrained ones; a warning about their scaling; and where they
    are random against the config's wish, why."""

    source: str
    stages: tuple[str, ...]
    warning: str | None = None
    random: str | None = None


def initial_weights(cfg: DictConfig, network: Network) -> Weights:
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
