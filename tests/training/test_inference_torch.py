"""Probabilities of many images: memory that stays flat."""

import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = """
import sys
from pathlib import Path

import torch

from faceattr.commands.build_from_config import create_classifier, trainer_settings
from faceattr.config.conf_folder import compose_conf
from faceattr.config.validate_keys import validate
from faceattr.data.batches import Batch
from faceattr.training.inference_torch import probabilities
from faceattr.models.task import Task


def anonymous() -> float:
    # MB of memory that is no file's
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1e3


class Batches(torch.utils.data.IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for first in range(0, 32 * self.count, 32):
            rows = torch.arange(first, first + 32)
            yield Batch(torch.zeros(32, 3, 32, 32, dtype=torch.uint8), torch.zeros(32).long(), rows)


given = ["name=x", "model=cnn", "model.blocks=[[4]]", "model.image_size=[32,32]", "trainer=cpu"]
cfg = validate(compose_conf("train", given))
task = Task.from_config(["no", "yes"], ordinal=False, loss="auto")
model = create_classifier(cfg, task)
settings = trainer_settings(cfg)
for count in (10, 500):
    before = anonymous()
    scores, rows = probabilities(model, torch.utils.data.DataLoader(Batches(count), batch_size=None), settings)
    assert len(scores) == 32 * count and rows.tolist() == list(range(32 * count))
print(anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path):
    """Of 16,000 images, 49 MB, no more than their scores and rows is kept: a quarter of a megabyte."""
    (tmp_path / "growth.py").write_text(GROWTH)
    grown = subprocess.run([sys.executable, "growth.py"], cwd=tmp_path, capture_output=True, text=True)
    assert grown.returncode == 0, grown.stderr
    assert float(grown.stdout.splitlines()[-1]) < 20
