"""Finetune policies: the lowest trainable stage in each epoch; frozen stages do not change, bit for bit."""

import itertools
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from composing import MODELS, compose_config
from omegaconf import DictConfig, OmegaConf
from torch import nn

from faceattr.commands.build_from_config import create_classifier, create_network, create_policy
from faceattr.data.batches import Batch
from faceattr.errors import FaceattrError
from faceattr.models import freezing
from faceattr.models.freezing import Policy
from faceattr.models.staged_network import Network
from faceattr.models.task import Task
from faceattr.training.lightning_module import Classifier

CONF = Path(__file__).resolve().parents[2] / "conf"
POLICIES = sorted(path.stem for path in (CONF / "finetune").glob("*.yaml"))
NAMES = ["block1", "block2", "block3", "head"]
TARGET = Task.from_config(["woman", "man"], ordinal=False, loss="auto")
TINY_VGG = ["model=vgg16", "model.blocks=[[4,4],[6],[6],[8],[8,8]]", "model.image_size=[32,32]"]


def run_config(*overrides: str) -> DictConfig:
    return compose_config("data=folders", "data.root=.", "trainer=cpu", *overrides)


def network_of(*overrides: str, device: str = "cpu") -> Network:
    with torch.device(device):
        return create_network(run_config(*overrides), TARGET)


@pytest.mark.parametrize(
    ("train_from", "start"),
    [
        ("head", 3),
        ("block2", 1),
        (0, 0),
        (2, 2),
        (-1, 3),
        (-4, 0),
        ("1", 1),
        ("-2", 2),
        ([[0, "block3"]], 2),
        ([(0, -1)], 3),
    ],
)
def test_parse_accepts_stage_names_and_indices(train_from, start):
    policy = Policy.parse(train_from, 1.0, NAMES)
    assert [policy.first_trainable_stage(epoch) for epoch in (0, 1, 100)] == [start] * 3
    assert not policy.changes


@pytest.mark.parametrize(
    "stage", ["block4", 4, -5, "7", "", "--1", "²", None, True, 1.0, [[0, "neck"]], [[0, ["head"]]]]
)
def test_parse_lists_the_stages_for_an_unknown_one(stage):
    with pytest.raises(FaceattrError, match=r"no stage .* in this model. Its stages: block1, block2, block3, head"):
        Policy.parse(stage, 1.0, NAMES)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "give a stage, or a list such as"),
        (["head", "block1"], "give a stage, or a list such as"),
        ([[0, "head", 1]], "give a stage, or a list such as"),
        ([[1, "head"]], r"epochs \[1\] must be whole numbers that increase from 0"),
        ([[0, "head"], [2, 0], [1, 1]], r"epochs \[0, 2, 1\] must be whole numbers that increase from 0"),
        ([[0, "head"], [0, 0]], "increase from 0"),
        ([[0, "head"], [1.5, 0]], "whole numbers"),
    ],
)
def test_parse_refuses_an_invalid_schedule(steps, message):
    with pytest.raises(FaceattrError, match=message):
        Policy.parse(steps, 1.0, NAMES)


def test_first_trainable_stage_depends_on_the_epoch_only():
    policy = Policy.parse([[0, "head"], [2, -2], [5, "block1"]], 1.0, NAMES)
    starts = [3, 3, 2, 2, 2, 0, 0, 0]
    assert policy.changes
    assert [policy.first_trainable_stage(epoch) for epoch in range(8)] == starts
    assert [policy.first_trainable_stage(epoch) for epoch in reversed(range(8))] == starts[::-1]


def test_lr_factor_is_multiplied_by_lr_decay_per_stage_below_the_head():
    assert [Policy.parse(0, 0.5, NAMES).lr_factor(stage) for stage in range(4)] == [0.125, 0.25, 0.5, 1.0]
    assert [Policy.parse(0, 1.0, NAMES).lr_factor(stage) for stage in range(4)] == [1.0] * 4
    groups = freezing.parameter_groups(tiny(), Policy.parse(0, 0.5, ["block1", "block2", "head"]), lr=0.1)
    assert [(group["name"], group["lr"]) for group in groups] == [("block1", 0.025), ("block2", 0.05), ("head", 0.1)]


