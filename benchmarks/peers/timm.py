"""The timm peer: create_dataset, create_loader, create_optimizer_v2, and the loop of timm's train.py, without AMP.

python -m peers.timm CASE FOLDER EPOCHS        (in benchmarks/)
"""

import sys

import torch
from cases import CASES
from epoch_timer import EpochTimer
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, accuracy

from peers import networks

NEAREST = {  # timm crops and resizes at random where Keras warps: no rotation, shift or shear
    "s3": {"scale": (0.64, 1.0), "ratio": (0.8, 1.25), "hflip": 0.0, "color_jitter": None},
    "s4c": {"scale": (0.64, 1.0), "ratio": (0.8, 1.25), "hflip": 0.5, "color_jitter": None},
}


def main(name: str, folder: str, epochs: str) -> None:
    timer, case, device = EpochTimer(), CASES[name], torch.device("cpu")
    net, criterion = networks.build(name)
    binary = isinstance(criterion, torch.nn.BCEWithLogitsLoss)
    caffe = case.scaling == "caffe"
    shared = {
        "input_size": (3, *case.size),
        "batch_size": case.batch,
        "mean": (0.485, 0.456, 0.406) if caffe else (0.0, 0.0, 0.0),
        "std": (0.229, 0.224, 0.225) if caffe else (1.0, 1.0, 1.0),
        "num_workers": 2,
        "use_prefetcher": False,  # it needs a GPU
        "device": device,
    }
    changes = NEAREST.get(name, {"no_aug": True})
    dataset = create_dataset("", root=folder, split="train", is_training=True, batch_size=case.batch)
    train = create_loader(dataset, is_training=True, **changes, **shared)
    val = create_loader(create_dataset("", root=folder, split="val"), crop_pct=1.0, **shared)
    trained = [p for p in net.parameters() if p.requires_grad]
    own = {"alpha": 0.9, "momentum": 0.0} if case.optimizer == "rmsprop" else {}
    optimizer = create_optimizer_v2(trained, opt=case.optimizer, lr=case.lr, **own)

    def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return criterion(logits.squeeze(1), target.float()) if binary else criterion(logits, target)

    for _ in range(int(epochs)):
        losses, top1 = AverageMeter(), AverageMeter()
        timer.start_epoch()
        net.train()
        for inputs, target in train:
            inputs, target = inputs.to(device), target.to(device)
            loss = loss_of(net(inputs), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), inputs.size(0))
            timer.step(inputs.size(0))
        net.eval()
        with torch.inference_mode():
            for inputs, target in val:
                logits = net(inputs.to(device))
                losses.update(loss_of(logits, target).item(), inputs.size(0))
                if not binary:
                    top1.update(accuracy(logits, target)[0].item(), inputs.size(0))
        timer.end_epoch()
    timer.print_json(parameters=sum(p.numel() for p in net.parameters()))


if __name__ == "__main__":
    main(*sys.argv[1:])
