"""Evaluate a checkpoint: python evaluate.py ckpt=…/best.ckpt [split=… data=… data.root=…] (see README.md)."""

import hydra
from omegaconf import DictConfig

from faceattr.command_line import launch, one_clear_error


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    with one_clear_error("evaluate"):
        from faceattr.evaluation import evaluate  # torch is imported only once the config is composed

        evaluate(cfg)


if __name__ == "__main__":
    launch(main, "evaluate")
