"""Training on batches gathered on the device, with the CPU as that device: the run of the ordinary loader, digit by digit."""

import pytest
import torch
from small_run import Run

from faceattr.data.device_batches import DeviceBatches

ON_CPU = ("trainer=cpu", "trainer.precision=32", "data.n=60")


@pytest.mark.parametrize(
    "overrides", [("augment=light",), ("finetune=last_block", "augment=none")], ids=["pixels", "features"]
)
def test_training_on_device_batches_is_the_same_run(overrides):
    made, expected = Run(*ON_CPU, *overrides, device=torch.device("cpu")), Run(*ON_CPU, *overrides)
    assert isinstance(made.data.train_dataloader(), DeviceBatches)
    assert made.losses.steps == expected.losses.steps and len(made.losses.steps) > 4
    assert all(torch.equal(made.state[name], tensor) for name, tensor in expected.state.items())
