"""Predict images: python predict.py ckpt=…/best.ckpt input=photo.jpg (see README.md)."""

import hydra
from omegaconf import DictConfig

from faceattr.command_line import launch, one_clear_error


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    with one_clear_error("predict"):
        from faceattr.predictor import predict  # torch is imported only once the config is composed

        predict(cfg)


if __name__ == "__main__":
    launch(main, "predict")
