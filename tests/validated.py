"""Prints the validation metrics of an untrained model, for each number of images that is given. `programs.ranks` runs this in
each process of a DDP run.

    validated.py FOLDER NUMBER…
"""

import json
import os
import sys

import pandas as pd
import torch
from composing import compose_config

from faceattr.commands.build_from_config import create_classifier, create_data, create_task, trainer_settings
from faceattr.data import table
from faceattr.training.trainer import build_trainer

root, *numbers = sys.argv[1:]
SMALL = (
    "model=cnn",
    "model.image_size=[16,12]",
    "model.blocks=[[4],[6]]",
    "model.norm=null",
    "augment=none",
    "data.batch_size=1",
)
LR = 1e-30  # one epoch of training changes nothing, without batch norm
cfg = compose_config(
    *(*SMALL, "data=folders", f"data.root={root}", "data.pack=ram", "data.workers=0", "optim=sgd", f"optim.lr={LR}"),
    *("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={os.environ['WORLD_SIZE']}", "trainer.precision=32"),
)
for number in map(int, numbers):
    rows = pd.DataFrame(
        {"path": [f"{row:03}.png" for row in range(8 + number)], "split": ["train"] * 8 + ["val"] * number}
    )
    rows["label"] = ["woman" if row % 3 else "man" for row in range(len(rows))]
    rows.attrs.update(classes=["woman", "man"], ordinal=False)
    prepared = table.prepare(rows, root)
    torch.manual_seed(0)
    model = create_classifier(cfg, create_task(cfg, prepared))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = build_trainer(trainer_settings(cfg), max_epochs=1, **quiet)
    trainer.fit(model, datamodule=create_data(cfg, prepared))
    print(
        json.dumps({name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")})
    )
