"""The bare training loop: the upper bound for a run's speed. Our network, finetune policy, optimizer, precision and memory layout,
on random tensors that are already in memory (of the device), in the precision of training. Nothing is read, augmented, scaled,
measured or saved. If a run would train on cached features of its frozen stages, so does the loop: on tensors of their shape.

    python benchmarks/bare_loop.py CLASSES IMAGES EPOCHS [override …]        (overrides of train.py, trainer=gpu included)
"""

import sys
from collections.abc import Callable, Sequence

import torch
from epoch_timer import EpochTimer
from omegaconf import DictConfig

from faceattr.commands.build_from_config import create_classifier, reason_without_feature_cache, trainer_settings
from faceattr.config.conf_folder import compose_conf
from faceattr.config.validate_keys import validate
from faceattr.models.task import Task
from faceattr.training.lightning_module import Classifier
from faceattr.training.trainer import keep_freed_memory, resolve_precision

AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}
WARM_UP_STEPS = 3


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config that `train.py` would get."""
    return validate(compose_conf("train", ["name=benchmark", *overrides]))


def first_layer(cfg: DictConfig, model: Classifier) -> int:
    """How many layers a run would skip because their output is cached; 0: it trains on pixels."""
    if reason_without_feature_cache(cfg, model):
        return 0
    return model.network.num_constant_layers(model.policy.first_trainable_stage(0))


def random_inputs(cfg: DictConfig, model: Classifier, skipped: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Four batches of the shape that layer number `skipped` reads."""
    device = next(model.parameters()).device
    with torch.no_grad():
        images = torch.randn(cfg.data.batch_size, 3, *cfg.model.image_size, device=device, dtype=dtype)
        features = model.network(images.contiguous(memory_format=torch.channels_last), 0, skipped)
    layout = torch.channels_last if features.dim() == 4 else torch.contiguous_format
    return [torch.randn_like(features, dtype=dtype).contiguous(memory_format=layout) for _ in range(4)]


def make_step(cfg: DictConfig, model: Classifier, skipped: int, classes: int, precision: str) -> Callable[[int], None]:
    """A function that does optimizer step number i."""
    device, dtype = next(model.parameters()).device, AUTOCAST.get(precision, torch.float32)
    optimizer = model.configure_optimizers()
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16")
    autocast = torch.autocast(device.type, dtype=dtype, enabled=precision != "32")
    with autocast:
        inputs = random_inputs(cfg, model, skipped, dtype)
    targets = torch.randint(classes, (cfg.data.batch_size,), device=device)

    def step(number: int) -> None:
        with autocast:
            loss = model.task.losses(model.network(inputs[number % len(inputs)], skipped), targets).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def run(timer: EpochTimer, cfg: DictConfig, classes: int, images: int, epochs: int) -> None:
    on_cuda = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    if not on_cuda:
        keep_freed_memory()
    torch.manual_seed(0)
    task = Task.from_config([f"class{i}" for i in range(classes)], ordinal=False, loss=cfg.loss)
    model = create_classifier(cfg, task).to("cuda" if on_cuda else "cpu").train()
    precision, skipped, batch = resolve_precision(trainer_settings(cfg)), first_layer(cfg, model), cfg.data.batch_size
    step = make_step(cfg, model, skipped, classes, precision)
    for number in range(WARM_UP_STEPS):
        step(number)
    for _ in range(epochs):
        if on_cuda:
            torch.cuda.synchronize()
        timer.start_epoch()
        for number in range(images // batch):
            step(number)
        if on_cuda:
            torch.cuda.synchronize()
        timer.step(images // batch * batch)
        timer.end_epoch()
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    timer.print_json(cached_layers=skipped, precision=precision, parameters=parameters)


if __name__ == "__main__":
    run(EpochTimer(), compose_config(sys.argv[4:]), *map(int, sys.argv[1:4]))
