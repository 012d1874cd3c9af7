"""Checks of a composed config: types, choices, bounds and unknown keys, each refused in one line."""

import copy
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from faceattr.config.key_annotation import Key, declared_keys
from faceattr.config.schema import (
    OPEN_GROUPS,
    SHARED,
    Augment,
    EvaluateOptions,
    Faces,
    Finetune,
    Head,
    Report,
    TrainConfig,
    Trainer,
)
from faceattr.config.validate_keys import validate, validate_group
from faceattr.errors import FaceattrError

GROUPS = {
    **{group: SHARED[group] for group in OPEN_GROUPS if group in SHARED},
    "": TrainConfig,
    "model.head": Head,
    "faces": Faces,
    "finetune": Finetune,
    "augment": Augment,
    "trainer": Trainer,
    "evaluate": EvaluateOptions,
    "report": Report,
}
KEYS: dict[str, Key] = {
    f"{group}.{name}".lstrip("."): parameter.key
    for group, schema in GROUPS.items()
    for name, parameter in declared_keys(schema).items()
}
WITH_CHOICES = sorted(name for name, key in KEYS.items() if key.choices)


def overridden(base: DictConfig, override: str) -> DictConfig:
    """What `key=value` on a command line gives, without composing anew."""
    key, _, value = override.partition("=")
    cfg = copy.deepcopy(base)
    OmegaConf.update(cfg, key, yaml.safe_load(value), force_add=True)
    return cfg


def test_every_key_of_the_schema_has_a_meaning():
    lacking = [name for name, key in KEYS.items() if not key.meaning and name not in (*GROUPS, *OPEN_GROUPS)]
    assert lacking == []
    assert all(key.meaning[-1] in ".…" for key in KEYS.values() if key.meaning)


@pytest.mark.parametrize("key", [*WITH_CHOICES, "model.padding", "data.attribute"])
def test_validate_lists_the_choices_of_a_key(base, key):
    with pytest.raises(FaceattrError) as caught:
        validate(overridden(base, f"{key}=nonsense"))
    message = str(caught.value)
    assert message.startswith(f"{key}=nonsense: choose one of ")
    assert all(choice in message for choice in KEYS.get(key, Key()).choices)


@pytest.mark.parametrize("key", WITH_CHOICES)
def test_validate_spells_a_choice_as_the_schema_does(base, key):
    for choice in KEYS[key].choices:
        assert OmegaConf.select(validate(overridden(base, f"{key}={choice.upper()}")), key) == choice


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=4294967296",
        "data.seed=-1",
        "data.batch_size=0",
        "data.batch_size=1000000000",
        "data.workers=-1",
        "data.max_images=0",
        "data.fractions={train: 1.5}",
        "data.per_class={train: -1}",
        "data.attribute_weights={Young: 0}",
        "data.n=0",
        "data.image_size=100000",
        "data.sample_seed=-1",
        "model.image_size=[0,64]",
        "model.image_size=[20000,20000]",
        "model.blocks=[[100000]]",
        "model.blocks=[[0]]",
        "model.head.hidden=[0]",
        "model.head.pool_size=0",
        "model.head.dropout=1.5",
        "model.head.dropout=[-0.1]",
        "model.head.input_dropout=1",
        "model.bn_momentum=-5",
        "model.bn_eps=0",
        "model.max_parameters=0",
        "finetune.lr_decay=-1",
        "finetune.views=0",
        "augment.rotation=-10",
        "augment.zoom=5",
        "augment.brightness=-1",
        "augment.randaugment_magnitude=31",
        "optim.lr=0",
        "optim.lr=-1e-3",
        "optim.weight_decay=-1",
        "optim.warmup_epochs=-1",
        "trainer.devices=-2",
        "trainer.max_epochs=0",
        "trainer.patience=0",
        "trainer.gradient_clip=-1",
        "trainer.limit_batches=0",
        "evaluate.precision=0",
        "evaluate.recall=1.1",
    ],
)
def test_validate_keeps_every_number_within_its_bounds(base, override):
    with pytest.raises(FaceattrError) as caught:
        validate(overridden(base, override))
    assert str(caught.value).startswith(f"{override.partition('=')[0]}=") and ": must be " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["[0.5]", "[0.5,a]", "[[1,2],1]", "[0.5,0]", "[[0,0,0],[1,1,-1]]", "5", "inception"])
def test_validate_refuses_a_scaling_that_is_none(base, value):
    with pytest.raises(FaceattrError, match=r"^model.scaling=.*(give \[mean, std\]|above 0|choose one of)"):
        validate(overridden(base, f"model.scaling={value}"))


