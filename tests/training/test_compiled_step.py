"""trainer.compile: what it makes of a step, on the CPU; CUDA itself is in test_cuda.py."""

import pytest
import torch
from training.test_lightning_module import batch, build

from faceattr.errors import FaceattrError
from faceattr.training.compiled_step import compile_steps


def parts(size: int = 6) -> tuple:
    made = batch(size)
    return made.inputs, made.targets, None, 0


def test_compile_steps_false_is_the_step_itself():
    model = build()
    compile_steps(model, "false", 6)
    assert (model.run_step, model.run_logits, model.compiled) == (model.step, model.logits, "false")


def test_compile_steps_graph_needs_cuda():
    model = build()
    compile_steps(model, "graph", 6)
    with pytest.raises(FaceattrError, match=r"trainer\.compile=graph needs a CUDA device"):
        model.run_step(*parts())


def test_compile_steps_auto_computes_on_a_cpu_as_it_is_written():
    model = build("model.head.input_dropout=0.0", "augment=none").train()
    compile_steps(model, "auto", 6)
    assert torch.equal(model.run_step(*parts())[0], model.step(*parts())[0])
    assert torch.equal(model.eval().run_logits(batch().inputs, 0), model.logits(batch().inputs, 0))
    assert model.compiled == "false"


def test_torch_compile_leaves_a_smaller_last_batch_uncompiled(monkeypatch):
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
    compile_steps(model, "true", 6)
    for size in (6, 4):
        assert torch.equal(model.run_step(*parts(size))[0], model.step(*parts(size))[0])
    assert sizes == [6]


def test_step_gives_the_mean_loss_and_what_the_epoch_adds_up():
    model = build("augment=none").eval()
    loss, sums = model.step(*parts())
    assert loss.requires_grad and not sums.requires_grad
    losses = model.task.losses(model(batch().inputs), batch().targets)
    assert float(loss) == pytest.approx(float(losses.mean()))
    assert sums.tolist() == pytest.approx([float(losses.sum()), float(sums[1]), 6])
