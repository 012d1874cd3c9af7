"""Which operators take the time: torch.profiler over 20 steps of a network in a bare loop, on random bf16 images in memory.

python benchmarks/operator_profile.py [override …]        (those of train.py)
"""

import sys

import torch
from bare_loop import compose_config
from torch.profiler import ProfilerActivity, profile

from faceattr.commands.build_from_config import create_network
from faceattr.models.task import Task
from faceattr.training.trainer import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    cfg = compose_config([*sys.argv[1:], "trainer=cpu"])
    network = create_network(cfg, Task.from_config(["no", "yes"], ordinal=False, loss="auto"))
    network.to(memory_format=torch.channels_last)
    images = torch.randn(cfg.data.batch_size, 3, *cfg.model.image_size, dtype=torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(images).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(10):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(20):
            step()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))
