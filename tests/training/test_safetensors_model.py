"""The weights of an export."""

import torch

from faceattr.training import checkpoint_format
from faceattr.training.exported_folder import WEIGHTS


def test_write_weights_holds_the_networks_tensors(exported):
    from safetensors.torch import load_file

    ckpt, out = exported
    state = checkpoint_format.load(ckpt)[0].network.state_dict()
    stored = load_file(out / WEIGHTS)
    assert set(stored) == set(state) and all(torch.equal(stored[name], state[name]) for name in state)
