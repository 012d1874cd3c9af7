"""Building objects from a group: which keys reach the function, and what never runs."""

import pytest
import torch
from omegaconf import OmegaConf

from faceattr.config.instantiate import instantiate
from faceattr.errors import FaceattrError

WEIGHT = [torch.nn.Parameter(torch.zeros(1))]


def test_instantiate_gives_an_optimizer_its_own_keys_and_not_the_shared_ones():
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "schedule": "cosine"})
    made = instantiate(node, "optim", params=WEIGHT)
    assert isinstance(made, torch.optim.SGD) and made.defaults["lr"] == 0.1 and made.defaults["momentum"] == 0.9


def test_instantiate_leaves_out_what_drop_names():
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9})
    assert instantiate(node, "optim", drop=("momentum",), params=WEIGHT).defaults["momentum"] == 0


def test_instantiate_checks_keys_of_a_node_that_nobody_validated():
    node = {"_target_": "faceattr.models.conv_stacks.cnn", "image_size": [16, 16], "blocks": [[100_000]], "head": {}}
    with pytest.raises(FaceattrError, match=r"^model\.blocks="):
        instantiate(OmegaConf.create(node), "model", num_logits=1)


def test_instantiate_calls_nothing_inside_a_node(tmp_path, monkeypatch):
    (tmp_path / "nested.py").write_text("def load(root: str, more: dict):\n    return more\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FACEATTR_ALLOW", "nested")
    nested = {"_target_": "torch.optim.Adam", "lr": 0.1}
    node = OmegaConf.create({"_target_": "nested.load", "root": "here", "more": {"inside": nested}})
    assert instantiate(node, "data") == {"inside": nested}


def test_instantiate_names_the_group_where_the_function_refuses():
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True})
    with pytest.raises(FaceattrError, match=r"^optim \(torch.optim.SGD\): Nesterov"):
        instantiate(node, "optim", params=WEIGHT)
