"""The config: every YAML of every group is sound, what cannot be right is refused by name, and no config runs code."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from programs import ROOT, TINY, quick, tiny_run

from faceattr.config import schema
from faceattr.config.instantiate import instantiate, shared_keys
from faceattr.config.validate import validate
from faceattr.errors import FaceattrError

CONF = ROOT / "conf"
OPTIONS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
OPTIONS = [name for name in OPTIONS if not name.endswith("/_base")]


@pytest.fixture
def composed(tmp_path):
    """A function: command-line overrides → the composed config of train.py, with `data.root` given."""

    def function(*overrides: str) -> DictConfig:
        own = ["hydra.runtime.output_dir=/nowhere", f"data.root={tmp_path}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*own, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        return cfg

    yield function
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_is_valid(composed, option):
    group, name = option.split("/")
    if group == "hparams_search":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    study = ["experiment=s4a"] if group == "quirks" else []  # which it is about
    cfg = validate(composed(f"{group}={name}", *study))
    if group in schema.SHARED:
        assert set(shared_keys(group)) <= set(cfg[group]), "a key that every option shares is not there"


def test_groups_and_options_are_those_of_the_design():
    there = {
        group: {name.split("/")[1] for name in OPTIONS if name.startswith(f"{group}/")}
        for group in {name.split("/")[0] for name in OPTIONS}
    }
    assert {"sample", "csv", "folders", "celeba", "imfdb"} <= there["data"]
    assert {
        "cnn",
        "cnn7",
        "cnn_age",
        "cnn_age_bn",
        "alexnet",
        "alexnet_imagenet",
        "vgg16",
        "vgg16_half",
        "timm",
    } <= there["model"]
    assert {"frozen", "last_block", "full", "gradual"} <= there["finetune"]
    assert {"none", "light", "keras_40", "keras_20", "randaugment"} <= there["augment"]
    assert {"adamw", "adam", "sgd", "rmsprop"} <= there["optim"]
    assert {"auto", "cpu", "gpu", "ddp", "debug"} <= there["trainer"]
    assert {"csv", "tensorboard", "wandb"} <= there["logger"]
    assert "optuna" in there["hparams_search"]


@pytest.mark.parametrize("key", [key for key in schema.CHOICES if key != "split"])
def test_a_value_outside_the_choices_lists_them(composed, key):
    with pytest.raises(FaceattrError) as caught:
        validate(composed(f"{key}=nonsense"))
    message = str(caught.value)
    assert message.startswith(f"{key}=nonsense") and all(choice in message for choice in schema.CHOICES[key])


@pytest.mark.parametrize("key", sorted(set(schema.CHOICES) - {"split"}))
def test_a_choice_is_used_as_it_is_spelled_in_the_docs(composed, key):
    for choice in schema.CHOICES[key]:
        cfg = validate(composed("data.root=there", f"{key}={choice.upper()}"))
        assert OmegaConf.select(cfg, key) == choice


@pytest.mark.parametrize(
    "key", ["data.batch_size", "data.max_images", "trainer.max_epochs", "trainer.patience", "optim.lr"]
)
def test_counts_and_rates_are_positive(composed, key):
    with pytest.raises(FaceattrError, match=rf"^{key}=0.*greater than 0"):
        validate(composed(f"{key}=0"))


@pytest.mark.parametrize("key", ["seed", "data.seed", "data.workers"])
def test_seeds_and_workers_are_not_negative(composed, key):
    with pytest.raises(FaceattrError, match=rf"^{key}=-1.*0 or more"):
        validate(composed(f"{key}=-1"))
    assert OmegaConf.select(validate(composed(f"{key}=0")), key) == 0


@pytest.mark.parametrize(
    ("override", "wrong"),
    [
        ("data.batch_size=many", "data.batch_size"),  # a key that all sources share
        ("data.n=many", "data.n"),  # the source's own, by its annotation
        ("model.image_size=64", "model.image_size"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.weight_decay=[1]", "optim.weight_decay"),
    ],
)
def test_a_wrong_type_names_the_key(composed, override, wrong):
    with pytest.raises(FaceattrError, match=rf"^{wrong}: "):
        validate(composed(override))


@pytest.mark.parametrize(
    ("override", "key", "near"),
    [
        ("+data.bach_size=3", "data.bach_size", "data.batch_size"),
        ("+data.sample_sed=3", "data.sample_sed", "data.sample_seed"),
        ("+model.block=3", "model.block", "model.blocks"),
        ("+optim.momentun=0.9", "optim.momentun", None),
        ("+sed=3", "sed", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(composed, override, key, near):
    with pytest.raises(FaceattrError) as caught:
        validate(composed(override))
    assert str(caught.value).startswith(f"{key}: no such key.")
    assert near is None or f"Did you mean {near}?" in str(caught.value)


def test_paths_become_absolute_and_numbers_stay(composed):
    cfg = validate(composed("data.root=here", "model.weights='~/w.pth'", "optim.lr=1e-4", "seed=7"))
    assert cfg.data.root == str(Path.cwd() / "here") and cfg.model.weights == str(Path.home() / "w.pth")
    assert cfg.optim.lr == 1e-4 and cfg.data.seed == 7, "data.seed follows seed"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.check_call",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "faceattr.commands.train.shutil.rmtree",  # reached through a module of ours
        "faceattr.models.network.torch.load",
        "faceattr.data.sources.csv.io.open",
        "torch.optim.lr_scheduler.math.floor",
        "faceattr.data.sources.sample.shutil.rmtree",
        "pytorch_lightning.loggers.csv_logs.os.makedirs",
        "torch.optimism.Evil",
        "",
    ],
)
@pytest.mark.parametrize("group", ["data", "model", "optim", "logger"])
def test_only_targets_of_the_allowed_packages_are_looked_up(composed, group, target):
    cfg = composed()
    cfg[group] = {**cfg[group], "_target_": target}
    with pytest.raises(FaceattrError, match=rf"{group}\._target_=") as caught:
        instantiate(cfg[group], group)
    assert "FACEATTR_ALLOW" in str(caught.value) or "cannot be imported" in str(caught.value)


def test_what_was_published_must_be_complete(composed):
    with pytest.raises(FaceattrError, match=r"published: .*metrc.* must have metric, split, value, n and source"):
        validate(composed("published=[{metrc: accuracy, split: val, value: 0.5, n: 10, source: x}]"))


def test_a_nested_target_is_refused(composed):
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.1, "extra": [{"_target_": "torch.optim.Adam"}]})
    with pytest.raises(FaceattrError, match=r"optim\.extra\.0\._target_"):
        instantiate(node, "optim", params=[torch.nn.Parameter(torch.zeros(1))])


def test_the_environment_can_allow_a_package(composed, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def load(root: str, speed: int = 1):\n    return root, speed\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = OmegaConf.create({"_target_": "mine.load", "root": "here", "speed": 3})
    with pytest.raises(FaceattrError, match="FACEATTR_ALLOW"):
        instantiate(node, "data")
    monkeypatch.setenv("FACEATTR_ALLOW", "other, mine")
    assert instantiate(node, "data") == ("here", 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("config") / "run", "trainer.max_epochs=1")


ATTACKS = [
    ("evaluate", "data", {"_target_": "os.system", "command": "touch MARK"}),
    ("evaluate", "data", {"_target_": "faceattr.data.sources.sample.shutil.copyfile", "src": "CKPT", "dst": "MARK"}),
    ("evaluate", "model", {"_target_": "pathlib.Path.touch", "self": "MARK"}),
    ("predict", "model", {"_target_": "subprocess.check_call", "args": ["touch", "MARK"]}),
    ("predict", "model", {"extra": {"_target_": "os.system", "command": "touch MARK"}}),
    ("train", "optim", {"_target_": "shutil.copyfile", "src": "CKPT", "dst": "MARK"}),
    ("train", "logger", {"_target_": "os.mkdir", "path": "MARK"}),
]


@pytest.mark.parametrize(("program", "group", "change"), ATTACKS)
def test_a_strangers_checkpoint_runs_no_code(trained, tmp_path, program, group, change):
    ckpt, mark = tmp_path / "stranger" / "checkpoints" / "last.ckpt", tmp_path / "mark"
    ckpt.parent.mkdir(parents=True)
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    text = {"MARK": str(mark), "CKPT": str(ckpt)}
    filled = {
        key: [text.get(v, v) for v in value] if isinstance(value, list) else value for key, value in change.items()
    }
    filled = {
        key: value.replace("MARK", str(mark)).replace("CKPT", str(ckpt)) if isinstance(value, str) else value
        for key, value in filled.items()
    }
    content["faceattr"]["config"][group] |= filled
    torch.save(content, ckpt)
    photo = next(Path(os.environ["FACEATTR_CACHE"]).rglob("*.jpg"))
    more = {"predict": [f"input={photo}"], "train": ["trainer.max_epochs=2"], "evaluate": []}[program]
    ended = quick(program, f"ckpt={ckpt}", *more, cwd=tmp_path)
    assert ended.code == 1 and not mark.exists()
    assert f"{group}." in ended.err and ended.err.count("\n") <= 3 and "Traceback" not in ended.err, ended.err


@pytest.mark.parametrize(
    ("group", "text", "said"),
    [
        ("data", "defaults: [sample, _self_]\nbach_size: 3\n", ["data.bach_size: no such key", "data.batch_size"]),
        ("data", "defaults: [sample, _self_]\nbatch_size: many\n", ["data.batch_size", "many", "Integer"]),
        ("model", "defaults: [cnn, _self_]\nhead: {hiden: [3]}\n", ["hiden", "hidden"]),
        ("model", "defaults: [cnn, _self_]\nimage_size: 64\n", ["model.image_size"]),
        ("finetune", "train_form: head\n", ["train_form", "train_from"]),
        ("augment", "rotation: far\n", ["rotation", "far"]),
        ("optim", "defaults: [adamw, _self_]\nlr: fast\n", ["optim.lr", "fast"]),
        ("trainer", "max_epoch: 3\n", ["max_epoch", "max_epochs"]),
        ("trainer", "defaults: [cpu\n", ["mine.yaml"]),
    ],
)
def test_a_yaml_of_the_users_own_is_checked_too(tmp_path, group, text, said):
    (tmp_path / "own" / group).mkdir(parents=True)
    (tmp_path / "own" / group / "mine.yaml").write_text(text)
    tiny = [override for override in TINY if group not in override]
    ended = quick("train", "--config-dir", "own", *tiny, f"{group}=mine", "hydra.run.dir=run", cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: "), ended.err
    assert ended.err.count("\n") <= 3 and "Traceback" not in ended.err, ended.err
    assert all(part in ended.err for part in said), ended.err
    assert not (tmp_path / "run").exists()


def test_composing_is_quick_and_does_not_import_torch(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--cfg", "job"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    assert ended.returncode == 0 and "max_epochs" in ended.stdout
    assert "hydra" in imported and not {"torch", "pytorch_lightning", "pandas"} & imported
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5, "seconds of CPU"
    assert not list(tmp_path.iterdir())
