"""The reference that is made from the schema: docs/config.md, and what --help prints."""

import pytest
from programs import ROOT

from faceattr.config.conf_folder import config_folder, groups
from faceattr.config.help_and_docs import help_text, reference
from faceattr.config.key_annotation import declared_keys
from faceattr.config.schema import Augment, Trainer


def test_docs_config_is_what_the_schema_says():
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert text == reference(), "make it anew: python -m faceattr.config.help_and_docs"


def test_reference_lists_own_keys_of_sources_models_and_optimizers():
    lines = reference().splitlines()
    (padding,) = [line for line in lines if line.startswith("| `model.padding`")]
    assert padding == "| `model.padding` | str | `same` | same, valid | Padding of the convs. |"
    for key in (
        "data.label_column",
        "model.name",
        "model.head.hidden",
        "optim.weight_decay",
        "trainer.monitor",
        "split",
    ):
        assert any(line.startswith(f"| `{key}` |") for line in lines)
    assert not any(line.startswith(("| `model.num_logits`", "| `optim.params`")) for line in lines)


def test_groups_have_a_summary_of_every_option():
    assert config_folder() == ROOT / "conf"
    lacking = [
        f"{group}={option}" for group, options in groups().items() for option, text in options.items() if not text
    ]
    assert lacking == []
    assert "_base" not in {option for options in groups().values() for option in options}


def test_help_text_shows_groups_and_every_key_with_its_value_and_meaning():
    text = help_text("faceattr train", "train", ["optim.lr=0.5", "augment=none"])
    assert "usage: faceattr train" in text and "cnn cnn7" in text and "  optim.lr=0.5\n" in text
    for group, schema in (("trainer", Trainer), ("augment", Augment)):
        for name, parameter in declared_keys(schema).items():
            assert f"  {group}.{name}=" in text
            assert parameter.key.meaning.split()[0] in text
    assert "_target_" not in text and "from_checkpoint" not in text


def test_help_text_shows_the_options_of_a_folder_of_the_users_own(tmp_path):
    folder = tmp_path / "my größe, [1]"
    (folder / "optim").mkdir(parents=True)
    (folder / "optim" / "mine.yaml").write_text("# Mine\ndefaults: [sgd, _self_]\nlr: 0.3\n")
    text = help_text("faceattr train", "train", ["optim=mine"], str(folder))
    assert "adam adamw mine rmsprop sgd" in text.replace("  ", " ") and "  optim.lr=0.3\n" in text


@pytest.mark.parametrize("config", ["evaluate", "predict"])
def test_help_text_of_commands_with_a_checkpoint(config):
    from faceattr.commands.config_from_checkpoint import add_config_from_checkpoint

    add_config_from_checkpoint(config, ["--help"])
    text = help_text(f"faceattr {config}", config)
    assert "  ckpt=null\n" in text and "  trainer.precision=auto\n" in text and "model:" not in text
