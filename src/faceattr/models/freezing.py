"""Finetune policies: which stages are trained, as a pure function of the epoch, and what freezing the others means.

A policy keeps no state, so a run that is resumed in the middle of a schedule is exactly where it was. Lightning's
`BaseFinetuning` is not used: on resume it freezes again what it had unfrozen.
"""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from faceattr.errors import FaceattrError
from faceattr.models.network import Network


@dataclass(frozen=True)
class Policy:
    """`steps`: (epoch, index of the lowest trainable stage from that epoch on), epochs rising from 0."""

    steps: tuple[tuple[int, int], ...]
    stage_names: tuple[str, ...]
    lr_decay: float

    @classmethod
    def parse(cls, train_from: Any, lr_decay: float, stage_names: list[str]) -> "Policy":
        """From the keys of `finetune`: a stage (name, or index where -1 is the head), or a list of [epoch, stage].

        Raises a FaceattrError that lists the model's stages.
        """
        pairs = train_from if isinstance(train_from, list | tuple) else [[0, train_from]]
        if not pairs or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
            raise FaceattrError(f"finetune.train_from={train_from}: give a stage, or a list such as [[0,head],[2,-2]].")
        epochs = [pair[0] for pair in pairs]
        if any(not isinstance(e, int) for e in epochs) or epochs != sorted(set(epochs)) or epochs[0] != 0:
            raise FaceattrError(f"finetune.train_from: the epochs {epochs} must be whole numbers rising from 0.")
        steps = tuple((epoch, _index(stage, stage_names)) for epoch, stage in pairs)
        return cls(steps, tuple(stage_names), lr_decay)

    def first_trainable_stage(self, epoch: int) -> int:
        """Index of the lowest trainable stage in `epoch`."""
        return [index for first, index in self.steps if first <= epoch][-1]

    @property
    def changes(self) -> bool:
        """Whether the trainable set depends on the epoch."""
        return len(self.steps) > 1

    def factor(self, stage: int) -> float:
        """Learning-rate factor of a stage: 1 for the head, `lr_decay` more for each stage below."""
        return self.lr_decay ** (len(self.stage_names) - 1 - stage)


def _index(stage: Any, names: list[str]) -> int:
    if isinstance(stage, str) and re.fullmatch(r"-?[0-9]+", stage):
        stage = int(stage)
    if stage in names:
        return names.index(stage)
    if isinstance(stage, int) and not isinstance(stage, bool) and -len(names) <= stage < len(names):
        return stage % len(names)
    raise FaceattrError(f"finetune.train_from: no stage {stage!r} in this model. Its stages: {', '.join(names)}")


def stage_index(network: Network, name: str) -> int | None:
    """Position of the stage that holds a parameter or submodule; None for a container of several stages."""
    stage = network.stage_of(name)
    return None if stage is None else network.stage_names.index(stage)


def freeze(network: Network, start: int) -> None:
    """Gradients for the stages from `start` on and none below."""
    for name, parameter in network.named_parameters():
        trainable = (stage_index(network, name) or 0) >= start
        parameter.requires_grad_(trainable)
        if not trainable:
            parameter.grad = None


def eval_frozen(network: Network, start: int) -> None:
    """Evaluation mode below `start`, whatever the rest is in: batch-norm statistics still, dropout off."""
    for name, module in network.named_modules():
        index = stage_index(network, name) if name else None
        if index is not None and index < start:
            module.training = False


def parameter_groups(network: Network, policy: Policy, lr: float) -> list[dict[str, Any]]:
    """One optimizer group per stage with parameters, the same for every epoch (frozen ones have no gradient and stay).

    Every parameter is in exactly one group.
    """
    groups: list[dict[str, Any]] = [
        {"name": name, "lr": lr * policy.factor(index), "params": []} for index, name in enumerate(network.stage_names)
    ]
    for name, parameter in network.named_parameters():
        index = stage_index(network, name)
        assert index is not None, f"{name} is in no stage"
        groups[index]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def stage_table(network: Network, policy: Policy, lr: float, epoch: int = 0) -> pd.DataFrame:
    """Stage, parameters, trainable or not, learning rate: what a run logs at its start."""
    counts = dict.fromkeys(network.stage_names, 0)
    for name, parameter in network.named_parameters():
        counts[str(network.stage_of(name))] += parameter.numel()
    since = {index: next((e for e, i in policy.steps if i <= index), None) for index in range(len(counts))}
    return pd.DataFrame(
        {
            "stage": list(counts),
            "parameters": [f"{count:,}" for count in counts.values()],
            "trained": [
                "no" if since[i] is None else "yes" if since[i] == 0 else f"from epoch {since[i]}"
                for i in range(len(counts))
            ],
            "lr": [f"{lr * policy.factor(i):.2g}" if since[i] is not None else "–" for i in range(len(counts))],
        }
    )


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Total and trainable parameters; batch-norm statistics are buffers and do not count."""
    parameters = list(module.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }
