"""Train a classifier of face attributes: python train.py data=… model=… finetune=… (see README.md)."""

import hydra
from omegaconf import DictConfig

from faceattr.command_line import launch, one_clear_error


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    with one_clear_error("train"):
        from faceattr.training import train  # torch is imported only once the config is composed

        return train(cfg)


if __name__ == "__main__":
    launch(main, "train")