def test_lr_factor_of_a_pretrained_stage():
    policy = Policy.parse(0, 0.5, NAMES, pretrained_lr=0.1, pretrained_stages=["block1", "block2"])
    assert [policy.lr_factor(stage) for stage in range(4)] == pytest.approx([0.0125, 0.025, 0.5, 1.0])


def test_warmup_factor_rises_over_the_first_epoch_of_a_pretrained_stage():
    pretrained = {"pretrained_lr": 0.1, "pretrained_stages": ["block2", "block3"]}
    policy = Policy.parse([[0, "block3"], [2, 0]], 1.0, NAMES, **pretrained)
    rising = {
        (stage, epoch) for stage in range(4) for epoch in range(4) if policy.warmup_factor(stage, epoch, 0.3) == 0.3
    }
    assert rising == {(2, 0), (1, 2)}
    assert policy.warmup_factor(2, 0, 1.0) == policy.warmup_factor(0, 2, 0.3) == 1.0
    same = Policy.parse(0, 1.0, NAMES, pretrained_lr=1.0, pretrained_stages=NAMES[:3])
    assert same.warmup_factor(0, 0, 0.3) == 1.0


@pytest.mark.parametrize("model", MODELS)
def test_parameter_groups_hold_each_parameter_once_for_every_model_and_policy(model):
    network = network_of(f"model={model}", device="meta")
    names = network.stage_names
    lowest = {"full": 0, "last_block": len(names) - 2, "frozen": len(names) - 1, "gradual": len(names) - 1}
    for option in POLICIES:
        keys = run_config(f"finetune={option}").finetune
        policy = Policy.parse(OmegaConf.to_container(keys).get("train_from"), keys.lr_decay, names)
        assert policy.first_trainable_stage(0) == lowest.get(option, policy.first_trainable_stage(0))
        freezing.freeze(network, policy.first_trainable_stage(0))
        trained = {network.stage_of(name) for name, p in network.named_parameters() if p.requires_grad}
        assert trained == set(names[policy.first_trainable_stage(0) :])
        groups = freezing.parameter_groups(network, policy, lr=1.0)
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(grouped) == len(set(grouped))
        assert set(grouped) == {id(parameter) for parameter in network.parameters()}
        stages = {id(parameter): network.stage_of(name) for name, parameter in network.named_parameters()}
        assert all(stages[id(parameter)] == group["name"] for group in groups for parameter in group["params"])


def tiny(dropout: float = 0.0) -> Network:
    """Two blocks with batch norm and dropout, and a head with batch norm."""
    features, stages = nn.Sequential(), {}
    for block, (channels, width) in enumerate([(3, 6), (6, 8)], 1):
        layers = [nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout)]
        for layer in layers:
            stages[str(len(features))] = f"block{block}"
            features.append(layer)
    return Network(features, stages, [8, 8], num_logits=1, head={"hidden": [5], "batch_norm": True})


def test_eval_frozen_affects_only_frozen_stages():
    network = tiny(dropout=0.5)
    network.train()
    freezing.eval_frozen(network, 1)
    images, block1 = torch.randn(16, 3, 8, 8), network.features[:4]
    assert torch.equal(block1(images), block1(images))
    assert not torch.equal(network.features(images), network.features(images))
    assert network.features[1].num_batches_tracked == 0
    assert network.features[5].num_batches_tracked > 0
    assert network.head.training


def batches(size: tuple[int, int], count: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 6, *size, 3), generator=generator).to(torch.uint8).permute(0, 1, 4, 2, 3)
    targets = torch.tensor([0, 1, 1, 0, 1, 0])
    return [Batch(images[i], targets, torch.arange(6) + 6 * i) for i in range(count)]


