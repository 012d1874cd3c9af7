"""The config that a checkpoint stores: plain values in groups, whatever was pickled."""

from typing import Any

import pytest
import torch

from faceattr.config.stored_config import check_stored_config
from faceattr.errors import FaceattrError


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"augment": "keras_40"}, "augment=keras_40, which is no group."),
        ({"logger": [1]}, "logger=[1], which is no group."),
        ({"data": {None: 1}}, "a key that is no name, below data."),
        ({True: 1}, "a key that is no name, below the top."),
        ({"data": {"fractions": {0.5: "train"}}}, "a key that is no name, below data.fractions."),
        ({"optim": {"lr": torch.zeros(1)}}, "a value of type Tensor at optim.lr."),
        ({"data": {"classes": ["a", b"b"]}}, "a value of type bytes at data.classes.1."),
    ],
)
def test_check_stored_config_names_the_key_that_it_refuses(config, problem):
    with pytest.raises(FaceattrError) as refused:
        check_stored_config(config, "ckpt=x.ckpt")
    assert str(refused.value) == f"ckpt=x.ckpt: its config has {problem}"


def test_check_stored_config_takes_plain_values_and_groups_that_were_left_out():
    config: dict[str, Any] = {
        "name": "run",
        "logger": None,
        "seed": 0,
        "data": {0: "male", "classes": ("a", None, True, 0.5)},
    }
    check_stored_config(config, "ckpt=x.ckpt")