def test_validate_takes_a_scaling_as_lists(base):
    cfg = validate(overridden(base, "model.scaling=[[0.1,0.2,0.3],0.5]"))
    assert cfg.model.scaling == [[0.1, 0.2, 0.3], 0.5]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("key", ["augment.shift", "optim.lr", "optim.weight_decay", "trainer.gradient_clip", "optim.x"])
def test_validate_refuses_numbers_that_are_not_finite(base, key, value):
    cfg = copy.deepcopy(base)
    OmegaConf.update(cfg, key, float(value), force_add=True)
    with pytest.raises(FaceattrError, match=rf"^{key}[=:] ?{'no such' if key == 'optim.x' else value}"):
        validate(cfg)


@pytest.mark.parametrize(
    "override",
    [
        "seed=4294967295",
        "seed=0",
        "data.seed=0",
        "data.workers=0",
        "trainer.devices=auto",
        "trainer.devices=[0,1]",
        "trainer.devices=-1",
        "trainer.gradient_clip=0",
        "model.head.dropout=0",
        "trainer.limit_batches=null",
    ],
)
def test_validate_accepts_the_bounds_themselves(base, override):
    key, _, value = override.partition("=")
    assert OmegaConf.select(validate(overridden(base, override)), key) == yaml.safe_load(value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.batch_size=many", "data.batch_size"),  # a key that all sources share
        ("data.n=many", "data.n"),  # the source's own, by its annotation
        ("model.image_size=64", "model.image_size"),
        ("model.image_size=[64]", "model.image_size"),
        ("model.blocks=[32]", "model.blocks"),
        ("model.head.hidden=8", "model.head.hidden"),
        ("model.head=avg", "model.head"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.weight_decay=[1]", "optim.weight_decay"),
    ],
)
def test_validate_names_the_key_of_a_wrong_type(base, override, key):
    with pytest.raises(FaceattrError) as caught:
        validate(overridden(base, override))
    assert str(caught.value).startswith(key) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "key", "near"),
    [
        ("data.bach_size=3", "data.bach_size", "data.batch_size"),
        ("data.sample_sed=3", "data.sample_sed", "data.sample_seed"),
        ("model.block=3", "model.block", "model.blocks"),
        ("model.head.hiden=3", "model.head.hiden", "model.head.hidden"),
        ("augment.rotate=3", "augment.rotate", "augment.rotation"),
        ("optim.momentun=0.9", "optim.momentun", None),
        ("sed=3", "sed", "seed"),
    ],
)
def test_validate_suggests_the_nearest_key(base, override, key, near):
    with pytest.raises(FaceattrError) as caught:
        validate(overridden(base, override))
    assert str(caught.value).startswith(f"{key}: no such key.")
    assert near is None or f"Did you mean {near}?" in str(caught.value)


def test_validate_makes_paths_absolute_and_resolves_interpolations(composed):
    cfg = validate(composed("data.root=here", "model.weights='~/w.pth'", "optim.lr=1e-4", "seed=7"))
    assert cfg.data.root == str(Path.cwd() / "here") and cfg.model.weights == str(Path.home() / "w.pth")
    assert cfg.optim.lr == 1e-4 and cfg.data.seed == 7


def test_validate_names_a_required_key(composed):
    with pytest.raises(FaceattrError, match=r"^Required and not given: data\.root\. Give it as data\.root=…"):
        validate(composed("data=csv", "data.root=???"))


def test_validate_refuses_an_incomplete_published_figure(composed):
    with pytest.raises(FaceattrError, match=r"published: .*metrc.* must have metric, split, value, n and source"):
        validate(composed("published=[{metrc: accuracy, split: val, value: 0.5, n: 10, source: x}]"))


def test_validate_refuses_corrected_quirks_without_a_study(composed):
    with pytest.raises(FaceattrError, match=r"^quirks=corrected: nothing here was published"):
        validate(composed("quirks=corrected"))


def test_validate_reads_a_dictionary_that_came_as_text(base):
    """Hydra's grammar has no keys in quotes."""
    typed = OmegaConf.merge(base, {"data": {"fractions": "{train: 0.8, val: 0.1, test: 0.1}"}})
    assert validate(typed).data.fractions == {"train": 0.8, "val": 0.1, "test": 0.1}


def test_validate_group_leaves_a_type_that_omegaconf_does_not_know_to_its_function():
    logger = {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "log_model": "all"}  # Literal[True, False, "all"]
    assert validate_group(logger, "logger") == logger