def fit(model: Classifier, epochs: int = 1) -> None:
    """Two training steps and a validation per epoch. Lightning switches train and eval mode around a validation."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, num_sanity_val_steps=1, enable_model_summary=False, **quiet
    )
    data = torch.utils.data.DataLoader(batches(model.network.image_size), batch_size=None)
    trainer.fit(model, data, data)
    assert trainer.global_step == 2 * epochs


@pytest.mark.parametrize("policy", ["frozen", "last_block", "full"])
@pytest.mark.parametrize(
    "model",
    [
        ["model=cnn_age_bn", "model.image_size=[94,94]", "model.blocks=[[4],[6],[8]]", "model.head.hidden=[8]"],
        TINY_VGG,
        ["model=timm", "model.name=test_resnet", "model.image_size=[32,32]"],
    ],
    ids=["cnn_age_bn", "vgg16", "timm"],
)
def test_training_changes_only_trainable_stages(model, policy):
    """With AdamW: neither its weight decay nor its momentum may change frozen parameters."""
    torch.manual_seed(0)
    cfg = run_config(*model, f"finetune={policy}", "optim=adamw", "optim.weight_decay=0.5", "optim.lr=0.01")
    trained = create_classifier(cfg, TARGET)
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    fit(trained)
    names = trained.network.stage_names
    lowest = {"frozen": len(names) - 1, "last_block": len(names) - 2, "full": 0}[policy]
    for name, tensor in trained.network.state_dict().items():
        frozen = names.index(trained.network.stage_of(name)) < lowest
        assert torch.equal(tensor, before[name]) == frozen, f"{name} {'changed' if frozen else 'did not change'}"
    for name, parameter in trained.network.named_parameters():
        assert parameter.requires_grad == (names.index(trained.network.stage_of(name)) >= lowest)


def test_training_unfreezes_stages_at_the_scheduled_epochs():
    cfg = run_config(*TINY_VGG, "finetune.train_from=[[0,head],[1,block5],[2,block1]]", "optim=sgd", "optim.lr=0.1")
    trained = create_classifier(cfg, TARGET)
    weights = {"block5": "features.14.weight", "block4": "features.11.weight", "head": "head.out.weight"}
    named = dict(trained.network.named_parameters())
    assert all(trained.network.stage_of(name) == stage for stage, name in weights.items()), trained.network
    history: list[dict[str, torch.Tensor]] = []

    class RecordWeights(pl.Callback):
        def on_train_epoch_start(self, *_: object) -> None:
            history.append({stage: named[name].detach().clone() for stage, name in weights.items()})

        def on_train_end(self, *_: object) -> None:
            self.on_train_epoch_start()

    data = torch.utils.data.DataLoader(batches((32, 32)), batch_size=None)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=3, callbacks=[RecordWeights()], enable_model_summary=False, **quiet).fit(trained, data, data)
    moved = [
        {stage for stage in weights if not torch.equal(before[stage], after[stage])}
        for before, after in itertools.pairwise(history)
    ]
    assert moved == [{"head"}, {"head", "block5"}, {"head", "block5", "block4"}]


def test_freeze_removes_gradients():
    network = tiny()
    network(torch.randn(4, 3, 8, 8)).sum().backward()
    freezing.freeze(network, 2)
    assert all((p.grad is None) == (network.stage_of(name) != "head") for name, p in network.named_parameters())


def test_stage_table_shows_parameters_epochs_and_learning_rates():
    network = tiny()
    policy = Policy.parse([[0, "head"], [3, "block2"]], 0.1, network.stage_names)
    assert freezing.stage_table(network, policy, lr=0.01).to_dict("list") == {
        "stage": ["block1", "block2", "head"],
        "parameters": ["180", "456", "61"],
        "trained": ["no", "from epoch 3", "yes"],
        "lr": ["–", "0.001", "0.01"],
    }


def test_create_policy_refuses_a_schedule_that_the_strategy_does_not_follow():
    network = tiny()
    schedule = "finetune.train_from=[[0,head],[1,block1]]"
    with pytest.raises(FaceattrError, match=r"trainer.strategy=fsdp does not follow.\n.*trainer.strategy=ddp"):
        create_policy(run_config("trainer=ddp", "trainer.strategy=fsdp", schedule), network)
    assert create_policy(run_config("trainer=ddp", schedule), network).changes
    constant = run_config("trainer=ddp", "trainer.strategy=fsdp", "finetune=last_block")
    assert create_policy(constant, network).first_trainable_stage(0) == 1


def test_count_parameters_separates_total_and_trainable():
    network = tiny()
    freezing.freeze(network, 2)
    assert freezing.count_parameters(network) == {"total": 697, "trainable": 61}
