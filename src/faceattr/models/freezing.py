"""Finetune policies: which stages of a network are trained in which epoch, and how the others are frozen.

A policy is a pure function of the epoch. It has no state, so a resumed run trains the same stages as an uninterrupted one.
Lightning's `BaseFinetuning` is not used: on resume it freezes unfrozen stages again (Lightning issue 21901).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from faceattr.errors import FaceattrError
from faceattr.models.staged_network import Network


@dataclass(frozen=True)
class Policy:
    """`steps`: pairs (epoch, index of the lowest trainable stage from that epoch on); the epochs increase from 0.

    `pretrained_stages` start from pretrained weights: `pretrained_lr` is a factor of their learning rate.
    """

    steps: tuple[tuple[int, int], ...]
    stage_names: tuple[str, ...]
    lr_decay: float
    pretrained_lr: float = 1.0
    pretrained_stages: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls,
        train_from: Any,
        lr_decay: float,
        stage_names: list[str],
        *,
        pretrained_lr: float = 1.0,
        pretrained_stages: Iterable[str] = (),
    ) -> "Policy":
        """From the keys of the config group `finetune`. `train_from` is a stage, or a list of [epoch, stage]. A stage is a
        name or an index; negative indices count from the end (-1 is the head).

        Raises FaceattrError: an invalid schedule, or an unknown stage (the message lists the model's stages).
        """
        pairs = train_from if isinstance(train_from, list | tuple) else [[0, train_from]]
        if not pairs or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
            raise FaceattrError(f"finetune.train_from={train_from}: give a stage, or a list such as [[0,head],[2,-2]].")
        epochs = [pair[0] for pair in pairs]
        if any(not isinstance(e, int) for e in epochs) or epochs != sorted(set(epochs)) or epochs[0] != 0:
            raise FaceattrError(f"finetune.train_from: the epochs {epochs} must be whole numbers that increase from 0.")
        steps = tuple((epoch, _index(stage, stage_names)) for epoch, stage in pairs)
        return cls(steps, tuple(stage_names), lr_decay, pretrained_lr, frozenset(pretrained_stages))

    def first_trainable_stage(self, epoch: int) -> int:
        """Index of the lowest trainable stage in `epoch`."""
        return [stage for start, stage in self.steps if start <= epoch][-1]

    @property
    def changes(self) -> bool:
        """Whether the trainable stages depend on the epoch."""
        return len(self.steps) > 1

    def first_epoch(self, stage: int) -> int | None:
        """The first epoch that trains a stage; None if none does."""
        return next((epoch for epoch, start in self.steps if start <= stage), None)

    def lr_factor(self, stage: int) -> float:
        """Learning-rate factor of a stage: 1 for the head, multiplied by `lr_decay` for each stage below it, and by
        `pretrained_lr` for a pretrained one."""
        factor = self.lr_decay ** (len(self.stage_names) - 1 - stage)
        return factor * self.pretrained_lr if self._is_pretrained(stage) else factor

    def warmup_factor(self, stage: int, epoch: int, share: float) -> float:
        """How far the learning rate of a pretrained stage has risen when `share` of `epoch` is trained: from 0 to 1 over the
        first epoch that trains it. The layers above are new to the task then, and so are the optimizer's averages; large
        steps would destroy what the stage has learned (Kumar et al. 2022, arXiv 2202.10054). 1 for other stages.
        """
        rises = self._is_pretrained(stage) and self.pretrained_lr < 1
        return share if rises and epoch == self.first_epoch(stage) else 1.0

    def _is_pretrained(self, stage: int) -> bool:
        return self.stage_names[stage] in self.pretrained_stages


def _index(stage: Any, names: list[str]) -> int:
    """The index of a stage given by name or index; a text of digits is an index."""
    if isinstance(stage, str) and re.fullmatch(r"-?[0-9]+", stage):
        stage = int(stage)
    if stage in names:
        return names.index(stage)
    if isinstance(stage, int) and not isinstance(stage, bool) and -len(names) <= stage < len(names):
        return stage % len(names)
    raise FaceattrError(f"finetune.train_from: no stage {stage!r} in this model. Its stages: {', '.join(names)}")


def stage_index(network: Network, name: str) -> int | None:
    """Index of the stage of a parameter or submodule; None for a module with parts in several stages."""
    stage = network.stage_of(name)
    return None if stage is None else network.stage_names.index(stage)


def freeze(network: Network, start: int) -> None:
    """Enables gradients for the stages from index `start` on; disables them and removes existing ones below."""
    for name, parameter in network.named_parameters():
        trainable = (stage_index(network, name) or 0) >= start
        parameter.requires_grad_(trainable)
        if not trainable:
            parameter.grad = None


def eval_frozen(network: Network, start: int) -> None:
    """Sets the stages below index `start` to eval mode: fixed batch-norm statistics, no dropout. Others keep their mode."""
    for name, module in network.named_modules():
        index = stage_index(network, name) if name else None
        if index is not None and index < start:
            module.training = False


def parameter_groups(network: Network, policy: Policy, lr: float) -> list[dict[str, Any]]:
    """One optimizer group for each stage that has parameters; each parameter is in exactly one group.

    The groups are the same in every epoch: frozen parameters are included, but have no gradient, so they do not change.
    """
    groups: list[dict[str, Any]] = [
        {"name": name, "lr": lr * policy.lr_factor(index), "params": []}
        for index, name in enumerate(network.stage_names)
    ]
    for name, parameter in network.named_parameters():
        index = stage_index(network, name)
        assert index is not None, f"{name} is in no stage"
        groups[index]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def stage_table(network: Network, policy: Policy, lr: float) -> pd.DataFrame:
    """Stages with their number of parameters, when they are trained, and the learning rate: logged at the start of a run."""
    counts = dict.fromkeys(network.stage_names, 0)
    for name, parameter in network.named_parameters():
        counts[str(network.stage_of(name))] += parameter.numel()
    rows = []
    for index, (name, count) in enumerate(counts.items()):
        first_epoch = policy.first_epoch(index)
        rows.append(
            {
                "stage": name,
                "parameters": f"{count:,}",
                "trained": "no" if first_epoch is None else f"from epoch {first_epoch}" if first_epoch else "yes",
                "lr": "–" if first_epoch is None else f"{lr * policy.lr_factor(index):.2g}",
            }
        )
    return pd.DataFrame(rows)


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Number of parameters, `total` and `trainable`. Batch-norm statistics are buffers, which do not count."""
    parameters = list(module.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }
