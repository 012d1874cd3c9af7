"""From an exception to the one message that a user sees."""

import errno

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from faceattr.commands.error_message import error_message
from faceattr.commands.hydra_app import own_hydra_state
from faceattr.config.conf_folder import compose_conf


def test_error_message_of_ctrl_c():
    assert error_message(KeyboardInterrupt(), "train", []) == "interrupted"


def test_error_message_names_the_folder_where_the_error_names_no_file():
    full = OSError(errno.ENOSPC, "No space left on device")
    with own_hydra_state():
        assert error_message(full, "train", []) == "writing a file: No space left on device"
        for mode, folder in ((RunMode.RUN, "run"), (RunMode.MULTIRUN, "sweep")):
            hydra = {"mode": mode, "run": {"dir": "run"}, "sweep": {"dir": "sweep"}}
            HydraConfig.instance().cfg = OmegaConf.create({"hydra": hydra})
            message = f"writing a file (this command writes into {folder}): No space left on device"
            assert error_message(full, "train", []) == message


@pytest.mark.parametrize("arguments", [["model=[1]"], ["model=3"]])
def test_error_message_of_a_group_whose_option_is_no_name(arguments):
    with pytest.raises(Exception) as raised:  # whatever Hydra raises
        compose_conf("train", arguments)
    message = str(error_message(raised.value, "train", arguments))
    assert message.startswith(f"{arguments[0]}: cannot be read: ") and len(message) < 200


def test_error_message_of_an_unknown_key_in_a_dictionary_names_that_key():
    with pytest.raises(ConfigCompositionException) as raised:
        compose_conf("train", ["model.head={dropout: 0, hiden: [8]}"])
    message = str(error_message(raised.value, "train", ["model.head={dropout: 0, hiden: [8]}"]))
    assert message.startswith("model.head.hiden: no such key. Did you mean model.head.hidden?")


def test_error_message_of_an_unknown_key_in_a_group_of_the_users_own():
    """Its option lies in a folder that only Hydra knows: no key is suggested."""
    unknown = ConfigCompositionException("Could not override 'model.x'.\nTo append to your config use +model.x=3")
    message = str(error_message(unknown, "train", ["model=mine", "model.x=3"]))
    assert message.startswith("model.x: no such key.") and "Did you mean" not in message


def test_error_message_of_a_reference_in_a_yaml():
    with pytest.raises(InterpolationKeyError) as raised:
        OmegaConf.create({"a": "${nowhere}"}).a  # noqa: B018
    assert error_message(raised.value, "train", ["seed=1"]) == "Interpolation key 'nowhere' not found\nfull_key: a"
    message = str(error_message(raised.value, "train", ["seed=1", "name=${nowhere}"]))
    assert message.splitlines()[2].startswith("In name=${nowhere}, ${…} is a reference. As text, in a shell: 'name=")
