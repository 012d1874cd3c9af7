"""conf/: every option composes and is valid, groups and options are those that people type, a user's own are checked."""

import itertools
import subprocess
import sys

import pytest
from programs import PATIENCE, ROOT, TINY, inside

from faceattr.config.allowed_targets import target_function
from faceattr.config.key_annotation import REQUIRED, declared_keys
from faceattr.config.schema import SHARED
from faceattr.config.validate_keys import GIVEN_BY_CODE, validate

CONF = ROOT / "conf"
OPTIONS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/[!_]*.yaml"))


NEEDED = {"data=filenames": "data.pattern='(?P<label>[01])_'"}
"""Keys of an option that have no default."""


def several_at_once() -> list[list[str]]:
    """Every option once, those of different groups together: composing takes most of the time. Presets are composed alone."""
    groups: dict[str, list[str]] = {}
    for option in OPTIONS:
        group, name = option.split("/")
        groups.setdefault(group, []).append(f"{group}={name}")
    alone = [[choice] for group in ("experiment", "hparams_search") for choice in groups.pop(group)]
    return [*([choice for choice in row if choice] for row in itertools.zip_longest(*groups.values())), *alone]


@pytest.mark.parametrize("choices", several_at_once(), ids=" ".join)
def test_every_option_composes_and_is_valid(composed, choices):
    if "hparams_search=optuna" in choices:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    cfg = validate(composed(*choices, *(NEEDED[choice] for choice in choices if choice in NEEDED)))
    for group in (choice.partition("=")[0] for choice in choices):
        assert group not in SHARED or set(declared_keys(SHARED[group])) <= set(cfg[group])


@pytest.mark.parametrize("choices", [row for row in several_at_once() if len(row) > 1], ids=" ".join)
def test_every_option_lists_the_keys_of_its_function(composed, choices):
    """Hydra overrides only what is there, so a key that a YAML lacks could not be given as `key=value`."""
    cfg = composed(*choices, *(NEEDED[choice] for choice in choices if choice in NEEDED))
    for group in ("data", "model"):
        own = declared_keys(target_function(cfg[group], group))
        optional = {key for key, declared in own.items() if declared.default is not REQUIRED}
        lacking = {key for key in own if key not in GIVEN_BY_CODE.get(group, ())} - set(cfg[group])
        assert lacking <= optional & {"norm_over", "pretrained_weights", "init"}


def test_groups_and_options_are_those_of_the_design():
    assert {name for name in OPTIONS if not name.startswith("experiment/")} == {
        *[f"data/{name}" for name in ("sample", "csv", "folders", "filenames", "celeba", "imfdb")],
        *[f"model/{name}" for name in ("cnn", "cnn7", "cnn_age", "cnn_age_bn", "vgg16", "vgg16_half", "timm")],
        *[f"model/{name}" for name in ("alexnet", "alexnet_imagenet")],
        *[f"faces/{name}" for name in ("none", "square", "align")],
        *[f"finetune/{name}" for name in ("frozen", "last_block", "full", "gradual")],
        *[f"augment/{name}" for name in ("none", "light", "keras_20", "keras_40", "keras_shear_zoom", "randaugment")],
        *[f"optim/{name}" for name in ("adam", "adamw", "rmsprop", "sgd")],
        *[f"trainer/{name}" for name in ("auto", "cpu", "gpu", "ddp", "debug")],
        *[f"logger/{name}" for name in ("csv", "tensorboard", "wandb", "mlflow")],
        "hparams_search/optuna",
    }


@pytest.mark.parametrize(
    ("group", "text", "parts"),
    [
        ("data", "defaults: [sample, _self_]\nbach_size: 3\n", ["data.bach_size: no such key", "data.batch_size"]),
        ("data", "defaults: [sample, _self_]\nbatch_size: many\n", ["data.batch_size=many: must be a whole number."]),
        ("model", "defaults: [cnn, _self_]\nhead: {hiden: [3]}\n", ["hiden", "hidden"]),
        ("model", "defaults: [cnn, _self_]\nimage_size: 64\n", ["model.image_size"]),
        ("finetune", "train_form: head\n", ["train_form", "train_from"]),
        ("augment", "rotation: far\n", ["rotation", "far"]),
        ("optim", "defaults: [adamw, _self_]\nlr: fast\n", ["optim.lr", "fast"]),
        ("trainer", "max_epoch: 3\n", ["max_epoch", "max_epochs"]),
        ("trainer", "defaults: [cpu\n", ["mine.yaml"]),
    ],
)
def test_a_yaml_of_the_users_own_is_checked_too(tmp_path, group, text, parts):
    (tmp_path / "own" / group).mkdir(parents=True)
    (tmp_path / "own" / group / "mine.yaml").write_text(text)
    tiny = [override for override in TINY if group not in override]
    ended = inside("train", "--config-dir", "own", *tiny, f"{group}=mine", "hydra.run.dir=run", cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: "), ended.err
    assert ended.err.count("\n") <= 3 and "Traceback" not in ended.err, ended.err
    assert all(part in ended.err for part in parts), ended.err
    assert not (tmp_path / "run").exists()


def test_composing_does_not_import_torch(tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--cfg", "job"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    assert ended.returncode == 0 and "max_epochs" in ended.stdout
    assert "hydra" in imported and not {"torch", "pytorch_lightning", "pandas"} & imported
    assert not list(tmp_path.iterdir())
