"""DDP runs on the CPU, whose processes are started as torchrun does it: they compute what one process does."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from programs import FIGURES, quick, ranks

EQUAL = (
    *(
        "data.image_size=32",
        "model.image_size=[32,32]",
        "model.blocks=[[4],[4]]",
        "model.norm=null",
        "model.head.input_dropout=0",
    ),
    *("augment=none", "optim=sgd", "optim.lr=0.05", "trainer.precision=32", "trainer.patience=null", FIGURES),
)
"""Without dropout, augmentation and batch norm. SGD: AdamW makes full steps of gradients that are only rounding."""


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    """Trained stages change twice; pixels and the frozen stages' output are made once for both processes."""
    fractions = "data.fractions={train:0.72,val:0.15,test:0.13}"  # of 89: 64, 15 and 10
    schedule = "finetune.train_from=[[0,head],[1,block2],[2,block1]]"
    given = (*EQUAL, "data.n=89", fractions, schedule, "trainer.max_epochs=3")
    alone = ("trainer=cpu", "data.batch_size=16", "hydra.run.dir=one")
    assert quick("train", *given, *alone, cwd=tmp_path, FACEATTR_CACHE=str(tmp_path / "cache")).code == 0
    both = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=8", "hydra.run.dir=two")
    first, second = ranks(2, "train", *given, *both, cwd=tmp_path, FACEATTR_CACHE=str(tmp_path / "cache_of_two"))
    assert first.code == 0 and second.code == 0, f"{first} {second}"
    one, two = (pd.read_csv(tmp_path / name / "metrics.csv").filter(regex="^(train|val|lr)") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, check_exact=False, rtol=1e-5)
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)
    made = [file.name.partition("-")[0] for file in (tmp_path / "cache_of_two" / "kept").glob("*.npy")]
    assert sorted(made) == ["hashes", "pixels", "prefix", "prefix"], (
        "one for both processes, and for each trained stage"
    )


@pytest.mark.slow
def test_validation_counts_every_image_once_for_any_number_of_processes(tmp_path):
    """To the last digit, in every process; also where some get fewer images than others, or none."""
    for row in range(8 + 301):
        noise = np.random.default_rng(row).integers(0, 256, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{row:03}.png")
    numbers = (299, 301, 2, 1)
    (one,) = ranks(1, "tests/validated", tmp_path, *numbers, cwd=tmp_path)
    assert one.code == 0 and len(one.out.splitlines()) == len(numbers), f"{one}"
    for world in (2, 3):
        for rank in ranks(world, "tests/validated", tmp_path, *numbers, cwd=tmp_path):
            assert (rank.code, rank.out) == (0, one.out), rank.err
