"""What `import faceattr` gives: train, evaluate and use a classifier from Python, by the code that the commands run.

What needs torch, Hydra or pandas is imported in the functions: an exported model runs without the first two.

>>> import faceattr
>>> tiny = ["data.n=60", "data.image_size=32", "model.image_size=[32,32]", "trainer=cpu", "trainer.max_epochs=1"]
>>> run = faceattr.train(*tiny, "evaluate.report=figures", "hydra.run.dir=outputs/example")
>>> run.folder.name, sorted(run.metrics)
('example', ['test', 'val'])
>>> model = faceattr.load(run.checkpoint)
>>> model.classes, model.input_size
(('female', 'male'), (32, 32))
>>> import numpy as np
>>> model.predict(np.zeros((48, 48, 3), np.uint8)).columns.tolist()
['path', 'predicted', 'probability_female', 'probability_male', 'reason']
>>> faceattr.evaluate(run.checkpoint, "split=val", "evaluate.report=figures")["n"]
7
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceattr.errors import FaceattrError
from faceattr.training.inference_backend import open_backend
from faceattr.training.predictor import Predictor

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["FaceattrError", "Predictor", "Run", "evaluate", "load", "train"]


def load(path: str | PathLike[str], *, accelerator: str | None = None) -> Predictor:
    """The trained classifier in the checkpoint, or in the exported folder, `path`.

    `accelerator` is where a checkpoint computes: `cpu`, `cuda`, `auto`; None is as in training. A run with `trainer=gpu` needs
    it on a machine without a GPU. An exported model computes on the CPU. Raises FaceattrError where the file is absent,
    damaged, or none of faceattr's.

    >>> faceattr.load("outputs/example/checkpoints/best.ckpt")
    Predictor(sample_cnn_full: female, male)
    """
    return Predictor(open_backend(Path(path), accelerator=accelerator))


@dataclass(frozen=True)
class Run:
    """A finished training run.

    `folder` holds its files. `metrics` holds the metrics of each evaluated split (`val`, `test`), as in
    <split>_metrics.json. `checkpoint` is the checkpoint that was evaluated.
    """

    folder: Path
    metrics: dict[str, dict[str, Any]] = field(repr=False)
    checkpoint: Path = field(repr=False)

    @cached_property
    def model(self) -> Predictor:
        """The classifier in `checkpoint`."""
        return load(self.checkpoint)


def train(*overrides: str) -> Run:
    """Train as the command `faceattr train` does with these arguments, in this process.

    `overrides` are `key=value` as on a command line; `faceattr train --help` lists them. `ckpt=…/last.ckpt` goes on with a
    run; a finished one is returned as it is.
    Progress is logged by the logger `faceattr`, and to stderr where the program has set up no logging.
    With `data.pack=off` a script that calls this needs `if __name__ == "__main__":`: PyTorch's loader starts processes.

    Raises FaceattrError for anything that the user can mend.

    >>> run = faceattr.train("data.n=60", "data.image_size=32", "model.image_size=[32,32]", "trainer.max_epochs=1")
    >>> 0 <= run.metrics["val"]["accuracy"] <= 1
    True
    """
    from faceattr.commands.from_python import run_command
    from faceattr.commands.train import start

    def function(cfg: "DictConfig") -> Run:
        if "ddp" in str(cfg.trainer.strategy):
            raise FaceattrError(
                f"trainer.strategy={cfg.trainer.strategy} starts processes of its own, from a command line: faceattr train …"
            )
        run = start(cfg, f"faceattr.train{_arguments(overrides)}")
        assert run is not None, "this is the first process"
        return Run(run.folder, run.metrics, run.ckpt)

    return run_command("train", overrides, function)


def evaluate(ckpt: str | PathLike[str], *overrides: str) -> dict[str, Any]:
    """Evaluate a checkpoint as the command `faceattr evaluate` does; returns the metrics of the split.

    `overrides` are `key=value` as on a command line, such as `split=val` or `data=csv`, `data.root=…`.

    Raises FaceattrError for anything that the user can mend.

    >>> faceattr.evaluate("outputs/example/checkpoints/best.ckpt")["n"]
    10
    """
    from faceattr.commands.evaluate import evaluate as run_evaluation
    from faceattr.commands.from_python import run_command
    from faceattr.config.quote_for_hydra import argument

    def function(cfg: "DictConfig") -> dict[str, Any]:
        return run_evaluation(cfg, f"faceattr.evaluate{_arguments((str(ckpt), *overrides))}")

    return run_command("evaluate", [argument("ckpt", Path(ckpt)), *overrides], function)


def _arguments(overrides: Sequence[str]) -> str:
    return f"({', '.join(map(repr, overrides))})"
