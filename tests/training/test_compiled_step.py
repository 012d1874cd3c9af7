"""trainer.compile: what it makes of a step, on the CPU; CUDA itself is in test_cuda.py."""

import pytest
import torch
from training.test_lightning_module import batch, build

from faceattr.errors import FaceattrError
from faceattr.training.compiled_step import compiled_step


def parts(size: int = 6) -> tuple:
    made = batch(size)
    return made.inputs, made.targets, None, 0


def test_compiled_step_false_is_the_step_itself():
    model = build()
    assert compiled_step(model, "false", 6) == model.step


def test_compiled_step_graph_needs_cuda():
    with pytest.raises(FaceattrError, match=r"trainer\.compile=graph needs a CUDA device"):
        compiled_step(build(), "graph", 6)(*parts())


def test_compiled_step_leaves_a_smaller_last_batch_uncompiled(monkeypatch):
    """torch.compile would compile again for each new size."""
    sizes: list[int] = []

    def compiler(function, **keys):
        assert keys["dynamic"] is False

        def compiled(inputs, *others):
            sizes.append(len(inputs))
            return function(inputs, *others)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    model = build("model.head.input_dropout=0.0", "augment=none").train()
    step = compiled_step(model, "true", 6)
    for size in (6, 4):
        assert torch.equal(step(*parts(size))[0], model.step(*parts(size))[0])
    assert sizes == [6]


def test_step_gives_the_mean_loss_and_what_the_epoch_adds_up():
    model = build("augment=none").eval()
    loss, sums = model.step(*parts())
    assert loss.requires_grad and not sums.requires_grad
    losses = model.task.losses(model(batch().inputs), batch().targets)
    assert float(loss) == pytest.approx(float(losses.mean()))
    assert sums.tolist() == pytest.approx([float(losses.sum()), float(sums[1]), 6])
