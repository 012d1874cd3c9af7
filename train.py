"""Train a classifier of face attributes: python train.py data=… model=… finetune=…."""

from faceattr.commands.main import main

if __name__ == "__main__":
    main("train")
