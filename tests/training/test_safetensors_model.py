"""The weights of an export: in timm's names only where timm builds the same network from them."""

import pytest
import torch
from safetensors.torch import load_file

from faceattr.data.decode import InputSpec
from faceattr.models.freezing import Policy
from faceattr.models.staged_network import Network, build_network
from faceattr.models.task import Task
from faceattr.models.timm_backbone import from_timm
from faceattr.training import checkpoint_format
from faceattr.training.exported_folder import WEIGHTS
from faceattr.training.lightning_module import Classifier
from faceattr.training.safetensors_model import write_weights

TASK = Task.from_config(["woman", "man"], ordinal=False, loss="auto")


def test_write_weights_holds_the_networks_tensors(exported):
    ckpt, out = exported
    state = checkpoint_format.load(ckpt)[0].network.state_dict()
    stored = load_file(out / WEIGHTS)
    assert set(stored) == set(state) and all(torch.equal(stored[name], state[name]) for name in state)


def classifier(network: Network) -> Classifier:
    policy = Policy.parse(0, 1.0, network.stage_names)
    return Classifier(network, TASK, InputSpec(32, 32, "bilinear", "imagenet"), policy).eval()


@pytest.mark.parametrize("changed", [{}, {"bn_eps": 0.5}], ids=["as in timm", "another epsilon"])
def test_write_weights_is_in_timms_names_where_timm_gives_the_same_logits(tmp_path, changed):
    target = {"_target_": "faceattr.models.timm_backbone.from_timm", "name": "test_resnet"}
    network = build_network(target | {"image_size": [32, 32], "head": {}} | changed, TASK.num_logits)
    keys = write_weights(classifier(network), tmp_path / WEIGHTS, half=False)
    assert keys.get("architecture") == (None if changed else "test_resnet")
    assert any(name.startswith("features.") for name in load_file(tmp_path / WEIGHTS)) is bool(changed)


def test_write_weights_is_in_our_names_where_timm_has_other_tensors(tmp_path):
    """As of a distilled DeiT, which has two output layers in timm."""
    network = from_timm(name="test_vit", image_size=[32, 32], num_logits=TASK.num_logits, head={})
    network.published = "timm/test_resnet"
    assert write_weights(classifier(network), tmp_path / WEIGHTS, half=False) == {}
    assert set(load_file(tmp_path / WEIGHTS)) == set(network.state_dict())
