"""Evaluate a checkpoint: python evaluate.py ckpt=…/best.ckpt [split=… data=… data.root=…]."""

from faceattr.commands.main import main

if __name__ == "__main__":
    main("evaluate")
