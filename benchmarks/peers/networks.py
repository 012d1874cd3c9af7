"""The networks of the cases in plain PyTorch, for the Lightning and timm peers."""

from cases import CASES
from torch import nn
from torchvision.models import vgg16


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """The network, its frozen layers without gradients, and its loss."""
    if name in ("s3", "s4c"):
        widths = (32, 32, 32, 64, 64) if name == "s3" else (32, 64, 128, 128, 128)
        layers, channels = [], 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        if name == "s3":
            head = [nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 1)]
        else:
            head = [nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 3)]
        return nn.Sequential(*layers, nn.Flatten(), *head), nn.BCEWithLogitsLoss() if name == "s3" else _cross_entropy()
    features = vgg16(weights=None).features
    features[: CASES[name].frozen].requires_grad_(False)
    if name == "s2":
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        head = [*pool, nn.Linear(512, 128), nn.ReLU(), nn.BatchNorm1d(128), nn.Linear(128, 2)]
    elif name == "s4d":
        head = [nn.Flatten(), nn.Linear(8192, 256), nn.ReLU(), nn.Linear(256, 3)]
    else:
        hidden = [nn.Linear(8192, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.3)]
        head = [nn.Flatten(), *hidden, nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 3)]
    return nn.Sequential(features, *head), _cross_entropy()


def _cross_entropy() -> nn.Module:
    return nn.CrossEntropyLoss()
